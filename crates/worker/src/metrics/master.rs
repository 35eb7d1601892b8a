//! The topology master: takes in the reports of all workers and brings them to the leader.
//!
//! It is the worker that runs the task with the lowest number. Nothing tells it so but the
//! assignment, and nothing depends on there being only one: reports are stored once, whoever
//! brings them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{info, warn};

use super::report::{End, Reply, Report};
use stormkeeper_metric_shipping::{
    ingest_client::IngestClient,
    sender::{Enqueued, FlushOutcome, ReportSender, flush},
};
use stormkeeper_model::{
    Slot, TopologyId, WorkerId,
    assignment::Assignment,
    backoff::Backoff,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// How long a minute's reports wait for those of workers that are late: a moment longer than
/// reports take, so that a whole minute is mostly one batch.
const WATERMARK: Duration = Duration::from_secs(3);

/// After so long without news, stored reports are sent again to hear whether they are safe now.
const NEWS_PATIENCE: Duration = Duration::from_secs(90);

/// Between two tries while the leader takes nothing.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Reports that wait for the master. A worker sends one and waits, so these are for the moment at
/// which a thousand workers come at once; more wait in their connections.
const REPORTS: usize = 64;

/// The most conversations: more workers than any topology has.
const CONVERSATIONS_MAX: usize = 4096;

/// The slot of the worker that is topology master.
pub(crate) fn of(assignment: &Assignment) -> Option<&Slot> {
    let workers = assignment.workers.iter();
    let lowest = workers.filter_map(|(slot, worker)| Some((worker.tasks.iter().next()?, slot)));
    lowest.min().map(|(_, slot)| slot)
}

/// The way to a master in this process. Clones lead to the same one.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    come: mpsc::Sender<End<Reply, Report>>,
}

impl Door {
    /// Begins a conversation; gives the end back when there is no master any more, or too many
    /// wait.
    pub(crate) fn enter(&self, end: End<Reply, Report>) -> bool {
        self.come.try_send(end).is_ok()
    }
}

/// What was said in which conversation.
type Said = (u64, Report);

/// Brings the reports of a topology to the leader.
#[derive(Debug)]
pub(crate) struct Master {
    topology: TopologyId,
    delivery: ReportSender,
    client: IngestClient,
    clock: Clock,
    n_workers: watch::Receiver<usize>,
    comers: mpsc::Receiver<End<Reply, Report>>,
    reports: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
    conversations: BTreeMap<u64, Conversation>,
    next_conversation: u64,
    delivered: BTreeSet<WorkerId>,
    due: Option<Instant>,
    backoff: Backoff,
    tasks: Tasks,
}

#[derive(Debug)]
struct Conversation {
    send: mpsc::Sender<Reply>,
    worker: Option<WorkerId>,
}

