//! Metric reporter: collects reports periodically, keeps them in the spool until they are
//! committed, and sends them to the topology master.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Metrics,
    gauges::WorkerGauges,
    master_link::{MasterAddress, MasterEnd, MasterLink},
    messages::{self, Duplex, MasterReply, WorkerMessage},
    spool_index::{ReportRange, SpoolIndex},
    topology_master::MasterHandle,
    until,
};
use crate::transport::Identity;
use stormkeeper_metric_shipping::spool::{Spool, SpooledReport};
use stormkeeper_metrics::{CollectRequest, MetricId, MetricName, MetricReport, Minute};
use stormkeeper_model::{Slot, backoff::Delays};
use stormkeeper_runtime::{blocking, tasks::Tasks};

/// Delays between attempts to reach the master, which may be starting.
const RETRY: Delays = Delays::between(Duration::from_millis(200), Duration::from_secs(5));

/// Time limit for the reply to a report; after it the connection is closed. The master replies at
/// once unless it waits for the leader, and it does not wait longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Limit of names in one message.
const NAMES_PER_MESSAGE: usize = 2000;

/// Pause before a report is sent again after the master rejected it because it is full.
const FULL_PAUSE: Duration = Duration::from_secs(10);

/// Location of the topology master.
#[derive(Debug, Clone)]
pub(crate) enum MasterLocation {
    /// There is no known master.
    Unknown,
    /// This process.
    Local(MasterHandle),
    /// Another worker.
    Remote {
        /// Slot of the master's worker.
        slot: Slot,
        /// Host of the master's worker.
        host: String,
    },
}

impl PartialEq for MasterLocation {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unknown, Self::Unknown) | (Self::Local(_), Self::Local(_)) => true,
            (Self::Remote { slot, host }, Self::Remote { slot: other, host: at }) => {
                slot == other && host == at
            }
            (Self::Unknown | Self::Local(_) | Self::Remote { .. }, _) => false,
        }
    }
}

/// Collects reports and writes them to the spool.
#[derive(Debug)]
struct ReportWriter {
    metrics: Metrics,
    gauges: WorkerGauges,
    dir: Spool,
    number: u64,
    generation: u64,
    // Minute of the last report with gauges.
    gauges_minute: Option<Minute>,
    // Report that was collected and is not yet on disk.
    unwritten: Option<(SpooledReport, BTreeMap<MetricId, u64>)>,
    n_failures: u64,
}

impl ReportWriter {
    fn new(metrics: &Metrics) -> io::Result<Self> {
        Ok(Self {
            gauges: WorkerGauges::new(metrics),
            dir: Spool::create(metrics.dir())?,
            metrics: metrics.clone(),
            number: 0,
            generation: 0,
            gauges_minute: None,
            unwritten: None,
            n_failures: 0,
        })
    }

    /// Collects a report for `minute` and writes it to disk. Returns its sequence number. A report
    /// that cannot be written is retried by the next call; later counts go to the next report. Blocks.
    fn collect_and_write(&mut self, minute: Minute) -> Option<u64> {
        if self.unwritten.is_none() {
            self.unwritten = self.collect(minute);
        }
        let (report, totals) = self.unwritten.take()?;
        match self.write(&report, &totals) {
            Ok(()) => Some(report.report.number),
            Err(error) => {
                self.n_failures += 1;
                if self.n_failures.is_power_of_two() {
                    warn!(%error, so_far = self.n_failures, "cannot write a metric report to disk; retrying with the next report");
                }
                self.unwritten = Some((report, totals));
                None
            }
        }
    }

    fn collect(&mut self, minute: Minute) -> Option<(SpooledReport, BTreeMap<MetricId, u64>)> {
        let with_gauges = self.gauges_minute.is_none_or(|gauges_minute| minute > gauges_minute);
        if with_gauges {
            self.gauges.read();
            self.gauges_minute = Some(minute);
        }
        let registry = self.metrics.registry();
        let request = CollectRequest { minute, now: self.metrics.clock().monotonic(), with_gauges };
        let leaves = registry.collect(request);
        if leaves.is_empty() {
            return None;
        }
        for (name, leaf) in registry.debugged(&leaves) {
            info!(%minute, %name, point = ?leaf.point, "metric");
        }
        self.number += 1;
        let launch = self.metrics.launch();
        let report = MetricReport {
            topology: launch.topology.clone(),
            worker: launch.worker.clone(),
            number: self.number,
            minute,
            started: launch.started,
            leaves,
        };
        Some((
            SpooledReport { first: self.number, report },
            registry.collected_totals().into_iter().collect(),
        ))
    }

