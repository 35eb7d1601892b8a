//! Sends the orphaned metric reports of dead workers to the leader.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracing::{info, warn};

use crate::{run_as, worker_dir};
use stormkeeper_metric_shipping::{
    ingest_client::IngestTransport,
    sender::{Enqueued, FlushOutcome, ReportSender, flush},
    spool::{self, Recovered, SpoolLock, SpoolState, SpooledReport, recover},
};
use stormkeeper_model::{
    WorkerId,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::blocking;

/// Period of scanning for dead workers.
const SCAN_PERIOD: Duration = Duration::from_secs(10);

/// Maximum number of workers whose orphaned reports are in memory; the others wait on disk.
const PENDING_MAX: usize = 4;

/// Time after which accepted reports are sent again to learn whether they are committed.
const RESEND_PERIOD: Duration = Duration::from_secs(20);

/// Finds orphaned reports and sends them.
#[derive(Debug)]
pub(super) struct OrphanReportSender {
    local_dir: PathBuf,
    transport: Arc<dyn IngestTransport>,
    clock: Clock,
    pending: BTreeMap<WorkerId, PendingOrphan>,
}

#[derive(Debug)]
struct PendingOrphan {
    lock: SpoolLock,
    sender: ReportSender,
    // Not in `sender` yet.
    unqueued: VecDeque<SpooledReport>,
    last_resend: Monotonic,
}

impl OrphanReportSender {
    pub(super) fn new(local_dir: PathBuf, transport: Arc<dyn IngestTransport>, clock: Clock) -> Self {
        Self { local_dir, transport, clock, pending: BTreeMap::new() }
    }

    /// Runs until it is dropped; undelivered reports are still on disk then.
    pub(super) async fn run(mut self) {
        let mut period = tokio::time::interval(SCAN_PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            self.scan().await;
            let workers: Vec<WorkerId> = self.pending.keys().cloned().collect();
            for worker in workers {
                if self.send(&worker).await {
                    self.pending.remove(&worker);
                }
            }
        }
    }

    /// Loads the orphaned reports of dead workers, up to [`PENDING_MAX`].
    async fn scan(&mut self) {
        let (dir, known) = (self.local_dir.clone(), self.pending.keys().cloned().collect::<Vec<_>>());
        let room = PENDING_MAX - known.len();
        let found = blocking::run(move || find(&dir, &known, room)).await;
        match found {
            Ok(found) => {
                for (worker, lock, sender, unqueued) in found {
                    let last_resend = self.clock.monotonic();
                    self.pending.insert(worker, PendingOrphan { lock, sender, unqueued, last_resend });
                }
            }
            Err(error) => warn!(%error, "cannot scan for orphaned metric reports; trying again"),
        }
    }

    /// Sends the reports of a worker. Returns true if all are committed and the worker's spool is
    /// marked as delivered.
    async fn send(&mut self, worker: &WorkerId) -> bool {
        let Some(PendingOrphan { lock, sender, unqueued, last_resend }) = self.pending.get_mut(worker) else {
            return true;
        };
        let now = self.clock.monotonic();
        if now.since(*last_resend) >= RESEND_PERIOD {
            sender.resend_stored(now);
            *last_resend = now;
        }
        enqueue(|spooled| sender.add(spooled), unqueued);
        if let FlushOutcome::Incomplete(reason) = flush(sender, &*self.transport, &self.clock).await {
            info!(%worker, reason, "orphaned metric reports are not committed yet; trying again");
            return false;
        }
        // Only this task needs to know which reports are committed.
        drop(sender.take_committed());
        if !unqueued.is_empty() || !sender.is_empty() {
            return false;
        }
        match spool::mark_delivered(lock) {
            Ok(()) => {
                info!(%worker, "all orphaned metric reports of a worker are committed");
                true
            }
            Err(error) => {
                warn!(%worker, %error, "cannot mark a worker's metric spool as delivered; its reports are sent again");
                false
            }
        }
    }
}

/// Enqueues the reports that fit. The others are enqueued when there is room.
fn enqueue(mut add: impl FnMut(SpooledReport) -> Enqueued, unqueued: &mut VecDeque<SpooledReport>) {
    while let Some(spooled) = unqueued.pop_front() {
        let worker = spooled.report.worker.clone();
        match add(spooled.clone()) {
            Enqueued::Queued | Enqueued::Committed => {}
            Enqueued::Full => {
                unqueued.push_front(spooled);
                return;
            }
            Enqueued::UnknownNames(ids) => {
                let number = spooled.report.number;
                warn!(%worker, number, n = ids.len(), "discarding metrics of a report whose names are unknown");
                let mut named = spooled;
                named.report.leaves.retain(|leaf| !ids.contains(&leaf.id));
                unqueued.push_front(named);
            }
        }
    }
}

type Found = (WorkerId, SpoolLock, ReportSender, VecDeque<SpooledReport>);

fn find(local_dir: &Path, known: &[WorkerId], room: usize) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for worker in worker_dir::all(local_dir)?.into_iter().filter(|worker| !known.contains(worker)) {
        if found.len() >= room {
            break;
        }
        match read(&worker_dir::path(local_dir, &worker)) {
            Ok(Some((lock, sender, unqueued))) => found.push((worker, lock, sender, unqueued)),
            Ok(None) => {}
            // An unreadable spool of one worker must not hide the spools of the others.
            Err(error) => warn!(%worker, %error, "cannot read a worker's orphaned metric reports"),
        }
    }
    Ok(found)
}