impl Master {
    /// A master of a topology whose assignment has `n_workers`; it listens at the door.
    pub(crate) fn new(
        topology: TopologyId,
        client: IngestClient,
        clock: Clock,
        n_workers: watch::Receiver<usize>,
        tasks: Tasks,
    ) -> (Self, Door) {
        let (come, comers) = mpsc::channel(REPORTS);
        let master = Self {
            delivery: ReportSender::new(topology.clone()),
            topology,
            client,
            clock,
            n_workers,
            comers,
            reports: mpsc::channel(REPORTS),
            conversations: BTreeMap::new(),
            next_conversation: 0,
            delivered: BTreeSet::new(),
            due: None,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new())
                .expect("the constants are in order and above zero"),
            tasks,
        };
        (master, Door { come })
    }

    /// Runs until it is dropped. What it has not brought to the leader is still on the disks of
    /// the workers, who flush it to the next one.
    pub(crate) async fn run(mut self) {
        info!(topology = %self.topology, "this worker is the topology master of metrics");
        let mut news = tokio::time::interval(NEWS_PATIENCE / 3);
        news.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asked: Option<Monotonic> = None;
        loop {
            let due = self.due;
            tokio::select! {
                // Cancel-safe: nothing is taken unless it is returned; the rest only waits.
                Some(end) = self.comers.recv() => self.welcome(end),
                Some((conversation, report)) = self.reports.1.recv() => self.take(conversation, report),
                () = until(due) => self.flush().await,
                _ = news.tick() => {
                    if let Some(since) = asked.replace(self.clock.monotonic()) {
                        self.delivery.resend_stored(since);
                        if self.due.is_none() && !self.delivery.is_empty() {
                            self.due = Some(Instant::now());
                        }
                    }
                }
            }
        }
    }

    fn welcome(&mut self, end: End<Reply, Report>) {
        self.conversations.retain(|_, conversation| !conversation.send.is_closed());
        if self.conversations.len() >= CONVERSATIONS_MAX {
            warn!(topology = %self.topology, "too many workers report at once; one is sent away");
            return;
        }
        let number = self.next_conversation;
        self.next_conversation += 1;
        self.conversations.insert(number, Conversation { send: end.send, worker: None });
        let (reports, mut heard) = (self.reports.0.clone(), end.heard);
        self.tasks.start("reports of a worker", OnExit::Ignore, async move {
            while let Some(report) = heard.recv().await {
                if reports.send((number, report)).await.is_err() {
                    return;
                }
            }
        });
    }

    fn take(&mut self, conversation: u64, report: Report) {
        match report {
            Report::Names { worker, names } => self.delivery.learn(&worker, &names),
            Report::Spooled(spooled) => {
                if spooled.report.topology != self.topology {
                    self.conversations.remove(&conversation);
                    return;
                }
                let (worker, last) = (spooled.report.worker.clone(), spooled.report.number);
                let reply = match self.delivery.add(spooled) {
                    Enqueued::Queued => Reply::SpoolLock(last),
                    Enqueued::Committed => Reply::Safe(last),
                    Enqueued::UnknownNames(ids) => Reply::Nameless(ids),
                    Enqueued::Full => Reply::Full,
                };
                if reply == Reply::SpoolLock(last) {
                    self.expect(&worker);
                }
                let Some(conversation) = self.conversations.get_mut(&conversation) else { return };
                conversation.worker = Some(worker);
                // A worker that does not listen hears it when it sends the cut again.
                let _deaf = conversation.send.try_send(reply);
            }
        }
    }

    /// Contributions are due when all workers have reported, or soon after the first.
    fn expect(&mut self, worker: &WorkerId) {
        self.delivered.insert(worker.clone());
        let now = Instant::now();
        if self.delivered.len() >= *self.n_workers.borrow() {
            self.due = Some(now);
        } else if self.due.is_none() {
            self.due = Some(now + WATERMARK);
        }
    }

    /// Brings what there is to the leader. What goes wrong is tried again later.
    async fn flush(&mut self) {
        self.delivered.clear();
        self.due = None;
        match flush(&mut self.delivery, &self.client, &self.clock).await {
            FlushOutcome::Complete => self.backoff.reset(),
            FlushOutcome::Incomplete(reason) => {
                let delay = self.backoff.next_delay();
                info!(topology = %self.topology, reason, ?delay, "metrics are not with the leader yet; trying again");
                self.due = Some(Instant::now() + delay);
            }
        }
        for (worker, last) in self.delivery.take_committed() {
            let its = self.conversations.values().filter(|one| one.worker.as_ref() == Some(&worker));
            for conversation in its {
                // One that is not heard is told again by the answer to a repeated cut.
                let _deaf = conversation.send.try_send(Reply::Safe(last));
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::report, *};
    use stormkeeper_coordination::{
        cluster::store::Store,
        tree::{Tree, memory::MemoryTree},
    };
    use stormkeeper_metric_shipping::{
        spool::Launch,
        test_support::{TestLeader, emitted, spooled},
    };
    use stormkeeper_model::{Port, TaskId, Timestamp, assignment::AssignedWorker};
    use stormkeeper_runtime::test_support::wait_until;

    #[tokio::test]
    async fn a_master_does_not_wait_for_ever_and_says_what_is_safe() {
        let tree: Arc<dyn Tree> = MemoryTree::new().connect();
        let leader = TestLeader::start(Arc::clone(&tree)).await;
        leader.has().is_busy = true;
        let launch = |topology: &str| Launch {
            topology: topology.parse().expect("valid"),
            worker: "w1".parse().expect("valid"),
            started: Timestamp::from_millis(1),
        };
        let (own, foreign) = (launch("t-1-100"), launch("other-1-1"));
        let client = IngestClient::new(Store::new(tree)).expect("made");
        // There is another worker, of which nothing is heard.
        let (_workers, n_workers) = watch::channel(2);
        let tasks = Tasks::default();
        let (master, door) =
            Master::new(own.topology.clone(), client, Clock::new(), n_workers, tasks.child());
        tasks.start("master", OnExit::Ignore, master.run());

        let (mut stranger, end) = report::pair();
        assert!(door.enter(end));
        stranger.send.send(Report::Spooled(spooled(&foreign, 1))).await.expect("heard");
        assert_eq!(stranger.heard.recv().await, None, "it is sent away");

        let (mut worker, end) = report::pair();
        assert!(door.enter(end));
        worker.send.send(Report::Spooled(spooled(&own, 1))).await.expect("heard");
        assert_eq!(worker.heard.recv().await, Some(Reply::Nameless(vec![emitted().0])));
        let names = Report::Names { worker: own.worker.clone(), names: vec![emitted()] };
        worker.send.send(names).await.expect("heard");
        worker.send.send(Report::Spooled(spooled(&own, 1))).await.expect("heard");
        assert_eq!(worker.heard.recv().await, Some(Reply::SpoolLock(1)));
        wait_until("the leader was asked in vain", 10 * WATERMARK, || async {
            let n = leader.has().n_deferred;
            if n > 0 { Ok(()) } else { Err(n.to_string()) }
        })
        .await;
        leader.has().is_busy = false;
        // Tried again soon, not when there is no news for a while.
        let safe = tokio::time::timeout(NEWS_PATIENCE / 6, worker.heard.recv()).await.expect("in time");
        assert_eq!(safe, Some(Reply::Safe(1)));
        assert_eq!(leader.has().totals()[0], 5);
    }

    #[test]
    fn the_worker_with_the_lowest_task_is_the_master() {
        let mut assignment = Assignment::default();
        assert_eq!(of(&assignment), None);
        let slot = |port| Slot { supervisor: "s".parse().expect("valid"), port: Port(port) };
        for (port, tasks) in [(6700, vec![4, 9]), (6701, vec![2, 30]), (6702, vec![]), (6703, vec![3])] {
            let tasks = tasks.into_iter().map(TaskId).collect();
            let worker = AssignedWorker { host: "h".to_owned(), tasks, start: Timestamp::from_millis(1) };
            assignment.workers.insert(slot(port), worker);
        }
        assert_eq!(of(&assignment), Some(&slot(6701)));
    }
}
