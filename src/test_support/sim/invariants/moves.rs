//! A healthy task never moves.

use std::time::Duration;

use super::Invariant;
use crate::{
    cluster::{layout, record},
    model::{Slot, TopologyId, assignment::AssignedWorker, assignment::Assignment, status::TopologyStatus},
    test_support::sim::{facts::Facts, journal::Party},
    tree::{
        Op,
        memory::listen::{Commit, What},
    },
};

/// A worker that has been beating for so long is healthy beyond doubt: longer than any
/// request may be under way, so that the leader could have known.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Moves;

impl Invariant for Moves {
    fn name(&self) -> &'static str {
        "moves"
    }

    fn commit(&mut self, facts: &Facts, commit: &Commit<'_>, _party: &Party) -> Result<(), String> {
        let What::Transaction { ops, .. } = commit.what else { return Ok(()) };
        for op in ops {
            let path = op.path();
            if path.parent() != Some(layout::assignments()) {
                continue;
            }
            let Ok(id) = path.name().parse::<TopologyId>() else { continue };
            let Some(before) = facts.assignments.get(&id) else { continue };
            let after = match op {
                Op::Set { data, .. } => record::decode_assignment(path, data).unwrap_or_default(),
                Op::Delete { .. } => Assignment::default(),
                Op::Check { .. } | Op::Create { .. } => continue,
            };
            // A rebalance writes the record in the same transaction.
            let is_asked_for = ops.iter().any(|op| *op.path() == layout::storm(&id));
            let status = facts.storms.get(&id).map(|storm| storm.status);
            if is_asked_for || status == Some(TopologyStatus::Killed) {
                continue;
            }
            let moved =
                before.workers.iter().filter(|(slot, worker)| after.workers.get(*slot) != Some(*worker));
            for (slot, worker) in moved {
                if is_healthy(facts, &id, slot, worker) {
                    return Err(format!("the healthy worker in {slot} of {id} was moved or started anew"));
                }
            }
        }
        Ok(())
    }
}

/// Whether the worker's process is there and has beaten for a while: one task is enough, as
/// its process then lives.
fn is_healthy(facts: &Facts, id: &TopologyId, slot: &Slot, worker: &AssignedWorker) -> bool {
    let process = facts.processes.values().find(|process| {
        process.topology == *id && process.slot == *slot && process.start == worker.start && process.is_well
    });
    let Some(process) = process else { return false };
    worker.tasks.iter().any(|task| {
        facts.beats.get(&(id.clone(), task)).is_some_and(|beat| {
            beat.connection == process.connection && facts.now.saturating_sub(beat.since) >= HEALTHY_AFTER
        })
    })
}
