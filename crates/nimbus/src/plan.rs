//! Result of a decision: actions with reasons, and findings that need an operator.
//!
//! An action is one transaction, except for the deletion of a killed topology's records,
//! which may be too many for one. It names every version on which it was decided, so that
//! applying it leaves no choice: it takes effect as decided or not at all.

mod problem;
mod text;

use std::time::Duration;

pub use problem::{ClusterProblem, Finding};

use crate::liveness::LossReason;
use stormkeeper_coordination::{
    cluster::{
        event::{EVENT_BYTES_MAX, EventNumber},
        layout,
        record::{self, Stored, SupervisorAssignments, TasksRecord, TopologyRecord},
    },
    tree::{CreateMode, MAX_MULTI_BYTES, MAX_NODE_BYTES, Op, TreePath, Version},
};
use stormkeeper_model::{
    BlobKey, SupervisorId, TopologyId,
    assignment::Assignment,
    event::{EventKind, Move},
};

/// All actions to apply now, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Writes to make.
    pub actions: Vec<Action>,
    /// Problems that need an operator.
    pub findings: Vec<Finding>,
    /// Time until the next deadline or timeout, if there is one.
    pub next: Option<Duration>,
}

impl Plan {
    /// The records that its actions write or delete.
    pub fn records(&self) -> Vec<TreePath> {
        self.actions.iter().flat_map(|action| action.effect.records()).collect()
    }
}

/// One write with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// The write.
    pub effect: Effect,
    /// The reason, for logs and events.
    pub reason: Reason,
    /// Number of tasks that this action moves away from lost workers.
    pub n_moved: usize,
    /// Tasks that this action assigns to another slot.
    pub moves: Vec<Move>,
}

/// A write, as records instead of operations.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Writes the assignment of a topology and the affected supervisor assignments.
    Place {
        /// The topology.
        id: TopologyId,
        /// The version of its record, which holds the number of workers.
        topology_record: Version,
        /// The version of its task table: an older table would contain removed tasks.
        tasks: Version,
        /// The present version of its assignment; `None` if it has none.
        before: Option<Version>,
        /// Its new assignment.
        assignment: Assignment,
        /// The supervisor assignments that change with it.
        supervisor_assignments: Vec<SupervisorAssignmentsChange>,
    },
    /// Writes all changes of a due rebalance.
    Rebalance {
        /// The topology.
        id: TopologyId,
        /// Its new record, with the version of the present one.
        topology_record: Box<Stored<TopologyRecord>>,
        /// Its new task table, with the version of the present one.
        tasks: Stored<TasksRecord>,
        /// The present version of its assignment; `None` if it has none.
        before: Option<Version>,
        /// Its new assignment.
        assignment: Assignment,
        /// The supervisor assignments that change with it.
        supervisor_assignments: Vec<SupervisorAssignmentsChange>,
    },
    /// Begins to move a topology away from drained hosts, or to grow it back: its spouts stop.
    BeginMove {
        /// The topology.
        id: TopologyId,
        /// Its new record, with the version of the present one.
        topology_record: Box<Stored<TopologyRecord>>,
    },
    /// Begins or ends a step of an update that moves no worker.
    StepUpdate {
        /// The topology.
        id: TopologyId,
        /// Its new record, with the version of the present one.
        topology_record: Box<Stored<TopologyRecord>>,
    },
    /// Replaces workers of a topology that is updated: they get a new start where they are.
    ReplaceWorkers {
        /// The topology.
        id: TopologyId,
        /// Its new record, with the version of the present one.
        topology_record: Box<Stored<TopologyRecord>>,
        /// The version of its task table.
        tasks: Version,
        /// The present version of its assignment.
        before: Version,
        /// Its new assignment.
        assignment: Assignment,
        /// The supervisor assignments that change with it.
        supervisor_assignments: Vec<SupervisorAssignmentsChange>,
    },
    /// Ends log levels whose time is over.
    EndLogLevels {
        /// The topology.
        id: TopologyId,
        /// Its new record, with the version of the present one.
        topology_record: Box<Stored<TopologyRecord>>,
    },
    /// Ends samples of tuples whose time is over.
    EndSamples {
        /// The topology.
        id: TopologyId,
        /// Its new record, with the version of the present one.
        topology_record: Box<Stored<TopologyRecord>>,
    },
    /// Deletes the assignment of a killed topology.
    Unassign {
        /// The topology.
        id: TopologyId,
        /// The version of its assignment; `None` if it cannot be read.
        version: Option<Version>,
        /// The supervisor assignments that change with it.
        supervisor_assignments: Vec<SupervisorAssignmentsChange>,
    },
    /// Deletes all records of a killed topology except its topology record.
    RemoveRecords {
        /// The topology.
        id: TopologyId,
    },
    /// Deletes the topology record of a killed topology.
    RemoveTopologyRecord {
        /// The topology.
        id: TopologyId,
        /// The version of its record.
        version: Version,
    },
    /// Corrects supervisor assignments that differ from the assignments of the topologies.
    CorrectSupervisorAssignments(SupervisorAssignmentsChange),
    /// Creates the missing parents of a topology's heartbeats and errors.
    RestoreParents {
        /// The topology.
        id: TopologyId,
        /// True if the parent of its heartbeats is missing.
        heartbeats: bool,
        /// True if the parents of its errors are missing.
        errors: bool,
    },
    /// Deletes the znode of a blob that no nimbus has and no topology uses.
    DeleteBlobNode {
        /// The blob.
        key: BlobKey,
    },
    /// Deletes the oldest events over the limit.
    DeleteEvents {
        /// Numbers of the events.
        numbers: Vec<EventNumber>,
    },
    /// Deletes announced stops of supervisors that are absent and have no tasks.
    DeleteStops {
        /// The supervisors.
        supervisors: Vec<SupervisorId>,
    },
}

