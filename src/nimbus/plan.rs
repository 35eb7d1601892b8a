//! What a decision leads to: actions with reasons, and findings that need a person.
//!
//! An action is one transaction, except for the deletion of a killed topology's records,
//! which may be too many for one. It names every version it builds on, so that no choice is
//! left when it is carried out: it happens as decided or not at all.

use std::{fmt, time::Duration};

use crate::{
    cluster::{
        event::{EVENT_BYTES_MAX, EventNumber},
        layout,
        record::{self, Orders, Stored, Storm, Tasks},
    },
    model::{BlobKey, SupervisorId, TopologyId, assignment::Assignment, event::Move, topology::TaskTable},
    nimbus::liveness::Loss,
    schedule,
    tree::{CreateMode, MAX_MULTI_BYTES, MAX_NODE_BYTES, Op, TreePath, Version},
};

/// Everything to do now, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to write.
    pub actions: Vec<Action>,
    /// What keeps something from being as it should.
    pub findings: Vec<Finding>,
    /// How long until something that waits is due, if anything waits.
    pub next: Option<Duration>,
}

impl Plan {
    /// The records that its actions write or delete.
    pub fn records(&self) -> Vec<TreePath> {
        self.actions.iter().flat_map(|action| action.effect.records()).collect()
    }
}

/// One write, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// What to write.
    pub effect: Effect,
    /// Why.
    pub reason: Reason,
    /// How many tasks leave a lost place by it.
    pub n_moved: usize,
    /// The tasks that get another place by it.
    pub moves: Vec<Move>,
}

/// What an action writes.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The assignment of a topology and the orders of every supervisor it concerns.
    Place {
        /// The topology.
        id: TopologyId,
        /// The version of its record, which says how many workers it wants.
        storm: Version,
        /// The version of its task table: an older one would have tasks that are no more.
        tasks: Version,
        /// The version of its assignment now; `None` when it has none.
        before: Option<Version>,
        /// Its assignment from now on.
        assignment: Assignment,
        /// The orders that change with it.
        orders: Vec<OrdersChange>,
    },
    /// All that a due rebalance changes.
    Rebalance {
        /// The topology.
        id: TopologyId,
        /// Its record from now on, and the version it has now.
        storm: Box<Stored<Storm>>,
        /// Its tasks from now on, and the version they have now.
        tasks: Stored<TaskTable>,
        /// The version of its assignment now; `None` when it has none.
        before: Option<Version>,
        /// Its assignment from now on.
        assignment: Assignment,
        /// The orders that change with it.
        orders: Vec<OrdersChange>,
    },
    /// The beginning of the move of a topology from drained hosts: its spouts stop.
    BeginMove {
        /// The topology.
        id: TopologyId,
        /// Its record from now on, and the version it has now.
        storm: Box<Stored<Storm>>,
    },
    /// The end of a killed topology's assignment.
    Unassign {
        /// The topology.
        id: TopologyId,
        /// The version of its assignment; `None` when it cannot be read.
        version: Option<Version>,
        /// The orders that change with it.
        orders: Vec<OrdersChange>,
    },
    /// The end of everything of a killed topology but its record.
    RemoveRecords {
        /// The topology.
        id: TopologyId,
    },
    /// The end of a killed topology.
    RemoveStorm {
        /// The topology.
        id: TopologyId,
        /// The version of its record.
        version: Version,
    },
    /// Orders that were not what the assignments say.
    CorrectOrders(OrdersChange),
    /// The parents of beats and errors, for a topology that lost them.
    RestoreParents {
        /// The topology.
        id: TopologyId,
        /// Whether the parent of its beats is to be created.
        beats: bool,
        /// Whether the parents of its errors are to be created.
        errors: bool,
    },
    /// The end of the znode of a blob that nobody holds and no topology uses.
    ForgetBlob {
        /// The blob.
        key: BlobKey,
    },
    /// The end of the oldest events, as there are more than are kept.
    ForgetEvents {
        /// Which.
        numbers: Vec<EventNumber>,
    },
}

