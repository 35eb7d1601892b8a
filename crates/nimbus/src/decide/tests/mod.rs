//! Decisions on a small model of the tree, in which a plan can be applied in part.

mod damaged_records;
mod deleted_assignments;
mod drain;
mod failing;
mod grow_back;
mod log_levels;
mod lost_hosts;
mod lost_hosts_properties;
mod placement;
mod properties;
mod rebalance;
mod removal;
mod renamed_hosts;
mod samples;
mod unknown_fields;
mod unusable_slots;
mod update;
mod world;

use crate::plan::Plan;

/// No wait.
const NOW: std::time::Duration = std::time::Duration::ZERO;

fn effects(plan: &Plan) -> Vec<String> {
    plan.actions.iter().map(|action| action.effect.to_string()).collect()
}
