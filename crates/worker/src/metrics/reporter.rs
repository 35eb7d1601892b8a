//! Metric reporter: collects reports periodically, keeps them in the spool until they are
//! committed, and sends them to the topology master.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Metrics,
    master_link::{MasterAddress, MasterEnd, MasterLink},
    messages::{self, Duplex, MasterReply, WorkerMessage},
    report_writer::ReportWriter,
    spool_index::{ReportRange, SpoolIndex},
    topology_master::MasterHandle,
    until,
};
use crate::transport::Identity;
use stormkeeper_metrics::{MetricId, MetricName, Minute};
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
            removable.iter().for_each(|(first, last)| writer.dir.remove(*first, *last));
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
                removable.iter().for_each(|(first, last)| writer.dir.remove(*first, *last));
                writer
            })
            .await,
        );
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
    use std::{fs, sync::Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::tests::options;
    use stormkeeper_metrics::Control;
    use stormkeeper_model::{Timestamp, clock::Clock};

    /// Link that keeps the master's end of each connection.
    #[derive(Debug, Default)]
    struct KeptEnds(Mutex<Vec<Duplex<MasterReply, WorkerMessage>>>);

    #[async_trait]
    impl MasterLink for KeptEnds {
        async fn connect(
            &self,
            _me: &Identity,
            _to: MasterAddress<'_>,
            end: MasterEnd,
            _tasks: &Tasks,
        ) -> io::Result<()> {
            self.0.lock().expect("not poisoned").push(end.0);
            Ok(())
        }
    }

    #[tokio::test]
    async fn report_goes_on_without_metrics_whose_names_are_lost() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let options = options(dir.path());
        let metrics = Metrics::start(&options, Control::default(), &clock).expect("started");
        let slot = options.spec.slot.clone();
        let me = Identity { topology: options.spec.topology.clone(), slot: slot.clone() };
        let at = MasterLocation::Remote { slot, host: "h".to_owned() };
        let (link, location) = (Arc::new(KeptEnds::default()), watch::Sender::new(at));
        let period = Duration::from_secs(60);
        let master: (_, Arc<dyn MasterLink>) = (location.subscribe(), link.clone());
        let mut reporter = MetricReporter::new(&metrics, me, period, master, Tasks::default()).expect("made");
        let counter = |name: &str| {
            let name = format!("3@1@t-1-100@split@4@default@sys@{name}").parse().expect("a name");
            metrics.registry().counter(name).add(1);
        };
        counter("Emitted");
        reporter.collect(Minute(1)).await;
        fs::write(metrics.dir().join("names"), "").expect("emptied");
        counter("Acked");
        reporter.collect(Minute(2)).await;

        let mut connection = reporter.connect().await;
        let mut end = link.0.lock().expect("not poisoned").pop().expect("connected");
        let mut sent_ids = async |reporter: &mut MetricReporter,
                                  connection: &mut Option<MasterConnection>| {
            reporter.send_next(connection.as_mut().expect("connected")).await;
            let Some(WorkerMessage::Report(report)) = end.receive.recv().await else { panic!("no report") };
            report.report.leaves.iter().map(|leaf| leaf.id).collect::<Vec<_>>()
        };
        let ids = sent_ids(&mut reporter, &mut connection).await;
        assert!(!ids.is_empty());
        reporter.handle_reply(MasterReply::Nameless(ids), &mut connection).await;
        let left = sent_ids(&mut reporter, &mut connection).await;
        assert_eq!(left, [], "the same report, without the metrics that have no names");
        let first = reporter.index.next();
        reporter.handle_reply(MasterReply::Queued(1), &mut connection).await;
        let second = sent_ids(&mut reporter, &mut connection).await;
        assert!(!second.is_empty() && first != reporter.index.next(), "the next report follows");
    }
}