/// A change of one supervisor's orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdersChange {
    /// The supervisor.
    pub supervisor: SupervisorId,
    /// What is there now.
    pub before: OrdersBefore,
    /// What is to be there; `None` deletes the znode.
    pub after: Option<Orders>,
}

/// What is at the path of a supervisor's orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrdersBefore {
    /// Nothing.
    Absent,
    /// Orders at this version.
    At(Version),
    /// Something that is no record. Its version is not known; only the leader writes here,
    /// so that overwriting it destroys nobody's work.
    Unreadable,
}

/// Why an action is taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Tasks had no place.
    Unplaced {
        /// How many.
        n_tasks: usize,
    },
    /// A worker is given up.
    WorkerLost {
        /// Where it was.
        slot: crate::model::Slot,
        /// Why.
        loss: Loss,
        /// How many workers are given up in all.
        n_workers: usize,
    },
    /// The assignment had tasks that the topology has not.
    Misfit,
    /// The deadline of a rebalance has passed.
    RebalanceDue,
    /// The deadline of a kill has passed.
    KillDue,
    /// The record of a topology was deleted, and not put back.
    NoRecord,
    /// Workers of a killed topology have stopped.
    BeatsGone,
    /// Workers of a killed topology did not stop in time.
    BeatsOverdue,
    /// Nothing of a killed topology is left but its record.
    RecordsGone,
    /// Orders were not what the assignments say.
    OrdersDiffer,
    /// A live topology has no place for its beats or errors.
    ParentsMissing,
    /// No topology uses a blob, and nobody holds it.
    BlobUnused,
    /// Hosts that run a part of it are to be emptied.
    HostsDrained {
        /// Which.
        hosts: Vec<String>,
    },
    /// More events are there than are kept.
    EventsOver,
}

impl Reason {
    /// Whether it rests on something not being there, or on a record that the action does not
    /// name the version of. A view may lack what an event that was lost would have shown, so
    /// such a reason is believed only of a view that was just read.
    pub fn asks_for_a_look(&self) -> bool {
        match self {
            Self::WorkerLost { .. }
            | Self::NoRecord
            | Self::BeatsGone
            | Self::RecordsGone
            | Self::OrdersDiffer
            | Self::BlobUnused
            | Self::HostsDrained { .. } => true,
            Self::Unplaced { .. }
            | Self::Misfit
            | Self::RebalanceDue
            | Self::KillDue
            | Self::BeatsOverdue
            | Self::ParentsMissing
            | Self::EventsOver => false,
        }
    }
}

/// Something that keeps a topology, or the cluster, from being as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topology it is about, if one.
    pub topology: Option<TopologyId>,
    /// What.
    pub trouble: Trouble,
}

/// What can be wrong that nimbus does not put right by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// A znode holds no valid record; what it concerns is left alone.
    #[error("{path} cannot be read, so it is left alone: {reason}")]
    Unreadable {
        /// Where.
        path: TreePath,
        /// What is wrong with it.
        reason: String,
    },
    /// Tasks have no slot.
    #[error("{n_tasks} tasks have no slot: {reason}")]
    NoSlot {
        /// How many.
        n_tasks: usize,
        /// Why.
        reason: schedule::Reason,
    },
    /// A due rebalance has nowhere to go.
    #[error("the rebalance waits for slots: {reason}")]
    RebalanceWaits {
        /// Why.
        reason: schedule::Reason,
    },
    /// A topology should leave drained hosts and has nowhere to go, so it runs on there.
    #[error("it cannot leave {} yet: {reason}", .hosts.join(", "))]
    DrainWaits {
        /// The hosts.
        hosts: Vec<String>,
        /// Why.
        reason: schedule::Reason,
    },
    /// A live topology has no task table.
    #[error("{path} is missing, so it is left alone")]
    Missing {
        /// Where the record should be.
        path: TreePath,
    },
    /// A topology has records and not the one that makes it exist: it was deleted by hand.
    #[error("{path} is missing: unless it is put back, what else there is of the topology is removed soon")]
    NoRecord {
        /// Where the record should be.
        path: TreePath,
    },
    /// A topology waits for a change that its record does not hold.
    #[error("its status says rebalancing and its record holds no rebalance; kill it, or write the record")]
    NoPendingRebalance,
    /// A record or a transaction would be over a limit.
    #[error("{path} and what goes with it would take {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// The largest record of it.
        path: TreePath,
        /// How large it would be.
        bytes: usize,
        /// The limit that it breaks.
        limit: usize,
    },
    /// The orders of a supervisor cannot be written without losing what they may hold.
    #[error("/orders/{supervisor} cannot be read, nor can every assignment that may name it")]
    OrdersBlocked {
        /// Whose orders.
        supervisor: SupervisorId,
    },
    /// The cap on moves holds back the replacement of lost workers.
    #[error("{n_tasks} tasks of lost workers wait for the next round (nimbus moves a few at a time)")]
    MovesCapped {
        /// How many tasks wait.
        n_tasks: usize,
    },
    /// The scheduler gave an answer that breaks a rule; nothing of it is written.
    #[error("the placement found for it breaks a rule, which is a fault of nimbus: {violation}")]
    BadPlacement {
        /// Which.
        violation: String,
    },
}

