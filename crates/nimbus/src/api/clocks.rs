//! Clocks that differ from the leader's, as responses show them.

use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{NimbusId, SupervisorId};

/// Maximum number of supervisors whose clocks a response names; the others are counted.
const SHOWN_MAX: usize = 10;

/// Text about the clock of a nimbus, if it differs.
pub(super) fn of_nimbus(view: &ClusterView, id: &NimbusId) -> Option<String> {
    let record = view.nimbuses.get(id)?;
    Some(text(view, &format!("nimbus {id} on {}", record.host), record.clock_ahead_ms?))
}

/// Texts about the clocks of the supervisors that `concerns` selects.
pub(super) fn of_supervisors(view: &ClusterView, concerns: impl Fn(&SupervisorId) -> bool) -> Vec<String> {
    let differing = view.supervisors.iter().filter(|(id, _)| concerns(id)).filter_map(|(id, record)| {
        Some(text(view, &format!("supervisor {id} on {}", record.host), record.clock_ahead_ms?))
    });
    let mut texts: Vec<String> = differing.collect();
    let n_more = texts.len().saturating_sub(SHOWN_MAX);
    if n_more > 0 {
        texts.truncate(SHOWN_MAX);
        texts.push(format!(
            "the clocks of {n_more} more supervisors differ from the leader's: if most clocks differ, the \
             leader's is wrong"
        ));
    }
    texts
}

/// Texts about all clocks that differ.
pub(super) fn all(view: &ClusterView) -> Vec<String> {
    let nimbuses = view.nimbuses.keys().filter_map(|id| of_nimbus(view, id));
    nimbuses.chain(of_supervisors(view, |_| true)).collect()
}

fn text(view: &ClusterView, of: &str, ahead_ms: i64) -> String {
    let leader = view.leader.as_ref().map_or_else(String::new, |leader| format!(" ({})", leader.nimbus));
    let seconds = format!("{}.{}", ahead_ms.unsigned_abs() / 1000, ahead_ms.unsigned_abs() % 1000 / 100);
    let direction = if ahead_ms < 0 { "behind" } else { "ahead of" };
    format!(
        "the clock of {of} is {seconds} s {direction} the leader's{leader}, so its minutes of metrics and its \
         times are shifted: synchronize both hosts with NTP, for example with chrony"
    )
}
