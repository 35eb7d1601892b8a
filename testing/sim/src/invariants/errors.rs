//! The stored errors of a task are its newest ten, in order, regardless of the writer and of
//! faults.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::{
    journal::Party,
    model::{ClusterModel, MachineEvent},
};
use stormkeeper_coordination::{
    cluster::{
        record::{self, StoredError},
        store::ERRORS_KEPT,
    },
    tree::{
        Op, OpResult, TreePath,
        memory::listener::{Commit, What},
    },
};
use stormkeeper_model::{TaskId, TopologyId, status::TopologyStatus};

/// All errors ever written, by task.
#[derive(Debug, Default)]
pub(super) struct Errors {
    tasks: BTreeMap<(TopologyId, TaskId), Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// The znode names of the newest errors, oldest first.
    newest: Vec<String>,
    messages: BTreeSet<String>,
}

impl Invariant for Errors {
    fn name(&self) -> &'static str {
        "errors"
    }

    fn commit(&mut self, _model: &ClusterModel, commit: &Commit<'_>, party: &Party) -> Result<(), String> {
        let What::Transaction { ops, results } = commit.what else { return Ok(()) };
        let mut touched = BTreeMap::new();
        for (op, result) in ops.iter().zip(results) {
            let path = match result {
                OpResult::Created(path) => path,
                OpResult::Checked | OpResult::Set(_) | OpResult::Deleted => op.path(),
            };
            let Some(key) = task_of(path) else { continue };
            touched.insert(key.clone(), path.parent());
            let written = self.tasks.entry(key).or_default();
            match op {
                Op::Create { data, .. } => {
                    written.newest.push(path.name().to_owned());
                    let error =
                        record::decode::<StoredError>(path, data).map_err(|error| error.to_string())?;
                    written.messages.insert(error.message);
                }
                // The leader removes all errors of a killed topology.
                Op::Delete { .. } if matches!(party, Party::Nimbus(_)) => {
                    written.newest.retain(|name| name != path.name());
                }
                Op::Delete { .. } | Op::Set { .. } | Op::Check { .. } => {}
            }
        }
        for (key, parent) in touched {
            let Some(written) = self.tasks.get_mut(&key) else { continue };
            let n_old = written.newest.len().saturating_sub(ERRORS_KEPT);
            written.newest.drain(..n_old);
            let listed = parent.and_then(|parent| commit.after.children(&parent)).unwrap_or_default();
            if listed != written.newest {
                let (id, task) = key;
                return Err(format!(
                    "task {task} of {id} has the errors {listed:?}, but its newest are {:?}",
                    written.newest
                ));
            }
        }
        Ok(())
    }

    fn machine(&mut self, model: &ClusterModel, event: &MachineEvent) -> Result<(), String> {
        let MachineEvent::ErrorStored { topology, task, message } = event else { return Ok(()) };
        // Errors of a topology that is being removed need not be stored.
        if model
            .topologies
            .get(topology)
            .is_none_or(|topology_record| topology_record.status == TopologyStatus::Killed)
        {
            return Ok(());
        }
        let written = self.tasks.get(&(topology.clone(), *task));
        match written.is_some_and(|written| written.messages.contains(message)) {
            true => Ok(()),
            false => Err(format!("{message:?} of task {task} of {topology} was confirmed but not stored")),
        }
    }
}

/// Returns the task of the error at `path`: `/taskerrors/{topology}/{task}/{sequence}`.
fn task_of(path: &TreePath) -> Option<(TopologyId, TaskId)> {
    let parts: Vec<&str> = path.parts().collect();
    match parts[..] {
        ["taskerrors", id, task, _] => Some((id.parse().ok()?, task.parse().ok()?)),
        _ => None,
    }
}