/// A change of one record of supervisor assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorAssignmentsChange {
    /// The supervisor.
    pub supervisor: SupervisorId,
    /// The present content of the znode.
    pub before: RecordState,
    /// The new content; `None` deletes the znode.
    pub after: Option<SupervisorAssignments>,
}

/// Present content of a znode with supervisor assignments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// The znode does not exist.
    Absent,
    /// A record with this version.
    At(Version),
    /// No valid record, so that its version is not known. Only the leader writes here, so
    /// overwriting it destroys nobody's work.
    Unreadable,
}

/// Reason of an action.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Tasks had no slot.
    Unplaced {
        /// Number of these tasks.
        n_tasks: usize,
    },
    /// The assignment was deleted by hand.
    AssignmentMissing,
    /// Workers are lost.
    WorkerLost {
        /// Slot of the first one.
        slot: stormkeeper_model::Slot,
        /// Reason why the first one is lost.
        loss: LossReason,
        /// Number of lost workers.
        n_workers: usize,
    },
    /// The assignment contained tasks that are not in the task table.
    StaleTasks,
    /// The deadline of a rebalance has passed.
    RebalanceDue,
    /// The workers of a topology have processed all of its tuples, before the deadline of a change.
    Drained,
    /// An update goes on.
    Update {
        /// The step, for people.
        text: String,
        /// Kind of its event.
        event: EventKind,
    },
    /// The time of log levels is over.
    LogLevelsDue,
    /// The time of samples of tuples is over.
    SamplesDue,
    /// The deadline of a kill has passed.
    KillDue,
    /// The record of a topology was deleted by hand and not restored.
    NoRecord,
    /// Workers of a killed topology have stopped.
    HeartbeatsGone,
    /// Workers of a killed topology did not stop in time.
    HeartbeatsOverdue,
    /// Only the topology record of a killed topology still exists.
    RecordsGone,
    /// Supervisor assignments differed from the assignments of the topologies.
    SupervisorAssignmentsDiffer,
    /// A live topology has no parent znode for its heartbeats or errors.
    ParentsMissing,
    /// No topology uses a blob, and no nimbus has it.
    BlobUnused,
    /// Hosts that run workers of the topology are being drained.
    HostsDrained {
        /// Names of these hosts.
        hosts: Vec<String>,
    },
    /// Supervisors announce another name of their hosts than their workers were placed with.
    HostsRenamed {
        /// The names before and now.
        hosts: Vec<String>,
    },
    /// A topology has fewer workers than it requests, and slots are free for more.
    GrowsBack {
        /// Number of its workers.
        from: usize,
        /// Number of workers that it gets; the same if the slots are gone again.
        to: usize,
    },
    /// There are more events than the limit.
    EventsOverLimit,
    /// Supervisors that announced a stop did not come back, and no task waits for them.
    StopsIdle,
}

