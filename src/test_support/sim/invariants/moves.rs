//! A healthy task never moves.

use std::time::Duration;

use super::Invariant;
use crate::{
    cluster::{layout, record},
    model::{
        Slot, TopologyId,
        assignment::AssignedWorker,
        assignment::Assignment,
        status::{PendingChange, TopologyStatus},
    },
    test_support::sim::{facts::Facts, journal::Party},
    tree::{
        Op,
        memory::listen::{Commit, What},
    },
};

/// A worker that has been beating for so long is healthy beyond doubt: longer than any
/// request may be under way, so that the leader could have known.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// A worker whose beats went, with its session and not with its process, gets so long to
/// bring them back, and its supervisor to come back itself. The leader gives them 30 s from
/// when it sees that they are gone.
const SILENCE_MIN: Duration = Duration::from_secs(20);

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
            let storm = facts.storms.get(&id);
            if storm.is_some_and(|storm| storm.status == TopologyStatus::Killed) {
                continue;
            }
            // A rebalance writes the record in the same transaction.
            let is_rebalance = ops.iter().any(|op| *op.path() == layout::storm(&id));
            let is_drain = storm.is_some_and(|storm| {
                matches!(&storm.pending, Some(PendingChange::Rebalance { only_drained: true, .. }))
            });
            if is_rebalance && !is_drain {
                continue;
            }
            let may_go = |worker: &AssignedWorker| is_rebalance && facts.drains.contains(&worker.host);
            let moved =
                before.workers.iter().filter(|(slot, worker)| after.workers.get(*slot) != Some(*worker));
            for (slot, worker) in moved.filter(|(_, worker)| !may_go(worker)) {
                if is_healthy(facts, &id, slot, worker) {
                    return Err(format!("the healthy worker in {slot} of {id} was moved or started anew"));
                }
            }
        }
        Ok(())
    }
}

/// Whether the worker's process is there and has beaten for a while, at the latest a short
/// time ago: one task is enough, as its process then lives.
fn is_healthy(facts: &Facts, id: &TopologyId, slot: &Slot, worker: &AssignedWorker) -> bool {
    let process = facts.processes.values().find(|process| {
        process.topology == *id && process.slot == *slot && process.start == worker.start && process.is_well
    });
    let Some(process) = process else { return false };
    let gone_for =
        |gone: Option<Duration>| gone.map_or(Duration::ZERO, |gone| facts.now.saturating_sub(gone));
    let supervisor = facts.supervisors.get(&slot.supervisor).copied().flatten();
    worker.tasks.iter().filter_map(|task| facts.beats.get(&(id.clone(), task))).any(|beat| {
        beat.connection == process.connection
            && beat.until.unwrap_or(facts.now).saturating_sub(beat.since) >= HEALTHY_AFTER
            && gone_for(beat.until) < SILENCE_MIN
            && (beat.until.is_none() || gone_for(supervisor) < SILENCE_MIN)
    })
}