fn read(worker_dir: &Path) -> io::Result<Option<(SpoolLock, ReportSender, VecDeque<SpooledReport>)>> {
    // Files are written and deleted there, and another user could have put links in their place.
    if run_as::owner_if_other(worker_dir)?.is_some() {
        return Ok(None);
    }
    let (lock, launch) = match spool::inspect(worker_dir)? {
        SpoolState::Orphaned(lock, launch) => (lock, launch),
        SpoolState::Delivered | SpoolState::Live => return Ok(None),
    };
    let Recovered { reports, names, problems } = recover::recover(&lock.dir, &launch)?;
    for problem in problems {
        warn!(worker = %launch.worker, problem, "some orphaned metric reports of a worker are lost");
    }
    let mut sender = ReportSender::new(launch.topology);
    sender.learn(&launch.worker, &names.into_iter().collect::<Vec<_>>());
    Ok(Some((lock, sender, reports.into())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use stormkeeper_coordination::{
        cluster::store::Store,
        tree::{Tree, memory::MemoryTree},
    };
    use stormkeeper_metric_shipping::{
        ingest_client::IngestClient,
        spool::{Launch, Spool},
        test_support::{TestLeader, emitted, spooled},
    };
    use stormkeeper_metrics::{Leaf, MetricId};
    use stormkeeper_model::Timestamp;

    fn worker(name: &str) -> WorkerId {
        name.parse().expect("valid")
    }

    fn launch(name: &str) -> Launch {
        let topology = "t-1-100".parse().expect("valid");
        Launch { topology, worker: worker(name), started: Timestamp::from_millis(1) }
    }

    /// Writes the spool of a worker that emitted ten tuples, in two reports.
    fn write_spool(local_dir: &Path, name: &str) -> PathBuf {
        let dir = worker_dir::path(local_dir, &worker(name));
        fs::create_dir_all(&dir).expect("made");
        let launch = launch(name);
        let lock = spool::lock(&dir, &launch).expect("taken");
        let mut reports = Spool::create(&lock.dir).expect("made");
        let (id, name) = emitted();
        reports.add_name(id, &name).expect("written");
        for number in [1, 2] {
            reports.write(&spooled(&launch, number), &[(id, 5 * number)].into()).expect("written");
        }
        dir
    }

    #[tokio::test]
    async fn orphaned_reports_are_ingested_once_and_marked_delivered_when_committed() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree: Arc<dyn Tree> = MemoryTree::new().connect();
        let leader = TestLeader::start(Arc::clone(&tree)).await;
        leader.has().nothing_is_committed = true;
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let transport = Arc::new(IngestClient::new(Store::new(tree)).expect("made"));
        let names = ["w1", "w2"];
        let dirs = names.map(|name| write_spool(dir.path(), name));
        let mut sender = OrphanReportSender::new(dir.path().to_owned(), transport, clock.clone());
        sender.scan().await;
        assert_eq!(sender.pending.len(), 2);
        for name in names {
            assert!(!sender.send(&worker(name)).await, "accepted and not committed");
        }
        assert_eq!(leader.has().totals()[0], 20);
        sender.scan().await;
        assert_eq!(sender.pending.len(), 2, "a scan does not load pending workers again");
        leader.has().nothing_is_committed = false;
        clock.advance(RESEND_PERIOD);
        for (name, dir) in names.iter().zip(&dirs) {
            assert!(spool::may_be_orphaned(dir), "marked as delivered too early");
            assert!(sender.send(&worker(name)).await, "resent and found committed");
            sender.pending.remove(&worker(name));
            assert!(!spool::may_be_orphaned(dir));
        }
        sender.scan().await;
        assert_eq!((sender.pending.len(), leader.has().totals()[0]), (0, 20));
    }

    #[test]
    fn unreadable_spool_of_one_worker_does_not_hide_the_others() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "b", "c", "d"] {
            write_spool(dir.path(), name);
        }
        for name in ["a", "c"] {
            let launch = worker_dir::path(dir.path(), &worker(name)).join("metrics/launch");
            fs::write(launch, b"garbage").expect("written");
        }
        let found = |known: &[WorkerId], room| {
            let found = find(dir.path(), known, room).expect("readable");
            let mut found: Vec<String> = found.iter().map(|(worker, ..)| worker.to_string()).collect();
            found.sort();
            found
        };
        assert_eq!(found(&[], 9), ["b", "d"]);
        assert_eq!(found(&[worker("b")], 9), ["d"]);
        assert_eq!(found(&[], 1).len(), 1);
        assert_eq!(find(&dir.path().join("nothing"), &[], 9).expect("no workers").len(), 0);
    }

    #[test]
    fn reports_wait_while_the_queue_is_full_and_unnamed_metrics_are_discarded() {
        let launch = launch("w");
        let mut odd = spooled(&launch, 2);
        odd.report.leaves.push(Leaf { id: MetricId(7), ..odd.report.leaves[0].clone() });
        let mut unqueued: VecDeque<SpooledReport> = [spooled(&launch, 1), odd, spooled(&launch, 3)].into();
        let mut queued = Vec::new();
        let mut add = |spooled: SpooledReport| {
            if spooled.report.leaves.iter().any(|leaf| leaf.id == MetricId(7)) {
                return Enqueued::UnknownNames(vec![MetricId(7)]);
            }
            if queued.len() == 2 {
                return Enqueued::Full;
            }
            queued.push(spooled);
            Enqueued::Queued
        };
        enqueue(&mut add, &mut unqueued);
        assert_eq!(unqueued, [spooled(&launch, 3)]);
        assert_eq!(queued, [spooled(&launch, 1), spooled(&launch, 2)], "without the leaf that has no name");
    }
}
