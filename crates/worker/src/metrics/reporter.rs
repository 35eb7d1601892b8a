//! Cuts at their time, keeps the reports until they are safe, and brings them to the master.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Metrics,
    gauges::WorkerGauges,
    master::Door,
    report::{self, End, MAGIC, Reply, Report, VERSION},
    shelf::{Range, Shelf},
};
use crate::transport::{
    Identity,
    wire::{self, Answer, Hello, MAX_HANDSHAKE_BYTES},
};
use stormkeeper_metric_shipping::spool::{Spool, SpooledReport};
use stormkeeper_metrics::{CollectRequest, MetricId, MetricName, MetricReport, Minute};
use stormkeeper_model::{Slot, backoff::Backoff};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// How long connecting to the master and greeting it may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Between two tries to reach the master, which may be starting just now.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// After so long without an answer to a cut the master is given up: it answers at once, unless
/// it waits for the leader, and it does that no longer than this.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);

/// How many names go in one message.
const NAMES: usize = 2000;

/// When the master holds as much as it may, it is asked again after this.
const FULL_PAUSE: Duration = Duration::from_secs(10);

/// Where the topology master is.
#[derive(Debug, Clone)]
pub(crate) enum MasterAt {
    /// Nobody knows.
    Nowhere,
    /// In this process.
    Here(Door),
    /// In another worker.
    There {
        /// Its slot.
        slot: Slot,
        /// Its host.
        host: String,
    },
}

impl PartialEq for MasterAt {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nowhere, Self::Nowhere) | (Self::Here(_), Self::Here(_)) => true,
            (Self::There { slot, host }, Self::There { slot: other, host: at }) => {
                slot == other && host == at
            }
            (Self::Nowhere | Self::Here(_) | Self::There { .. }, _) => false,
        }
    }
}

/// Takes reports and writes them.
#[derive(Debug)]
struct Cutter {
    metrics: Metrics,
    gauges: WorkerGauges,
    dir: Spool,
    number: u64,
    generation: u64,
    // The minute whose gauges were cut last.
    gauged: Option<Minute>,
    // Taken, and not on disk yet.
    unwritten: Option<(SpooledReport, BTreeMap<MetricId, u64>)>,
    n_failures: u64,
}

impl Cutter {
    fn new(metrics: &Metrics) -> io::Result<Self> {
        Ok(Self {
            gauges: WorkerGauges::new(metrics),
            dir: Spool::create(metrics.dir())?,
            metrics: metrics.clone(),
            number: 0,
            generation: 0,
            gauged: None,
            unwritten: None,
            n_failures: 0,
        })
    }

    /// Takes a cut for `minute` and puts it on disk; answers its number. One that cannot be
    /// written is tried again, and what was counted meanwhile is in the next. Blocks.
    fn collect(&mut self, minute: Minute) -> Option<u64> {
        if self.unwritten.is_none() {
            self.unwritten = self.take(minute);
        }
        let (spooled, totals) = self.unwritten.take()?;
        match self.write(&spooled, &totals) {
            Ok(()) => Some(spooled.report.number),
            Err(error) => {
                self.n_failures += 1;
                if self.n_failures.is_power_of_two() {
                    warn!(%error, so_far = self.n_failures, "a report of metrics cannot be written to disk; it waits");
                }
                self.unwritten = Some((spooled, totals));
                None
            }
        }
    }

