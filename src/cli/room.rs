//! Room for workers in the cluster, as far as a command can tell before the leader decides.

use stormkeeper_api_types::message::{SupervisorList, SupervisorSummary};

/// Supervisors whose hosts are not drained.
fn in_use(list: &SupervisorList) -> impl Iterator<Item = &SupervisorSummary> {
    list.supervisors.iter().filter(|supervisor| !supervisor.drained)
}

/// Returns what to say of a drain that leaves `n_workers` to move, if there is no room for all of them.
pub(super) fn lacking_for_drain(list: &SupervisorList, n_workers: usize) -> Option<String> {
    let free: usize = in_use(list).map(|supervisor| supervisor.slots_free).sum();
    (free < n_workers).then(|| {
        format!(
            "note: {} free on the other hosts, for {}; topologies for which there is no room elsewhere run on \
             where they are, and `stormkeeper list` names them; start a supervisor, or kill a topology",
            slots(free),
            workers(n_workers)
        )
    })
}

/// Returns what to say of a topology that is to run in `n_workers` workers, if there are not as many slots.
pub(super) fn lacking_for_workers(list: &SupervisorList, n_workers: usize) -> Option<String> {
    let slots_total: usize = in_use(list).map(|supervisor| supervisor.slots_total).sum();
    (slots_total < n_workers).then(|| {
        format!(
            "note: the cluster has {} on hosts that are not drained, fewer than {}; the topology runs in as many \
             as there is room for",
            slots(slots_total),
            workers(n_workers)
        )
    })
}

fn slots(n: usize) -> String {
    stormkeeper_model::text::counted(n, "slot")
}

fn workers(n: usize) -> String {
    stormkeeper_model::text::counted(n, "worker")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Two hosts with four slots each, one of them free; the second is drained.
    fn cluster() -> SupervisorList {
        let supervisor = |host: &str, is_drained: bool| {
            json!({"id": host, "host": host, "uptimeSeconds": 1, "slotsTotal": 4, "slotsUsed": 3, "slotsFree": 1,
                   "totalCpu": 0, "totalMem": 0, "version": "0.1.0", "drained": is_drained})
        };
        let list = json!({"supervisors": [supervisor("a", false), supervisor("b", true)]});
        serde_json::from_value(list).expect("a list")
    }

    #[test]
    fn drain_without_room_elsewhere_says_how_much_there_is() {
        assert_eq!(lacking_for_drain(&cluster(), 1), None);
        let said = lacking_for_drain(&cluster(), 3).expect("no room");
        assert!(said.contains("1 slot free on the other hosts, for 3 workers"), "{said}");
    }

    #[test]
    fn more_workers_than_slots_are_named() {
        assert_eq!(lacking_for_workers(&cluster(), 4), None);
        let said = lacking_for_workers(&cluster(), 100).expect("too many");
        assert!(said.contains("has 4 slots") && said.contains("fewer than 100 workers"), "{said}");
    }
}
