//! Work that a local run leaves undone, in words for the user.

use stormkeeper_api_types::message::{ComponentSummary, TopologyDetail};
use stormkeeper_model::{heartbeat::TaskStatus, topology::ComponentKind};

/// Returns the spouts with pending tuples or that owe an answer, and the components of which a process
/// failed and is being started again. Taken before the spouts are deactivated, which may end both.
pub(super) fn of_spouts(detail: &TopologyDetail) -> Vec<String> {
    let lines = detail.components.iter().flat_map(|component| {
        let id = &component.id;
        let owed = count(component.pending, "tuple").filter(|_| is_spout(component));
        let owed =
            owed.map(|n| format!("{n} of {id} neither acked nor failed, or commands that it did not answer"));
        let restarting = detail
            .tasks
            .iter()
            .filter(|task| task.component == component.id && task.status == Some(TaskStatus::Restarting));
        let restarting = count(restarting.count() as u64, "task");
        let restarting =
            restarting.map(|n| format!("{n} of {id} failed and did not run: see its last error"));
        owed.into_iter().chain(restarting)
    });
    lines.collect()
}

/// Returns the tuples that bolts have not finished, and those that they read and never acked.
pub(super) fn of_bolts(detail: &TopologyDetail) -> Vec<String> {
    let bolts = detail.components.iter().filter(|component| !is_spout(component));
    let lines = bolts.flat_map(|component| {
        let (id, counts) = (&component.id, &component.counts);
        let pending = count(component.pending, "tuple");
        let pending = pending
            .map(|n| format!("{n} of {id} not done: waiting for it, or not acked although it acks others"));
        let n_settled = counts.acked + counts.failed + component.pending;
        let unacked = count(counts.executed.saturating_sub(n_settled), "tuple");
        let unacked = unacked.map(|n| {
            format!("{n} read by {id} and never acked: done if it is a sink, lost if it still worked on them")
        });
        pending.into_iter().chain(unacked)
    });
    lines.collect()
}

fn is_spout(component: &ComponentSummary) -> bool {
    component.kind == Some(ComponentKind::Spout)
}

/// Returns `1 tuple`, `2 tuples`, …; `None` for zero.
fn count(n: u64, what: &str) -> Option<String> {
    match n {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(format!("{n} {what}s")),
    }
}
