//! Topology master: receives the metric reports of all workers and sends them to the leader.
//!
//! The master is the worker that runs the task with the lowest number. Only the assignment
//! determines the master, and correctness does not depend on there being only one: a report is
//! stored once, whichever master sends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::{
    messages::{Duplex, MasterReply, WorkerMessage},
    until,
};
use stormkeeper_metric_shipping::{
    ingest_client::IngestTransport,
    sender::{Enqueued, FlushOutcome, ReportSender, flush},
};
use stormkeeper_metrics::{MetricId, MetricName, registry::METRICS_MAX};
use stormkeeper_model::{
    Slot, TopologyId, WorkerId,
    assignment::Assignment,
    backoff::{Backoff, Delays},
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{
    outage::Outage,
    tasks::{OnExit, Tasks},
};

/// Time that a minute's reports wait for the reports of late workers: a little longer than
/// reporting takes, so that a whole minute is mostly one metric batch.
const LATE_REPORT_WAIT: Duration = Duration::from_secs(3);

/// Time without a reply about commits after which stored reports are sent again, to learn whether
/// they are committed.
const COMMIT_RECHECK: Duration = Duration::from_secs(90);

/// Delays between attempts while the leader accepts no batch.
const RETRY: Delays = Delays::between(Duration::from_millis(500), Duration::from_secs(15));

/// Limit of messages queued for the master. A worker sends one report and waits, so the limit
/// matters only when a thousand workers report at once; the rest wait in their connections.
const QUEUED_MAX: usize = 64;

/// Limit of connections: more than the workers of any topology.
const CONNECTIONS_MAX: usize = 4096;

/// Maximum number of names of metrics that are learned for each worker of the topology, and of new ones on
/// one connection: twice as many as a worker has, since launches may differ.
const NAMES_MAX: usize = 2 * METRICS_MAX;

/// Returns the slot of the worker that is the topology master.
pub(crate) fn of(assignment: &Assignment) -> Option<&Slot> {
    let workers = assignment.workers.iter();
    let lowest = workers.filter_map(|(slot, worker)| Some((worker.tasks.iter().next()?, slot)));
    lowest.min().map(|(_, slot)| slot)
}

/// Handle of a master in this process. Clones share the master.
#[derive(Debug, Clone)]
pub(crate) struct MasterHandle {
    connect: mpsc::Sender<Duplex<MasterReply, WorkerMessage>>,
}

impl MasterHandle {
    /// Connects `end` to the master. Returns false if the master has ended, or if too many
    /// connections wait.
    pub(crate) fn connect(&self, end: Duplex<MasterReply, WorkerMessage>) -> bool {
        self.connect.try_send(end).is_ok()
    }
}

/// Message with the number of its connection.
type TaggedMessage = (u64, WorkerMessage);

/// Sends the metric reports of a topology to the leader.
#[derive(Debug)]
pub(crate) struct TopologyMaster {
    topology: TopologyId,
    sender: ReportSender,
    transport: Arc<dyn IngestTransport>,
    clock: Clock,
    n_workers: watch::Receiver<usize>,
    new_connections: mpsc::Receiver<Duplex<MasterReply, WorkerMessage>>,
    messages: (mpsc::Sender<TaggedMessage>, mpsc::Receiver<TaggedMessage>),
    connections: BTreeMap<u64, WorkerConnection>,
    next_connection: u64,
    reported: BTreeSet<WorkerId>,
    due: Option<Instant>,
    backoff: Backoff,
    outage: Outage,
    tasks: Tasks,
}

#[derive(Debug)]
struct WorkerConnection {
    send: mpsc::Sender<MasterReply>,
    worker: Option<WorkerId>,
    // New names of metrics that it has sent.
    n_names: usize,
}

impl TopologyMaster {
    /// Creates the master of a topology whose assignment has `n_workers`, and a handle of it.
    pub(crate) fn new(
        topology: TopologyId,
        transport: Arc<dyn IngestTransport>,
        clock: Clock,
        n_workers: watch::Receiver<usize>,
        tasks: Tasks,
    ) -> (Self, MasterHandle) {
        let (connect, new_connections) = mpsc::channel(QUEUED_MAX);
        let master = Self {
            sender: ReportSender::new(topology.clone()),
            topology,
            transport,
            clock,
            n_workers,
            new_connections,
            messages: mpsc::channel(QUEUED_MAX),
            connections: BTreeMap::new(),
            next_connection: 0,
            reported: BTreeSet::new(),
            due: None,
            backoff: RETRY.backoff(),
            outage: Outage::default(),
            tasks,
        };
        (master, MasterHandle { connect })
    }

    /// Runs until it is dropped. Reports that it has not sent to the leader are still in the
    /// workers' spools, and the workers send them to the next master.
    pub(crate) async fn run(mut self) {
        info!(topology = %self.topology, "this worker is the topology master for metrics");
        let mut recheck = tokio::time::interval(COMMIT_RECHECK / 3);
        recheck.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_check: Option<Monotonic> = None;
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                // Cancel-safe: no message is taken unless the call returns; the rest only waits.
                Some(end) = self.new_connections.recv() => self.accept(end),
                () = until(due) => self.flush().await,
                Some((connection, report)) = self.messages.1.recv() => self.handle_message(connection, report),
                _ = recheck.tick() => {
                    if let Some(since) = last_check.replace(self.clock.monotonic()) {
                        self.sender.resend_stored(since);
                        if self.due.is_none() && !self.sender.is_empty() {
                            self.due = Some(Instant::now());
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self, end: Duplex<MasterReply, WorkerMessage>) {
        self.connections.retain(|_, connection| !connection.send.is_closed());
        if self.connections.len() >= CONNECTIONS_MAX {
            warn!(topology = %self.topology, limit = CONNECTIONS_MAX, "too many workers report metrics at once; closing a connection, its worker retries");
            return;
        }
        let number = self.next_connection;
        self.next_connection += 1;
        self.connections.insert(number, WorkerConnection { send: end.send, worker: None, n_names: 0 });
        let (reports, mut receive) = (self.messages.0.clone(), end.receive);
        self.tasks.start("metric reports of a worker", OnExit::Ignore, async move {
            while let Some(report) = receive.recv().await {
                if reports.send((number, report)).await.is_err() {
                    return;
                }
            }
        });
    }

    fn handle_message(&mut self, connection: u64, report: WorkerMessage) {
        match report {
            WorkerMessage::Names { worker, names } => self.learn(connection, &worker, &names),
            WorkerMessage::Report(spooled) => {
                if spooled.report.topology != self.topology {
                    self.connections.remove(&connection);
                    return;
                }
                let (worker, last) = (spooled.report.worker.clone(), spooled.report.number);
                let reply = match self.sender.add(spooled) {
                    Enqueued::Queued => MasterReply::Queued(last),
                    Enqueued::Committed => MasterReply::Committed(last),
                    Enqueued::UnknownNames(ids) => MasterReply::Nameless(ids),
                    Enqueued::Full => MasterReply::Full,
                };
                if reply == MasterReply::Queued(last) {
                    self.schedule_flush(&worker);
                }
                let Some(connection) = self.connections.get_mut(&connection) else { return };
                connection.worker = Some(worker);
                // If the worker's queue is full, the worker receives the reply when it sends the
                // report again.
                let _full = connection.send.try_send(reply);
            }
        }
    }

    /// Learns names, and closes the connection of a worker that has more than a worker can have.
    fn learn(&mut self, connection: u64, worker: &WorkerId, names: &[(MetricId, MetricName)]) {
        let n_workers = (*self.n_workers.borrow()).max(1);
        let n_new = self.sender.learn_within(n_workers * NAMES_MAX, worker, names);
        let Some(of) = self.connections.get_mut(&connection) else { return };
        of.n_names += n_new;
        if of.n_names > NAMES_MAX {
            warn!(%worker, max = NAMES_MAX, "closed the connection of a worker that sent more names of metrics than one has");
            self.connections.remove(&connection);
        }
    }

    /// Schedules the next flush: now if all workers have reported, else soon after the first report.
    fn schedule_flush(&mut self, worker: &WorkerId) {
        self.reported.insert(worker.clone());
        let now = Instant::now();
        if self.reported.len() >= *self.n_workers.borrow() {
            self.due = Some(now);
        } else if self.due.is_none() {
            self.due = Some(now + LATE_REPORT_WAIT);
        }
    }

    /// Sends all queued reports to the leader; schedules a retry if some remain.
    async fn flush(&mut self) {
        self.reported.clear();
        self.due = None;
        match flush(&mut self.sender, &*self.transport, &self.clock).await {
            FlushOutcome::Complete => {
                self.backoff.reset();
                if let Some(lasted) = self.outage.ends() {
                    info!(topology = %self.topology, ?lasted, "metric reports are committed again");
                }
            }
            FlushOutcome::Incomplete(reason) => {
                let delay = self.backoff.next_delay();
                match self.outage.begins() {
                    true => {
                        info!(topology = %self.topology, reason, "metric reports are not committed yet; trying again");
                    }
                    false => {
                        debug!(topology = %self.topology, reason, ?delay, "metric reports are not committed yet")
                    }
                }
                self.due = Some(Instant::now() + delay);
            }
        }
        for (worker, last) in self.sender.take_committed() {
            let of_worker = self.connections.values().filter(|one| one.worker.as_ref() == Some(&worker));
            for connection in of_worker {
                // If the queue is full, the worker learns of the commit from the reply to its
                // next report.
                let _full = connection.send.try_send(MasterReply::Committed(last));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::messages, *};
    use stormkeeper_coordination::{
        cluster::store::Store,
        tree::{Tree, memory::MemoryTree},
    };
    use stormkeeper_metric_shipping::{
        ingest_client::IngestClient,
        spool::Launch,
        test_support::{TestLeader, emitted, spooled},
    };
    use stormkeeper_model::{Port, TaskId, Timestamp, assignment::AssignedWorker};
    use stormkeeper_runtime::test_support::wait_until;

    #[tokio::test]
    async fn worker_with_more_names_than_one_has_is_disconnected_and_fills_no_memory() {
        let transport = Arc::new(IngestClient::new(Store::new(MemoryTree::new().connect())).expect("made"));
        let (_workers, n_workers) = watch::channel(2);
        let tasks = Tasks::default();
        let topology = "t-1-100".parse().expect("valid");
        let (mut master, handle) =
            TopologyMaster::new(topology, transport, Clock::new(), n_workers, tasks.child());
        let worker: WorkerId = "w1".parse().expect("valid");
        let text = emitted().1.to_string();
        let name = |n: u64| (MetricId(n), text.replace("Emitted", &format!("M{n}")).parse().expect("a name"));
        for round in 0..3 {
            let (_end_of_worker, end) = messages::pair();
            master.accept(end);
            let connection = master.next_connection - 1;
            let n_names = 3 * NAMES_MAX as u64 / 2;
            let names: Vec<_> = (round * n_names..(round + 1) * n_names).map(name).collect();
            for names in names.chunks(10_000) {
                master.learn(connection, &worker, names);
            }
            assert!(master.sender.n_names() <= 2 * NAMES_MAX, "{}", master.sender.n_names());
            assert_eq!(
                master.connections.contains_key(&connection),
                round > 0,
                "names that are ignored are not new"
            );
        }
        drop(handle);
    }

    #[tokio::test]
    async fn master_flushes_without_a_silent_worker_and_reports_commits() {
        let tree: Arc<dyn Tree> = MemoryTree::new().connect();
        let leader = TestLeader::start(Arc::clone(&tree)).await;
        leader.has().is_busy = true;
        let launch = |topology: &str| Launch {
            topology: topology.parse().expect("valid"),
            worker: "w1".parse().expect("valid"),
            started: Timestamp::from_millis(1),
        };
        let (own, foreign) = (launch("t-1-100"), launch("other-1-1"));
        let transport = Arc::new(IngestClient::new(Store::new(tree)).expect("made"));
        // The second worker never reports.
        let (_workers, n_workers) = watch::channel(2);
        let tasks = Tasks::default();
        let (master, handle) =
            TopologyMaster::new(own.topology.clone(), transport, Clock::new(), n_workers, tasks.child());
        tasks.start("master", OnExit::Ignore, master.run());

        let (mut foreign_worker, end) = messages::pair();
        assert!(handle.connect(end));
        foreign_worker
            .send
            .send(WorkerMessage::Report(spooled(&foreign, 1)))
            .await
            .expect("the connection is open");
        assert_eq!(foreign_worker.receive.recv().await, None, "its connection is closed");

        let (mut worker, end) = messages::pair();
        assert!(handle.connect(end));
        worker.send.send(WorkerMessage::Report(spooled(&own, 1))).await.expect("the connection is open");
        assert_eq!(worker.receive.recv().await, Some(MasterReply::Nameless(vec![emitted().0])));
        let names = WorkerMessage::Names { worker: own.worker.clone(), names: vec![emitted()] };
        worker.send.send(names).await.expect("the connection is open");
        worker.send.send(WorkerMessage::Report(spooled(&own, 1))).await.expect("the connection is open");
        assert_eq!(worker.receive.recv().await, Some(MasterReply::Queued(1)));
        wait_until("the busy leader rejected a request", 10 * LATE_REPORT_WAIT, || async {
            let n = leader.has().n_deferred;
            if n > 0 { Ok(()) } else { Err(n.to_string()) }
        })
        .await;
        leader.has().is_busy = false;
        // The retry comes soon, before the recheck of uncommitted reports.
        let committed =
            tokio::time::timeout(COMMIT_RECHECK / 6, worker.receive.recv()).await.expect("in time");
        assert_eq!(committed, Some(MasterReply::Committed(1)));
        assert_eq!(leader.has().totals()[0], 5);
    }

    #[test]
    fn worker_with_the_lowest_task_is_the_master() {
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
