//! Daemons that everybody may use who reaches them, as responses show them.

use std::collections::BTreeSet;

use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::text::counted;

/// Maximum number of hosts that a response names; the others are counted.
const SHOWN_MAX: usize = 5;

/// One text about all daemons of the cluster that are exposed, if there are any.
pub(super) fn of_cluster(view: &ClusterView) -> Option<String> {
    let nimbuses = || view.nimbuses.values().filter(|record| record.exposed.is_some());
    let supervisors = || view.supervisors.values().filter(|record| record.exposed.is_some());
    let hosts = nimbuses().map(|record| &record.host).chain(supervisors().map(|record| &record.host));
    let hosts: BTreeSet<&str> = hosts.map(String::as_str).collect();
    if hosts.is_empty() {
        return None;
    }
    let kinds = [(nimbuses().count(), "nimbus"), (supervisors().count(), "supervisor")];
    let kinds = kinds.into_iter().filter(|(n, _)| *n > 0).map(|(n, kind)| counted(n, kind));
    let shown: Vec<&str> = hosts.iter().copied().take(SHOWN_MAX).collect();
    let more = match hosts.len() - shown.len() {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    Some(format!(
        "the cluster is not locked: {} on {}{more} may be used without a proof by everybody who reaches them; \
         docs/security.md says how to lock a cluster",
        kinds.collect::<Vec<_>>().join(" and "),
        shown.join(", ")
    ))
}