    fn write(&mut self, report: &SpooledReport, totals: &BTreeMap<MetricId, u64>) -> io::Result<()> {
        let (generation, names) = self.metrics.registry().names_since(self.generation);
        for (id, name) in names {
            self.dir.add_name(id, &name)?;
        }
        self.generation = generation;
        self.dir.write(report, totals)
    }
}

/// Sends reports to the topology master.
#[derive(Debug)]
pub(crate) struct MetricReporter {
    metrics: Metrics,
    me: Identity,
    period: Duration,
    master: watch::Receiver<MasterLocation>,
    link: Arc<dyn MasterLink>,
    // `None` while a blocking task uses it.
    writer: Option<ReportWriter>,
    index: SpoolIndex,
    // Metrics and values that the registry had rejected at the last report.
    rejected: (u64, u64),
    // Metrics whose names are not on the disk either: their points are not sent.
    nameless: HashSet<MetricId>,
    tasks: Tasks,
}

/// Connection to a topology master.
struct MasterConnection {
    duplex: Duplex<WorkerMessage, MasterReply>,
    // Report that the master has not replied to, and the deadline of the reply.
    pending: Option<(ReportRange, Instant)>,
    // No report is sent before this time.
    pause: Option<Instant>,
    _tasks: Tasks,
}

impl MetricReporter {
    /// Creates the reporter and its spool in the metrics directory. Blocks.
    ///
    /// # Errors
    /// I/O error if the spool is not writable.
    pub(crate) fn new(
        metrics: &Metrics,
        me: Identity,
        period: Duration,
        (master, link): (watch::Receiver<MasterLocation>, Arc<dyn MasterLink>),
        tasks: Tasks,
    ) -> io::Result<Self> {
        let writer = Some(ReportWriter::new(metrics)?);
        let (metrics, index) = (metrics.clone(), SpoolIndex::default());
        Ok(Self {
            metrics,
            me,
            period,
            master,
            link,
            writer,
            index,
            rejected: (0, 0),
            nameless: HashSet::new(),
            tasks,
        })
    }