impl Effect {
    /// The topology that it is about, if one.
    pub fn topology(&self) -> Option<&TopologyId> {
        match self {
            Self::Place { id, .. }
            | Self::Rebalance { id, .. }
            | Self::BeginMove { id, .. }
            | Self::Unassign { id, .. }
            | Self::RemoveRecords { id }
            | Self::RemoveStorm { id, .. }
            | Self::RestoreParents { id, .. } => Some(id),
            Self::CorrectOrders(_) | Self::ForgetBlob { .. } | Self::ForgetEvents { .. } => None,
        }
    }

    /// The changes of orders in it.
    pub fn orders(&self) -> &[OrdersChange] {
        match self {
            Self::Place { orders, .. } | Self::Rebalance { orders, .. } | Self::Unassign { orders, .. } => {
                orders
            }
            Self::CorrectOrders(change) => std::slice::from_ref(change),
            Self::BeginMove { .. }
            | Self::RemoveRecords { .. }
            | Self::RemoveStorm { .. }
            | Self::RestoreParents { .. }
            | Self::ForgetBlob { .. }
            | Self::ForgetEvents { .. } => &[],
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

    /// The one transaction that it is; `None` for [`Effect::RemoveRecords`], which has to
    /// look for what there is to delete.
    pub fn ops(&self) -> Option<Vec<Op>> {
        let mut ops = match self {
            Self::Place { id, storm, tasks, before, assignment, .. } => vec![
                check(layout::storm(id), *storm),
                check(layout::tasks(id), *tasks),
                assign(id, *before, assignment),
            ],
            Self::Rebalance { id, storm, tasks, before, assignment, .. } => {
                let table = record::encode(&Tasks { components: tasks.value.clone() });
                vec![
                    set(layout::storm(id), record::encode(&storm.value), storm.version),
                    set(layout::tasks(id), table, tasks.version),
                    assign(id, *before, assignment),
                ]
            }
            Self::BeginMove { id, storm } => {
                vec![set(layout::storm(id), record::encode(&storm.value), storm.version)]
            }
            Self::Unassign { id, version, .. } => {
                vec![Op::Delete { path: layout::assignment(id), version: *version }]
            }
            Self::RemoveRecords { .. } => return None,
            Self::RemoveStorm { id, version } => {
                vec![Op::Delete { path: layout::storm(id), version: Some(*version) }]
            }
            Self::CorrectOrders(_) => Vec::new(),
            Self::RestoreParents { id, beats, errors } => {
                let mut paths = Vec::new();
                if *beats {
                    paths.push(layout::taskbeats(id));
                }
                if *errors {
                    paths.extend([layout::taskerrors(id), layout::last_errors(id)]);
                }
                paths.into_iter().map(|path| create(path, Vec::new())).collect()
            }
            Self::ForgetBlob { key } => vec![Op::Delete { path: layout::blob(key), version: None }],
            Self::ForgetEvents { numbers } => numbers
                .iter()
                .map(|number| Op::Delete { path: layout::event(*number), version: None })
                .collect(),
        };
        ops.extend(self.orders().iter().map(OrdersChange::op));
        Some(ops)
    }
}

impl OrdersChange {
    fn op(&self) -> Op {
        let path = layout::orders(&self.supervisor);
        match (&self.after, self.before) {
            (Some(orders), OrdersBefore::Absent) => create(path, record::encode(orders)),
            (Some(orders), OrdersBefore::At(version)) => set(path, record::encode(orders), version),
            (Some(orders), OrdersBefore::Unreadable) => {
                Op::Set { path, data: record::encode(orders), version: None }
            }
            (None, OrdersBefore::At(version)) => Op::Delete { path, version: Some(version) },
            (None, OrdersBefore::Absent | OrdersBefore::Unreadable) => Op::Delete { path, version: None },
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

/// Room for the check of the term that every fenced write begins with, and for the event
/// that it ends with.
const FENCE_BYTES: usize = 256 + EVENT_BYTES_MAX;

/// Whether `ops` can be sent as one fenced transaction, and what is too large if not.
///
/// # Errors
/// [`Trouble::TooLarge`] with the largest record and the limit that is broken.
pub fn check_size(ops: &[Op]) -> Result<(), Trouble> {
    let Some(largest) = ops.iter().max_by_key(|op| op.n_bytes()) else { return Ok(()) };
    let data_bytes = match largest {
        Op::Create { data, .. } | Op::Set { data, .. } => data.len(),
        Op::Check { .. } | Op::Delete { .. } => 0,
    };
    let too_large = |bytes, limit| Err(Trouble::TooLarge { path: largest.path().clone(), bytes, limit });
    if data_bytes > MAX_NODE_BYTES {
        return too_large(data_bytes, MAX_NODE_BYTES);
    }
    let bytes: usize = ops.iter().map(Op::n_bytes).sum::<usize>() + FENCE_BYTES;
    if bytes > MAX_MULTI_BYTES {
        return too_large(bytes, MAX_MULTI_BYTES);
    }
    Ok(())
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { assignment, .. } => write!(f, "place in {} slots", assignment.workers.len()),
            Self::Rebalance { assignment, .. } => {
                write!(f, "rebalance to {} slots", assignment.workers.len())
            }
            Self::Unassign { .. } => f.write_str("remove the assignment"),
            Self::RemoveRecords { .. } => f.write_str("remove tasks, beats, errors and metrics"),
            Self::RemoveStorm { .. } => f.write_str("remove the topology"),
            Self::CorrectOrders(change) => write!(f, "correct /orders/{}", change.supervisor),
            Self::RestoreParents { .. } => f.write_str("restore the place for beats and errors"),
            Self::BeginMove { .. } => f.write_str("stop its spouts, to move it from drained hosts"),
            Self::ForgetBlob { key } => write!(f, "forget /blobs/{key}"),
            Self::ForgetEvents { numbers } => write!(f, "forget {} events", numbers.len()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplaced { n_tasks } => write!(f, "{n_tasks} tasks had no place"),
            Self::WorkerLost { slot, loss, n_workers: 1 } => {
                write!(f, "the worker in {slot} is lost: {loss}")
            }
            Self::WorkerLost { slot, loss, n_workers } => {
                write!(f, "{n_workers} workers are lost, the one in {slot} because {loss}")
            }
            Self::Misfit => f.write_str("the assignment had tasks that the topology has not"),
            Self::RebalanceDue => f.write_str("the deadline of the rebalance has passed"),
            Self::KillDue => f.write_str("the deadline of the kill has passed"),
            Self::NoRecord => f.write_str("its record was deleted and not put back"),
            Self::BeatsGone => f.write_str("its workers have stopped"),
            Self::BeatsOverdue => f.write_str("its workers did not stop in time"),
            Self::RecordsGone => f.write_str("nothing else of it is left"),
            Self::OrdersDiffer => f.write_str("they were not what the assignments say"),
            Self::ParentsMissing => f.write_str("it was missing"),
            Self::BlobUnused => f.write_str("no topology uses it and nobody holds it"),
            Self::HostsDrained { hosts } => write!(f, "{} is to be emptied", hosts.join(", ")),
            Self::EventsOver => f.write_str("there were more than are kept"),
        }
    }
}