impl Reason {
    /// Returns whether the reason depends on the absence of a record, or on a record whose
    /// version the action does not check. A view may be missing the effect of a lost event, so
    /// such a reason is valid only for a view that was just read.
    pub fn needs_fresh_view(&self) -> bool {
        match self {
            Self::WorkerLost { .. }
            | Self::AssignmentMissing
            | Self::NoRecord
            | Self::HeartbeatsGone
            | Self::RecordsGone
            | Self::SupervisorAssignmentsDiffer
            | Self::BlobUnused
            | Self::StopsIdle
            | Self::HostsDrained { .. }
            | Self::GrowsBack { .. } => true,
            Self::Unplaced { .. }
            | Self::StaleTasks
            | Self::RebalanceDue
            | Self::KillDue
            | Self::LogLevelsDue
            | Self::SamplesDue
            | Self::Drained
            | Self::Update { .. }
            | Self::HeartbeatsOverdue
            | Self::ParentsMissing
            | Self::HostsRenamed { .. }
            | Self::EventsOverLimit => false,
        }
    }
}

impl Effect {
    /// The topology concerned, if it is one.
    pub fn topology(&self) -> Option<&TopologyId> {
        match self {
            Self::Place { id, .. }
            | Self::Rebalance { id, .. }
            | Self::BeginMove { id, .. }
            | Self::EndLogLevels { id, .. }
            | Self::EndSamples { id, .. }
            | Self::StepUpdate { id, .. }
            | Self::ReplaceWorkers { id, .. }
            | Self::Unassign { id, .. }
            | Self::RemoveRecords { id }
            | Self::RemoveTopologyRecord { id, .. }
            | Self::RestoreParents { id, .. } => Some(id),
            Self::CorrectSupervisorAssignments(_)
            | Self::DeleteBlobNode { .. }
            | Self::DeleteEvents { .. }
            | Self::DeleteStops { .. } => None,
        }
    }

    /// Its changes of supervisor assignments.
    pub fn supervisor_assignments(&self) -> &[SupervisorAssignmentsChange] {
        match self {
            Self::Place { supervisor_assignments, .. }
            | Self::Rebalance { supervisor_assignments, .. }
            | Self::ReplaceWorkers { supervisor_assignments, .. }
            | Self::Unassign { supervisor_assignments, .. } => supervisor_assignments,
            Self::CorrectSupervisorAssignments(change) => std::slice::from_ref(change),
            Self::BeginMove { .. }
            | Self::EndLogLevels { .. }
            | Self::EndSamples { .. }
            | Self::StepUpdate { .. }
            | Self::RemoveRecords { .. }
            | Self::RemoveTopologyRecord { .. }
            | Self::RestoreParents { .. }
            | Self::DeleteBlobNode { .. }
            | Self::DeleteEvents { .. }
            | Self::DeleteStops { .. } => &[],
        }
    }

    /// The records that it writes or deletes.
    pub fn records(&self) -> Vec<TreePath> {
        match (self.ops(), self.topology()) {
            (Some(ops), _) => ops.iter().map(|op| op.path().clone()).collect(),
            (None, Some(id)) => layout::records_of(id),
            (None, None) => Vec::new(),
        }
    }

