//! Texts of effects and reasons, for events and the log.

use std::fmt;

use super::{Effect, Reason};

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { assignment, .. } => write!(f, "place in {} slots", assignment.workers.len()),
            Self::Rebalance { assignment, .. } => {
                write!(f, "rebalance to {} slots", assignment.workers.len())
            }
            Self::Unassign { .. } => f.write_str("remove the assignment"),
            Self::RemoveRecords { .. } => f.write_str("remove tasks, heartbeats, errors and metrics"),
            Self::RemoveTopologyRecord { .. } => f.write_str("remove the topology"),
            Self::CorrectSupervisorAssignments(change) => {
                write!(f, "correct /supervisor-assignments/{}", change.supervisor)
            }
            Self::RestoreParents { .. } => f.write_str("create the parents of heartbeats and errors"),
            Self::BeginMove { .. } => f.write_str("stop the spouts before tasks move"),
            Self::StepUpdate { .. } => f.write_str("step of an update"),
            Self::ReplaceWorkers { .. } => f.write_str("replace workers of an update"),
            Self::EndLogLevels { .. } => f.write_str("end log levels"),
            Self::EndSamples { .. } => f.write_str("end samples of tuples"),
            Self::DeleteBlobNode { key } => write!(f, "delete /blobs/{key}"),
            Self::DeleteEvents { numbers } => write!(f, "delete {} events", numbers.len()),
            Self::DeleteStops { supervisors } => {
                write!(f, "delete {} announced stops of supervisors", supervisors.len())
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplaced { n_tasks } => write!(f, "{n_tasks} tasks had no slot"),
            Self::WorkerLost { slot, loss, n_workers: 1 } => {
                write!(f, "the worker in {slot} is lost: {loss}")
            }
            Self::WorkerLost { slot, loss, n_workers } => {
                write!(f, "{n_workers} workers are lost, the one in {slot} because {loss}")
            }
            Self::AssignmentMissing => {
                f.write_str("the assignment was deleted, and is written again as it was")
            }
            Self::StaleTasks => f.write_str("the assignment contained tasks that are not in the task table"),
            Self::RebalanceDue => f.write_str("the deadline of the rebalance has passed"),
            Self::Drained => f.write_str("its workers have processed all tuples"),
            Self::Update { text, .. } => f.write_str(text),
            Self::LogLevelsDue => f.write_str("the time of log levels is over"),
            Self::SamplesDue => f.write_str("the time of samples of tuples is over"),
            Self::KillDue => f.write_str("the deadline of the kill has passed"),
            Self::NoRecord => f.write_str("the topology record was deleted and not restored"),
            Self::HeartbeatsGone => f.write_str("its workers have stopped"),
            Self::HeartbeatsOverdue => f.write_str("its workers did not stop in time"),
            Self::RecordsGone => f.write_str("all other records of the topology are removed"),
            Self::SupervisorAssignmentsDiffer => {
                f.write_str("the record differed from the assignments of the topologies")
            }
            Self::ParentsMissing => f.write_str("they were missing"),
            Self::BlobUnused => f.write_str("no topology uses the blob and no nimbus has it"),
            Self::HostsDrained { hosts } => write!(f, "{} is being drained", hosts.join(", ")),
            Self::HostsRenamed { hosts } => {
                write!(f, "hosts have another name, and their workers run on: {}", hosts.join(", "))
            }
            Self::GrowsBack { from, to } if to <= from => {
                write!(f, "the slots for more than {from} workers are in use again; it goes on as it was")
            }
            Self::GrowsBack { from, to } => {
                write!(f, "it grows back from {from} to {to} workers, as slots are free")
            }
            Self::EventsOverLimit => f.write_str("there were more events than the limit"),
            Self::StopsIdle => f.write_str("the supervisors have not come back and have no tasks"),
        }
    }
}