    /// Runs until `stop`; then writes a last report, which the supervisor sends to the leader.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut open = Minute::of(self.metrics.clock().now());
        let mut collect_due = self.next_collection();
        let mut connection: Option<MasterConnection> = None;
        let mut backoff = RETRY.backoff();
        let mut connect_due = Some(Instant::now());
        loop {
            let wait = connection
                .as_ref()
                .and_then(|connection| connection.pause.or(connection.pending.map(|pending| pending.1)));
            tokio::select! {
                biased;
                // Cancel-safe: a cancelled token stays cancelled.
                () = stop.cancelled() => break,
                // Cancel-safe: all arms only wait, and no reply is taken unless the call returns.
                () = tokio::time::sleep_until(collect_due) => {
                    self.collect(open).await;
                    open = Minute::of(self.metrics.clock().now());
                    collect_due = self.next_collection();
                }
                changed = self.master.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    connection = None;
                    backoff.reset();
                    connect_due = Some(Instant::now());
                }
                () = until(connect_due), if connection.is_none() => {
                    connect_due = Some(Instant::now() + backoff.next_delay());
                    connection = self.connect().await;
                }
                reply = next_reply(&mut connection) => match reply {
                    Some(reply) => {
                        backoff.reset();
                        self.handle_reply(reply, &mut connection).await;
                    }
                    None => connection = None,
                },
                // A pause is over, or the master did not reply in time.
                () = until(wait) => if connection.as_mut().is_none_or(|connection| connection.pause.take().is_none()) {
                    connection = None;
                },
            }
            if let Some(one) = &mut connection {
                self.send_next(one).await;
            }
        }
        drop(connection);
        self.collect(open).await;
    }

    /// Returns the end of the minute or of the report period, whichever comes first.
    fn next_collection(&self) -> Instant {
        let now = self.metrics.clock().now();
        let millis = Minute::of(now).end().as_millis().saturating_sub(now.as_millis());
        Instant::now() + Duration::from_millis(millis.max(1)).min(self.period)
    }

    /// Logs how many metrics and values the registry has rejected, if more since the last report.
    fn log_rejected(&mut self) {
        let registry = self.metrics.registry();
        let rejected = (registry.n_rejected(), registry.n_rejected_values());
        if rejected != self.rejected {
            self.rejected = rejected;
            let (metrics, values) = rejected;
            warn!(
                metrics,
                values,
                "rejected metrics beyond the limit of a worker, or values that are infinite or not a number; counted since the start"
            );
        }
    }

    async fn collect(&mut self, minute: Minute) {
        self.log_rejected();
        let Some(mut writer) = self.writer.take() else { return };
        let (writer, number) = blocking::run(move || {
            let number = writer.collect_and_write(minute);
            (writer, number)
        })
        .await;
        let mut removable = Vec::new();
        if let Some(number) = number {
            removable.extend(self.index.add(number));
        }
        let to_join = self.index.to_join();
        let (writer, joined) = blocking::run(move || {
            remove(&writer, &removable);
            let joined = to_join.map(|(older, newer)| writer.dir.join(older, newer));
            (writer, joined)
        })
        .await;
        self.writer = Some(writer);
        match (to_join, joined) {
            (Some((older, newer)), Some(Ok(()))) => self.index.joined(older, newer),
            (_, Some(Err(error))) => {
                warn!(%error, n = self.index.len(), "cannot join old metric reports; retrying with the next report")
            }
            (_, None) | (None, Some(Ok(()))) => {}
        }
    }

    async fn connect(&mut self) -> Option<MasterConnection> {
        let (worker, master) = messages::pair();
        let tasks = self.tasks.child();
        let at = self.master.borrow().clone();
        match at {
            MasterLocation::Unknown => return None,
            MasterLocation::Local(handle) => {
                if !handle.connect(master) {
                    return None;
                }
            }
            MasterLocation::Remote { slot, host } => {
                let to = MasterAddress { slot: &slot, host: &host };
                if let Err(error) = self.link.connect(&self.me, to, MasterEnd(master), &tasks).await {
                    debug!(%error, host, %slot, "cannot connect to the topology master");
                    return None;
                }
            }
        }
        self.index.resend_all();
        Some(MasterConnection { duplex: worker, pending: None, pause: None, _tasks: tasks })
    }

    async fn send_next(&mut self, connection: &mut MasterConnection) {
        if connection.pending.is_some() || connection.pause.is_some() {
            return;
        }
        let Some(range) = self.index.next() else { return };
        let Some(writer) = self.writer.take() else { return };
        let (writer, read) = blocking::run(move || {
            let read = writer.dir.read(range.0, range.1);
            (writer, read)
        })
        .await;
        self.writer = Some(writer);
        match read {
            Ok(mut report) => {
                report.report.leaves.retain(|leaf| !self.nameless.contains(&leaf.id));
                // A failed send is ignored: a closed connection is detected by the next receive.
                let _over = connection.duplex.send.send(WorkerMessage::Report(report)).await;
                connection.pending = Some((range, Instant::now() + ANSWER_TIMEOUT));
            }
            Err(error) => {
                warn!(%error, first = range.0, last = range.1, "cannot read a metric report from disk; the report is lost");
                self.index.accepted(range.1);
            }
        }
    }

    async fn handle_reply(&mut self, reply: MasterReply, connection: &mut Option<MasterConnection>) {
        let Some(one) = connection else { return };
        match reply {
            MasterReply::Queued(last) => {
                self.index.accepted(last);
                one.pending = None;
            }
            MasterReply::Committed(last) => {
                if one.pending.is_some_and(|(range, _)| range.1 <= last) {
                    one.pending = None;
                }
                self.remove_committed(last).await;
            }
            MasterReply::Full => (one.pending, one.pause) = (None, Some(Instant::now() + FULL_PAUSE)),
            MasterReply::Nameless(ids) => {
                one.pending = None;
                let wanted = ids.into_iter().collect();
                let Some(names) = self.names(&wanted).await else {
                    // The names cannot be read from disk; the report is sent again later.
                    one.pause = Some(Instant::now() + FULL_PAUSE);
                    return;
                };
                let found: HashSet<MetricId> = names.iter().map(|(id, _)| *id).collect();
                let nameless: Vec<MetricId> = wanted.difference(&found).copied().collect();
                if !nameless.is_empty() {
                    // Without them the report would be sent again and again, and hold up all later ones.
                    warn!(n = nameless.len(), "discarding metrics whose names are not on the disk");
                    self.nameless.extend(nameless);
                }
                for names in names.chunks(NAMES_PER_MESSAGE) {
                    let names = WorkerMessage::Names {
                        worker: self.metrics.launch().worker.clone(),
                        names: names.to_vec(),
                    };
                    if one.duplex.send.send(names).await.is_err() {
                        *connection = None;
                        return;
                    }
                }
            }
        }
    }

    /// Reads the names of metrics from disk: the registry may have forgotten some of them. `None` if
    /// they cannot be read.
    async fn names(&mut self, wanted: &HashSet<MetricId>) -> Option<Vec<(MetricId, MetricName)>> {
        let writer = self.writer.take()?;
        let (writer, names) = blocking::run(move || {
            let names = writer.dir.names();
            (writer, names)
        })
        .await;
        self.writer = Some(writer);
        match names {
            Ok(names) => Some(names.into_iter().filter(|(id, _)| wanted.contains(id)).collect()),
            Err(error) => {
                warn!(%error, "cannot read the names of metrics from disk; retrying");
                None
            }
        }
    }

    async fn remove_committed(&mut self, last: u64) {
        let removable = self.index.committed(last);
        if removable.is_empty() {
            return;
        }
        let Some(writer) = self.writer.take() else { return };
        self.writer = Some(
            blocking::run(move || {
                remove(&writer, &removable);
                writer
            })
            .await,
        );
    }
}