    fn take(&mut self, minute: Minute) -> Option<(SpooledReport, BTreeMap<MetricId, u64>)> {
        let with_gauges = self.gauged.is_none_or(|gauged| minute > gauged);
        if with_gauges {
            self.gauges.read();
            self.gauged = Some(minute);
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

    fn write(&mut self, spooled: &SpooledReport, totals: &BTreeMap<MetricId, u64>) -> io::Result<()> {
        let (generation, names) = self.metrics.registry().names_since(self.generation);
        for (id, name) in names {
            self.dir.add_name(id, &name)?;
        }
        self.generation = generation;
        self.dir.write(spooled, totals)
    }
}

/// Brings reports to the master.
#[derive(Debug)]
pub(crate) struct Reporter {
    metrics: Metrics,
    me: Identity,
    period: Duration,
    master: watch::Receiver<MasterAt>,
    // None while it works elsewhere.
    cutter: Option<Cutter>,
    shelf: Shelf,
    tasks: Tasks,
}

/// A conversation with a master.
struct Link {
    end: End<Report, Reply>,
    // What it was sent and has not answered, and until when it may take.
    asked: Option<(Range, Instant)>,
    // Nothing is sent before.
    pause: Option<Instant>,
    _tasks: Tasks,
}

impl Reporter {
    /// Begins to keep reports in the metrics' directory. Blocks.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn new(
        metrics: &Metrics,
        me: Identity,
        period: Duration,
        master: watch::Receiver<MasterAt>,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let cutter = Some(Cutter::new(metrics)?);
        Ok(Self { metrics: metrics.clone(), me, period, master, cutter, shelf: Shelf::default(), tasks })
    }

    /// Runs until `stop`; then takes a last cut, which the supervisor brings to the leader.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut open = Minute::of(self.metrics.clock().now());
        let mut cut_due = self.next_cut();
        let mut link: Option<Link> = None;
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new())
            .expect("the constants are in order and above zero");
        let mut link_due = Some(Instant::now());
        loop {
            let wait = link.as_ref().and_then(|link| link.pause.or(link.asked.map(|asked| asked.1)));
            tokio::select! {
                biased;
                // Cancel-safe: a cancelled token stays so.
                () = stop.cancelled() => break,
                // Cancel-safe: all only wait, and what was heard is heard when it is returned.
                () = tokio::time::sleep_until(cut_due) => {
                    self.collect(open).await;
                    open = Minute::of(self.metrics.clock().now());
                    cut_due = self.next_cut();
                }
                changed = self.master.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    link = None;
                    backoff.reset();
                    link_due = Some(Instant::now());
                }
                () = until(link_due), if link.is_none() => {
                    link_due = Some(Instant::now() + backoff.next_delay());
                    link = self.connect().await;
                }
                reply = hear(&mut link) => match reply {
                    Some(reply) => {
                        backoff.reset();
                        self.take(reply, &mut link).await;
                    }
                    None => link = None,
                },
                // A pause is over, or the master took too long.
                () = until(wait) => if link.as_mut().is_none_or(|link| link.pause.take().is_none()) {
                    link = None;
                },
            }
            if let Some(one) = &mut link {
                self.send_next(one).await;
            }
        }
        drop(link);
        self.collect(open).await;
    }

    /// The next end of a minute, or of a report period if that comes first.
    fn next_cut(&self) -> Instant {
        let now = self.metrics.clock().now();
        let millis = Minute::of(now).end().as_millis().saturating_sub(now.as_millis());
        Instant::now() + Duration::from_millis(millis.max(1)).min(self.period)
    }

    async fn collect(&mut self, minute: Minute) {
        let Some(mut cutter) = self.cutter.take() else { return };
        let (cutter, number) = blocking::run(move || {
            let number = cutter.collect(minute);
            (cutter, number)
        })
        .await;
        let mut gone = Vec::new();
        if let Some(number) = number {
            gone.extend(self.shelf.add(number));
        }
        let to_join = self.shelf.to_join();
        let (cutter, joined) = blocking::run(move || {
            remove(&cutter, &gone);
            let joined = to_join.map(|(older, newer)| cutter.dir.join(older, newer));
            (cutter, joined)
        })
        .await;
        self.cutter = Some(cutter);
        match (to_join, joined) {
            (Some((older, newer)), Some(Ok(()))) => self.shelf.joined(older, newer),
            (_, Some(Err(error))) => {
                warn!(%error, n = self.shelf.len(), "old reports of metrics cannot be joined")
            }
            (_, None) | (None, Some(Ok(()))) => {}
        }
    }

    async fn connect(&mut self) -> Option<Link> {
        let (worker, master) = report::pair();
        let tasks = self.tasks.child();
        let at = self.master.borrow().clone();
        match at {
            MasterAt::Nowhere => return None,
            MasterAt::Here(door) => {
                if !door.enter(master) {
                    return None;
                }
            }
            MasterAt::There { slot, host } => {
                let hello = Hello {
                    topology: self.me.topology.clone(),
                    to: slot.clone(),
                    from: self.me.slot.clone(),
                };
                let stream = match timeout(CONNECT_DEADLINE, greet(&host, slot.port.0, &hello)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        debug!(%error, host, %slot, "the topology master is not reached");
                        return None;
                    }
                    Err(_elapsed) => return None,
                };
                tasks.start("reports to the master", OnExit::Ignore, async move {
                    let error = report::carry(stream, master).await;
                    debug!(%error, "the conversation with the topology master ended");
                });
            }
        }
        self.shelf.begin();
        Some(Link { end: worker, asked: None, pause: None, _tasks: tasks })
    }

    async fn send_next(&mut self, link: &mut Link) {
        if link.asked.is_some() || link.pause.is_some() {
            return;
        }
        let Some(range) = self.shelf.next() else { return };
        let Some(cutter) = self.cutter.take() else { return };
        let (cutter, read) = blocking::run(move || {
            let read = cutter.dir.read(range.0, range.1);
            (cutter, read)
        })
        .await;
        self.cutter = Some(cutter);
        match read {
            Ok(spooled) => {
                // A conversation that is over shows when it is listened to.
                let _over = link.end.send.send(Report::Spooled(spooled)).await;
                link.asked = Some((range, Instant::now() + ANSWER_PATIENCE));
            }
            Err(error) => {
                warn!(%error, first = range.0, last = range.1, "a report of metrics cannot be read and is lost");
                self.shelf.taken(range.1);
            }
        }
    }

    async fn take(&mut self, reply: Reply, link: &mut Option<Link>) {
        let Some(one) = link else { return };
        match reply {
            Reply::SpoolLock(last) => {
                self.shelf.taken(last);
                one.asked = None;
            }
            Reply::Safe(last) => {
                if one.asked.is_some_and(|(range, _)| range.1 <= last) {
                    one.asked = None;
                }
                self.forget(last).await;
            }
            Reply::Full => (one.asked, one.pause) = (None, Some(Instant::now() + FULL_PAUSE)),
            Reply::Nameless(ids) => {
                one.asked = None;
                let names = self.names(ids.into_iter().collect()).await;
                if names.is_empty() {
                    // The disk does not give them: it is asked again later.
                    one.pause = Some(Instant::now() + FULL_PAUSE);
                }
                for names in names.chunks(NAMES) {
                    let names =
                        Report::Names { worker: self.metrics.launch().worker.clone(), names: names.to_vec() };
                    if one.end.send.send(names).await.is_err() {
                        *link = None;
                        return;
                    }
                }
            }
        }
    }

    /// What these metrics are called. The registry may have forgotten some; the disk has not.
    async fn names(&mut self, wanted: HashSet<MetricId>) -> Vec<(MetricId, MetricName)> {
        let Some(cutter) = self.cutter.take() else { return Vec::new() };
        let (cutter, names) = blocking::run(move || {
            let names = cutter.dir.names();
            (cutter, names)
        })
        .await;
        self.cutter = Some(cutter);
        match names {
            Ok(names) => names.into_iter().filter(|(id, _)| wanted.contains(id)).collect(),
            Err(error) => {
                warn!(%error, "the names of metrics cannot be read");
                Vec::new()
            }
        }
    }

    async fn forget(&mut self, last: u64) {
        let gone = self.shelf.safe(last);
        if gone.is_empty() {
            return;
        }
        let Some(cutter) = self.cutter.take() else { return };
        self.cutter = Some(
            blocking::run(move || {
                remove(&cutter, &gone);
                cutter
            })
            .await,
        );
    }
}

