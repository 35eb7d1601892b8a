//! A cluster in the expected state, to be continued by hand.

use std::sync::Arc;

use crate::{
    environment::Environment,
    invariants::{check_converged, check_no_residue},
    journal::Party,
    model::{MachineEvent, Process},
};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, SupervisorAssignments, TasksRecord, TopologyRecord},
    },
    tree::{CreateMode, Op, Tree as _, TreePath, Version, memory::MemorySession},
};
use stormkeeper_model::{
    BlobKey, Port, Slot, TaskId, Timestamp, TopologyId, WorkerId,
    assignment::{AssignedWorker, Assignment},
    status::TopologyStatus,
    task_set::TaskSet,
    topology::TaskTable,
};
use stormkeeper_supervisor::process::ExitReport;

/// Placement time of both workers.
pub(super) const START: Timestamp = Timestamp::from_millis(5);

pub(super) fn id() -> TopologyId {
    "wc-1-100".parse().expect("valid id")
}

/// The slot of worker `n`, 0 or 1.
pub(super) fn slot(n: u16) -> Slot {
    Slot { supervisor: "s1".parse().expect("valid id"), port: Port(6700 + n) }
}

/// The tasks of worker `n`: 1 and 2, or 3 and 4.
pub(super) fn tasks_of(n: u16) -> TaskSet {
    let first = u32::from(n) * 2 + 1;
    TaskSet::range(first, first + 1)
}

/// The assignment of these workers: all workers of the topology or a part of them.
pub(super) fn assignment(workers: &[u16]) -> Assignment {
    let worker = |n: u16| AssignedWorker { host: "h".to_owned(), tasks: tasks_of(n), start: START };
    Assignment {
        workers: workers.iter().map(|n| (slot(*n), worker(*n))).collect(),
        unknown_fields: Default::default(),
    }
}

pub(super) fn topology_record(status: TopologyStatus) -> TopologyRecord {
    TopologyRecord {
        status,
        launched: START,
        workers: 2,
        blob: BlobKey::of(b"wc"),
        ..TopologyRecord::sample("wc")
    }
}

pub(super) fn create(path: TreePath, data: Vec<u8>) -> Op {
    Op::Create { path, data, mode: CreateMode::Persistent }
}

pub(super) fn set(path: TreePath, data: Vec<u8>) -> Op {
    Op::Set { path, data, version: None }
}

pub(super) fn delete(path: TreePath) -> Op {
    Op::Delete { path, version: None }
}

/// A history written by hand.
pub(super) struct History {
    pub(super) env: Arc<Environment>,
    /// The session of the leader of term 1.
    pub(super) leader: Arc<MemorySession>,
    /// The processes of the two workers.
    pub(super) workers: Vec<Arc<MemorySession>>,
}

impl History {
    /// A leader, and a topology of four tasks in two workers that run and write heartbeats.
    pub(super) async fn converged() -> Self {
        let env = Environment::new(0);
        let connect = |party: Party| {
            let session = env.server.connect();
            env.journal().register_owner(session.id(), party);
            session
        };
        let leader = connect(Party::Nimbus("nimbus-0".to_owned()));
        let workers = (0..2).map(|n| connect(Party::Worker(format!("w{n}")))).collect();
        let history = Self { env, leader, workers };
        history
            .commit(&history.leader, layout::top_level().into_iter().map(|root| create(root, Vec::new())))
            .await;
        history.commit(&history.leader, [create(layout::term(), Vec::new())]).await;
        history.elect(&history.leader).await;
        let table = TaskTable::number([("work".parse().expect("valid id"), 4)]);
        let assignments = SupervisorAssignments {
            topologies: [(id(), Version::FIRST)].into(),
            unknown_fields: Default::default(),
        };
        history
            .commit_as_leader([
                create(layout::storm(&id()), record::encode(&topology_record(TopologyStatus::Active))),
                create(
                    layout::tasks(&id()),
                    record::encode(&TasksRecord {
                        components: table,
                        requests: Default::default(),
                        unknown_fields: Default::default(),
                    }),
                ),
                create(layout::taskbeats(&id()), Vec::new()),
                create(layout::taskerrors(&id()), Vec::new()),
                create(layout::taskerrors_of_task(&id(), TaskId(1)), Vec::new()),
                create(layout::assignment(&id()), record::encode_assignment(&assignment(&[0, 1]))),
                create(layout::supervisor_assignments(&slot(0).supervisor), record::encode(&assignments)),
            ])
            .await;
        for n in 0..2 {
            history.launch(&format!("w{n}"), n);
            history.start_tasks(&format!("w{n}"), tasks_of(n));
            for task in tasks_of(n).iter() {
                history.heartbeat(n, task).await;
            }
        }
        assert_eq!(history.violation(), None);
        assert_eq!((history.check_converged(), history.check_no_residue()), (Ok(()), Ok(())));
        history
    }

    pub(super) async fn commit(&self, by: &MemorySession, ops: impl IntoIterator<Item = Op>) {
        by.multi(ops.into_iter().collect()).await.expect("it takes effect");
    }

    /// Commits a transaction of the leader of term 1.
    pub(super) async fn commit_as_leader(&self, ops: impl IntoIterator<Item = Op>) {
        let check = Op::Check { path: layout::term(), version: Some(Version(1)) };
        self.commit(&self.leader, [check].into_iter().chain(ops)).await;
    }

    pub(super) async fn elect(&self, nimbus: &MemorySession) {
        let leader = Op::Create { path: layout::leader(), data: Vec::new(), mode: CreateMode::Ephemeral };
        self.commit(nimbus, [set(layout::term(), Vec::new()), leader]).await;
    }

    /// Starts a process in the slot of worker `n`.
    pub(super) fn launch(&self, worker: &str, n: u16) {
        let process = process(worker, n, self.workers[usize::from(n)].id());
        self.record(MachineEvent::Launched(process));
    }

    pub(super) fn start_tasks(&self, worker: &str, tasks: TaskSet) {
        self.record(MachineEvent::ReadTasks { worker: name(worker), tasks });
    }

    pub(super) fn end(&self, worker: &str) {
        self.record(MachineEvent::Ended { worker: name(worker), report: ExitReport::Code(0) });
    }

    pub(super) fn record(&self, event: MachineEvent) {
        self.env.journal().machine(&event);
    }

    /// Writes the heartbeat of a task, from the process of worker `n`.
    pub(super) async fn heartbeat(&self, n: u16, task: TaskId) {
        let (path, mode) = (layout::taskbeat(&id(), task), CreateMode::Ephemeral);
        self.commit(&self.workers[usize::from(n)], [Op::Create { path, data: Vec::new(), mode }]).await;
    }

    /// The name of the violated property, if any.
    pub(super) fn violation(&self) -> Option<&'static str> {
        self.env.journal().violation().map(|violation| violation.invariant)
    }

    pub(super) fn check_converged(&self) -> Result<(), String> {
        self.env.server.look(|tree| check_converged(&id(), self.env.journal().model(), tree))
    }

    pub(super) fn check_no_residue(&self) -> Result<(), String> {
        self.env.server.look(|tree| check_no_residue(self.env.journal().model(), tree))
    }
}

pub(super) fn name(worker: &str) -> WorkerId {
    worker.parse().expect("valid id")
}

pub(super) fn process(worker: &str, n: u16, connection: u64) -> Process {
    Process {
        worker: name(worker),
        topology: id(),
        slot: slot(n),
        start: START,
        connection,
        launched: Default::default(),
        tasks: None,
        is_responsive: true,
        blob: BlobKey::of(b"wc").to_string(),
    }
}
