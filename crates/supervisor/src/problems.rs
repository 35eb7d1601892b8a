//! Problems of this host's slots, as the supervisor reports them in its record.

use std::collections::BTreeMap;

use crate::{ports::TakenPorts, slot_runtime::SlotRuntime};
use stormkeeper_coordination::cluster::reported_problem::{PROBLEMS_MAX, ReportedProblem};
use stormkeeper_model::Port;

/// The problems, at most [`PROBLEMS_MAX`].
pub(super) fn of(
    taken: &TakenPorts,
    slots: &BTreeMap<Port, SlotRuntime>,
    host: &str,
) -> Vec<ReportedProblem> {
    let topology = |port| {
        let state = &slots.get(&port)?.state;
        let desired = state.desired().or(state.worker().map(|(_, desired)| desired))?;
        Some(desired.topology.clone())
    };
    let taken = taken.iter().map(|(port, reason)| {
        let text = format!(
            "{reason}, so the slot {host}:{port} is not used; end the program, or take the port out of \
             supervisor.slots.ports"
        );
        ReportedProblem { unusable: true, ..ReportedProblem::of_slot(port, topology(port), &text) }
    });
    let workers = slots.iter().filter(|(_, slot)| slot.is_alive()).flat_map(|(port, slot)| {
        let report = &slot.report;
        let texts = report.problems.iter().enumerate().map(|(n, text)| {
            let text = format!("worker at {host}:{port}: {text}");
            let mut problem = ReportedProblem::of_slot(*port, topology(*port), &text);
            if n == 0 {
                problem.idle = report.idle.clone();
            }
            problem
        });
        texts.collect::<Vec<_>>()
    });
    taken.chain(workers).take(PROBLEMS_MAX).collect()
}