fn remove(cutter: &Cutter, gone: &[Range]) {
    for (first, last) in gone {
        cutter.dir.remove(*first, *last);
    }
}

async fn hear(link: &mut Option<Link>) -> Option<Reply> {
    match link {
        Some(link) => link.end.heard.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Connects to the master's worker and says what for.
async fn greet(host: &str, port: u16, hello: &Hello) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let mut opening = MAGIC.to_vec();
    opening.extend_from_slice(&VERSION.to_be_bytes());
    opening.extend_from_slice(&wire::frame_of(hello));
    stream.write_all(&opening).await?;
    let mut content = Vec::new();
    let read = wire::read_frame(&mut stream, MAX_HANDSHAKE_BYTES, &mut content).await;
    read.map_err(io::Error::other)?;
    match wire::read_message(&content).map_err(io::Error::other)? {
        Answer::Welcome => Ok(stream),
        Answer::Refused(reason) => Err(io::Error::other(reason)),
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
    fn a_cut_that_cannot_be_written_waits_and_gauges_are_in_the_first_of_a_minute() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let metrics = Metrics::start(&options(dir.path()), Control::default(), &clock).expect("started");
        let name = "3@1@t-1-100@split@4@default@sys@Emitted".parse().expect("a name");
        let emitted = metrics.registry().counter(name);
        let mut cutter = Cutter::new(&metrics).expect("made");
        let away = dir.path().join("away");
        emitted.add(2);
        fs::rename(metrics.dir(), &away).expect("moved");
        assert_eq!(cutter.collect(Minute(1)), None, "its directory is gone");
        emitted.add(3);
        fs::rename(&away, metrics.dir()).expect("moved back");
        assert_eq!(cutter.collect(Minute(2)), Some(1), "the one that waited");
        assert_eq!(cutter.collect(Minute(2)), Some(2));
        emitted.add(4);
        assert_eq!(cutter.collect(Minute(2)), Some(3));
        let reports = [1, 2, 3].map(|number| cutter.dir.read(number, number).expect("written").report);
        let counted = |report: &MetricReport| {
            let counts = report.leaves.iter().filter_map(|leaf| match &leaf.point {
                Point::Counter(counter) => Some(counter.count),
                Point::Gauge(_) | Point::Meter(_) | Point::Histogram(_) | Point::Timer(_) => None,
            });
            counts.sum::<u64>()
        };
        assert_eq!(reports.each_ref().map(counted), [2, 3, 4]);
        assert_eq!(reports.each_ref().map(|spooled| spooled.minute.0), [1, 2, 2]);
        let has_gauges =
            |spooled: &MetricReport| spooled.leaves.iter().any(|leaf| matches!(leaf.point, Point::Gauge(_)));
        assert_eq!(reports.each_ref().map(has_gauges), [true, true, false]);
    }
}