fn remove(writer: &ReportWriter, removable: &[ReportRange]) {
    for (first, last) in removable {
        writer.dir.remove(*first, *last);
    }
}

async fn next_reply(connection: &mut Option<MasterConnection>) -> Option<MasterReply> {
    match connection {
        Some(connection) => connection.duplex.receive.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tests::options;
    use stormkeeper_metrics::{Control, Point};
    use stormkeeper_model::{Timestamp, clock::Clock};

    #[test]
    fn unwritable_report_is_retried_and_gauges_are_in_the_first_report_of_a_minute() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let metrics = Metrics::start(&options(dir.path()), Control::default(), &clock).expect("started");
        let name = "3@1@t-1-100@split@4@default@sys@Emitted".parse().expect("a name");
        let emitted = metrics.registry().counter(name);
        let mut writer = ReportWriter::new(&metrics).expect("made");
        let away = dir.path().join("away");
        emitted.add(2);
        fs::rename(metrics.dir(), &away).expect("moved");
        assert_eq!(writer.collect_and_write(Minute(1)), None, "the spool directory is gone");
        emitted.add(3);
        fs::rename(&away, metrics.dir()).expect("moved back");
        assert_eq!(writer.collect_and_write(Minute(2)), Some(1), "the report that was retried");
        assert_eq!(writer.collect_and_write(Minute(2)), Some(2));
        emitted.add(4);
        assert_eq!(writer.collect_and_write(Minute(2)), Some(3));
        let reports = [1, 2, 3].map(|number| writer.dir.read(number, number).expect("written").report);
        let counted = |report: &MetricReport| {
            let counts = report.leaves.iter().filter_map(|leaf| match &leaf.point {
                Point::Counter(counter) => Some(counter.count),
                Point::Gauge(_) | Point::Meter(_) | Point::Histogram(_) | Point::Timer(_) => None,
            });
            counts.sum::<u64>()
        };
        assert_eq!(reports.each_ref().map(counted), [2, 3, 4]);
        assert_eq!(reports.each_ref().map(|report| report.minute.0), [1, 2, 2]);
        let has_gauges =
            |report: &MetricReport| report.leaves.iter().any(|leaf| matches!(leaf.point, Point::Gauge(_)));
        assert_eq!(reports.each_ref().map(has_gauges), [true, true, false]);
    }
}
