//! Decision whether the tuple trees of a new topology are tracked. Pure.
//!
//! A worker of a build that does not track tuples drops their anchors, so that every tree through it would
//! time out. A topology is therefore tracked only if all supervisors can run its workers so.

use crate::refusal::Refusal;
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{
    SupervisorId,
    topology::{Ackers, Topology},
};

/// Ackers that a topology asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct AckersAsked {
    /// The ackers; `None` for an untracked topology.
    ackers: Option<Ackers>,
    /// True if the topology itself asks, and not the cluster.
    is_explicit: bool,
}

/// Supervisors that a refusal names.
const NAMED_MAX: usize = 3;

impl AckersAsked {
    /// Ackers that `topology` asks for; `default` is the cluster's.
    pub(super) fn of(topology: &Topology, default: Option<Ackers>) -> Self {
        let value = topology.settings.get(Ackers::SETTING).filter(|value| !value.is_null());
        match value {
            Some(_) => Self { ackers: Ackers::of_setting(value), is_explicit: true },
            None => Self { ackers: default, is_explicit: false },
        }
    }

    /// Returns the ackers of a topology that is submitted now, and why it has none although it is not
    /// against them.
    ///
    /// # Errors
    /// [`Refusal::BadOption`] if the topology asks for ackers and a supervisor cannot run them.
    pub(super) fn decide(self, view: &ClusterView) -> Result<(Option<Ackers>, Option<String>), Refusal> {
        let Some(ackers) = self.ackers else { return Ok((None, None)) };
        let old = view.supervisors.iter().filter(|(_, record)| !record.tracks_tuples);
        let old: Vec<&SupervisorId> = old.map(|(id, _)| id).collect();
        if old.is_empty() {
            return Ok((Some(ackers), None));
        }
        let named: Vec<String> = old.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = if old.len() > NAMED_MAX { ", …" } else { "" };
        let reason = format!(
            "{} of the supervisors run an older build, whose workers cannot track tuples: {}{more}",
            old.len(),
            named.join(", "),
        );
        match self.is_explicit {
            true => Err(Refusal::BadOption(format!(
                "the topology sets {}, and {reason}; upgrade them first, or set it to 0",
                Ackers::SETTING
            ))),
            false => Ok((None, Some(reason))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn supervisors(tracking: &[(&str, bool)]) -> ClusterView {
        let record = |tracks: bool| {
            let record = json!({ "host": "h", "ports": [], "resources": { "cpu_percent": 1, "memory_mb": 1 },
                                 "version": "0", "start_ms": 0, "tracks_tuples": tracks });
            serde_json::from_value(record).expect("a record")
        };
        let records = tracking.iter().map(|(id, tracks)| (id.parse().expect("valid"), record(*tracks)));
        ClusterView { supervisors: records.collect(), ..ClusterView::default() }
    }

    fn asked(value: serde_json::Value, default: Option<Ackers>) -> AckersAsked {
        let topology = json!({ "name": "t", "settings": { Ackers::SETTING: value }, "components": {} });
        AckersAsked::of(&serde_json::from_value(topology).expect("a topology"), default)
    }

    #[test]
    fn topology_decides_before_the_cluster() {
        let (view, per_worker) = (ClusterView::default(), Some(Ackers::PerWorker));
        let decided = |value, default| asked(value, default).decide(&view).expect("accepted").0;
        assert_eq!(decided(json!(null), per_worker), per_worker);
        assert_eq!(decided(json!(null), None), None);
        assert_eq!(decided(json!(0), per_worker), None);
        assert_eq!(decided(json!(2), None), Some(Ackers::Count(2)));
    }

    #[test]
    fn topology_is_not_tracked_while_a_supervisor_is_of_an_older_build() {
        let view = supervisors(&[("new", true), ("a", false), ("b", false), ("c", false), ("d", false)]);
        let (ackers, reason) = asked(json!(null), Some(Ackers::PerWorker)).decide(&view).expect("accepted");
        let expected =
            "4 of the supervisors run an older build, whose workers cannot track tuples: a, b, c, …";
        assert_eq!((ackers, reason.as_deref()), (None, Some(expected)));
        let refusal = asked(json!(1), None).decide(&view).expect_err("refused").to_string();
        assert!(refusal.contains("topology.acker.executors") && refusal.contains(expected), "{refusal}");
        assert_eq!(asked(json!(0), None).decide(&view).expect("accepted"), (None, None));
        let (ackers, _) = asked(json!(1), None).decide(&supervisors(&[("new", true)])).expect("accepted");
        assert_eq!(ackers, Some(Ackers::Count(1)));
    }
}
