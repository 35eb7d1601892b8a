//! Problems of this host's slots, as the supervisor reports them in its record.

use std::{collections::BTreeMap, time::Duration};

use crate::{ports::TakenPorts, slot_runtime::SlotRuntime};
use stormkeeper_coordination::cluster::{
    layout::Ephemeral,
    presence::Presence,
    record::{self, SupervisorRecord},
    reported_problem::{PROBLEM_BYTES_MAX, PROBLEMS_MAX, ReportedProblem},
};
use stormkeeper_model::{Port, SupervisorId, clock::Monotonic, text};

/// Problems of the start of a supervisor, which it reports for a while.
#[derive(Debug)]
pub(super) struct StartProblems {
    pub(super) problems: Vec<ReportedProblem>,
    pub(super) until: Monotonic,
}

impl StartProblems {
    fn at(&self, now: Monotonic) -> &[ReportedProblem] {
        if now < self.until { &self.problems } else { &[] }
    }
}

/// Time for which another process with the id of this supervisor is reported after it has last replaced
/// the registration: several reviews of the registration.
const TWIN_REPORTED: Duration = Duration::from_secs(60);

/// Returns the text about another process that has replaced the registration of this supervisor.
pub(super) fn twin(presence: &Presence, me: &SupervisorId, host: &str) -> Option<String> {
    let ephemeral = Ephemeral::Supervisor(me.clone());
    let data = presence.replaced_within(&ephemeral, TWIN_REPORTED)?;
    let other = record::decode::<SupervisorRecord>(&ephemeral.path(), &data).ok();
    let other = other.map_or_else(|| "another host".to_owned(), |record| record.host);
    Some(format!(
        "two supervisors run with the id {me}, at {host} and at {other}: the data directory of one is a copy, and \
         each ends or launches workers of the other; stop one of them, end the workers on its host, move its data \
         directory away, and start it again"
    ))
}

/// The problems, at most [`PROBLEMS_MAX`]: first those of the whole host, `failed_writes`,
/// and of its start.
pub(super) fn of(
    (failed_writes, twin): (&[String], Option<String>),
    (at_start, now): (&StartProblems, Monotonic),
    taken: &TakenPorts,
    slots: &BTreeMap<Port, SlotRuntime>,
    host: &str,
) -> Vec<ReportedProblem> {
    let of_host = failed_writes.iter().map(|text| {
        ReportedProblem::of_supervisor(&format!(
            "supervisor at {host} {text}; its workers run on, and none can be launched there until it can write"
        ))
    });
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
        let texts = slot.unwritten_heartbeat().into_iter().chain(report.problems.iter().map(String::as_str));
        let texts = texts.enumerate().map(|(n, text)| {
            let text = format!("worker at {host}:{port}: {text}");
            let text = text::shortened_from(&text, PROBLEM_BYTES_MAX, "worker.log");
            let mut problem = ReportedProblem::of_slot(*port, topology(*port), &text);
            if n == 0 {
                problem.idle = report.idle.clone();
            }
            (n, problem)
        });
        texts.collect::<Vec<_>>()
    });
    // The first problem of each worker before the second of any: no worker fills the list alone.
    let mut workers: Vec<(usize, ReportedProblem)> = workers.collect();
    workers.sort_by_key(|(n, _)| *n);
    let workers = workers.into_iter().map(|(_, problem)| problem);
    let twin = twin.map(|text| ReportedProblem::of_supervisor(&text));
    twin.into_iter()
        .chain(of_host)
        .chain(at_start.at(now).iter().cloned())
        .chain(taken)
        .chain(workers)
        .take(PROBLEMS_MAX)
        .collect()
}
