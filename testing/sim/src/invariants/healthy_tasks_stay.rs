//! A healthy task never moves.

use std::time::Duration;

use super::{Invariant, lost_hosts::objection_to_loss};
use crate::{journal::Party, model::ClusterModel};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, TopologyRecord},
    },
    tree::{
        Op,
        memory::listener::{Commit, What},
    },
};
use stormkeeper_model::{
    Slot, TopologyId,
    assignment::{AssignedWorker, Assignment},
    status::{PendingChange, TopologyStatus},
};

/// Time with heartbeats after which a worker is certainly healthy: longer than any request may be
/// under way, so that the leader could have seen it.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Time without heartbeats, while the process runs, for which a worker must keep its slot, and
/// time for which its supervisor may be absent. The leader waits 30 s from the moment at which it
/// sees the absence.
pub(super) const SILENCE_MIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Moves;

impl Invariant for Moves {
    fn name(&self) -> &'static str {
        "moves"
    }

    fn commit(&mut self, model: &ClusterModel, commit: &Commit<'_>, _party: &Party) -> Result<(), String> {
        for (id, slot, worker) in moved(model, commit) {
            let is_lost = || objection_to_loss(model, &slot.supervisor).is_none();
            if is_healthy(model, &id, &slot, &worker) && !is_lost() {
                return Err(format!("the healthy worker in {slot} of {id} was moved or restarted"));
            }
        }
        Ok(())
    }
}

/// The workers that a commit moves or restarts, except those that an operator or a recorded grow-back moves.
pub(super) fn moved(model: &ClusterModel, commit: &Commit<'_>) -> Vec<(TopologyId, Slot, AssignedWorker)> {
    let What::Transaction { ops, .. } = commit.what else { return Vec::new() };
    let mut all = Vec::new();
    for op in ops {
        let path = op.path();
        if path.parent() != Some(layout::assignments()) {
            continue;
        }
        let Ok(id) = path.name().parse::<TopologyId>() else { continue };
        let Some(before) = model.assignments.get(&id) else { continue };
        let after = match op {
            Op::Set { data, .. } => record::decode_assignment(path, data).unwrap_or_default(),
            Op::Delete { .. } => Assignment::default(),
            Op::Check { .. } | Op::Create { .. } => continue,
        };
        let topology_record = model.topologies.get(&id);
        if topology_record.is_some_and(|topology_record| topology_record.status == TopologyStatus::Killed) {
            continue;
        }
        // A rebalance writes the topology record in the same transaction; other moves check it.
        let writes_record = |op: &Op| matches!(op, Op::Set { path, .. } if *path == layout::storm(&id));
        let is_rebalance = ops.iter().any(writes_record);
        let is_drain = topology_record.is_some_and(|topology_record| {
            matches!(&topology_record.pending, Some(PendingChange::Rebalance { only_drained: true, .. }))
        });
        if is_rebalance && !is_drain && may_move_all(topology_record) {
            continue;
        }
        let may_go = |worker: &AssignedWorker| is_rebalance && model.drains.contains(&worker.host);
        let moved = before.workers.iter().filter(|(slot, worker)| after.workers.get(*slot) != Some(*worker));
        let moved = moved.filter(|(_, worker)| !may_go(worker));
        all.extend(moved.map(|(slot, worker)| (id.clone(), slot.clone(), worker.clone())));
    }
    all
}

/// Returns whether a rebalance may move every worker: an operator asked for it, or the author of the topology
/// asked for it to grow back.
fn may_move_all(topology_record: Option<&TopologyRecord>) -> bool {
    topology_record.is_none_or(|record| match &record.pending {
        Some(PendingChange::Rebalance { grow_back: true, .. }) => record.grow_back_secs.is_some(),
        Some(PendingChange::Rebalance { .. } | PendingChange::Kill { .. }) | None => true,
    })
}

/// True if the worker's process runs and has had heartbeats for a while, the last of them a short
/// time ago. One task is enough, because its process is alive then.
fn is_healthy(model: &ClusterModel, id: &TopologyId, slot: &Slot, worker: &AssignedWorker) -> bool {
    let process = model.processes.values().find(|process| {
        process.topology == *id
            && process.slot == *slot
            && process.start == worker.start
            && process.is_responsive
    });
    let Some(process) = process else { return false };
    let gone_for =
        |gone: Option<Duration>| gone.map_or(Duration::ZERO, |gone| model.now.saturating_sub(gone));
    let supervisor = model.supervisors.get(&slot.supervisor).and_then(|registration| registration.until);
    worker.tasks.iter().filter_map(|task| model.heartbeats.get(&(id.clone(), task))).any(|heartbeat| {
        heartbeat.connection == process.connection
            && heartbeat.until.unwrap_or(model.now).saturating_sub(heartbeat.since) >= HEALTHY_AFTER
            && gone_for(heartbeat.until) < SILENCE_MIN
            && (heartbeat.until.is_none() || gone_for(supervisor) < SILENCE_MIN)
    })
}