    /// Its transaction; `None` for [`Effect::RemoveRecords`], which must first list the records
    /// to delete.
    pub fn ops(&self) -> Option<Vec<Op>> {
        let mut ops = match self {
            Self::Place { id, topology_record, tasks, before, assignment, .. } => vec![
                check(layout::storm(id), *topology_record),
                check(layout::tasks(id), *tasks),
                assign(id, *before, assignment),
            ],
            Self::Rebalance { id, topology_record, tasks, before, assignment, .. } => {
                let table = record::encode(&tasks.value);
                vec![
                    set(layout::storm(id), record::encode(&topology_record.value), topology_record.version),
                    set(layout::tasks(id), table, tasks.version),
                    assign(id, *before, assignment),
                ]
            }
            Self::ReplaceWorkers { id, topology_record, tasks, before, assignment, .. } => vec![
                set(layout::storm(id), record::encode(&topology_record.value), topology_record.version),
                check(layout::tasks(id), *tasks),
                assign(id, Some(*before), assignment),
            ],
            Self::BeginMove { id, topology_record }
            | Self::EndLogLevels { id, topology_record }
            | Self::EndSamples { id, topology_record }
            | Self::StepUpdate { id, topology_record } => {
                vec![set(layout::storm(id), record::encode(&topology_record.value), topology_record.version)]
            }
            Self::Unassign { id, version, .. } => {
                vec![Op::Delete { path: layout::assignment(id), version: *version }]
            }
            Self::RemoveRecords { .. } => return None,
            Self::RemoveTopologyRecord { id, version } => {
                vec![Op::Delete { path: layout::storm(id), version: Some(*version) }]
            }
            Self::CorrectSupervisorAssignments(_) => Vec::new(),
            Self::RestoreParents { id, heartbeats, errors } => {
                let mut paths = Vec::new();
                if *heartbeats {
                    paths.push(layout::taskbeats(id));
                }
                if *errors {
                    paths.extend([layout::taskerrors(id), layout::last_errors(id)]);
                }
                paths.into_iter().map(|path| create(path, Vec::new())).collect()
            }
            Self::DeleteBlobNode { key } => vec![Op::Delete { path: layout::blob(key), version: None }],
            Self::DeleteEvents { numbers } => numbers
                .iter()
                .map(|number| Op::Delete { path: layout::event(*number), version: None })
                .collect(),
            Self::DeleteStops { supervisors } => supervisors
                .iter()
                .map(|id| Op::Delete { path: layout::stopped_supervisor(id), version: None })
                .collect(),
        };
        ops.extend(self.supervisor_assignments().iter().map(SupervisorAssignmentsChange::op));
        Some(ops)
    }
}

impl SupervisorAssignmentsChange {
    fn op(&self) -> Op {
        let path = layout::supervisor_assignments(&self.supervisor);
        match (&self.after, self.before) {
            (Some(supervisor_assignments), RecordState::Absent) => {
                create(path, record::encode(supervisor_assignments))
            }
            (Some(supervisor_assignments), RecordState::At(version)) => {
                set(path, record::encode(supervisor_assignments), version)
            }
            (Some(supervisor_assignments), RecordState::Unreadable) => {
                Op::Set { path, data: record::encode(supervisor_assignments), version: None }
            }
            (None, RecordState::At(version)) => Op::Delete { path, version: Some(version) },
            (None, RecordState::Absent | RecordState::Unreadable) => Op::Delete { path, version: None },
        }
    }
}

fn assign(id: &TopologyId, before: Option<Version>, assignment: &Assignment) -> Op {
    let (path, data) = (layout::assignment(id), record::encode_assignment(assignment));
    match before {
        Some(version) => set(path, data, version),
        None => create(path, data),
    }
}

fn check(path: TreePath, version: Version) -> Op {
    Op::Check { path, version: Some(version) }
}

fn create(path: TreePath, data: Vec<u8>) -> Op {
    Op::Create { path, data, mode: CreateMode::Persistent }
}

fn set(path: TreePath, data: Vec<u8>, version: Version) -> Op {
    Op::Set { path, data, version: Some(version) }
}

/// Bytes reserved for the check of the term with which every fenced write begins, and for the
/// event with which it ends.
const FENCE_BYTES: usize = 256 + EVENT_BYTES_MAX;

/// Checks that `ops` can be sent as one fenced transaction.
///
/// # Errors
/// [`ClusterProblem::TooLarge`] with the largest record and the exceeded limit.
pub fn check_size(ops: &[Op]) -> Result<(), ClusterProblem> {
    let Some(largest) = ops.iter().max_by_key(|op| op.n_bytes()) else { return Ok(()) };
    let data_bytes = match largest {
        Op::Create { data, .. } | Op::Set { data, .. } => data.len(),
        Op::Check { .. } | Op::Delete { .. } => 0,
    };
    let too_large =
        |bytes, limit| Err(ClusterProblem::TooLarge { path: largest.path().clone(), bytes, limit });
    if data_bytes > MAX_NODE_BYTES {
        return too_large(data_bytes, MAX_NODE_BYTES);
    }
    let bytes: usize = ops.iter().map(Op::n_bytes).sum::<usize>() + FENCE_BYTES;
    if bytes > MAX_MULTI_BYTES {
        return too_large(bytes, MAX_MULTI_BYTES);
    }
    Ok(())
}
