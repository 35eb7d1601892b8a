//! Roll-up of a metric from the leaves to the levels above.
//!
//! ```text
//!  stream ─┬─▶ task ─▶ component ─▶ topology ─▶ cluster
//!          └─▶ component-stream       ▲
//!                 worker, connection ─┘
//! ```
//!
//! The levels above follow from the name alone. Each step adds up, so each level is exactly the
//! sum of the level below. Supervisors and nimbuses have no levels above: a sum over hosts
//! of different topologies would mean nothing.

use super::{
    MetricName, Subject,
    name::{CLUSTER, NIMBUS, SUPERVISOR},
};
use stormkeeper_model::TopologyId;

/// Number of levels, the cluster included.
pub const LEVELS: usize = 5;

/// Level of a metric, below [`LEVELS`]. Points are added from lower levels to higher ones only.
pub fn level(name: &MetricName) -> usize {
    match name.subject() {
        Subject::Stream { .. }
        | Subject::Worker { .. }
        | Subject::Connection { .. }
        | Subject::Nimbus { .. } => 0,
        Subject::Task { .. } | Subject::ComponentStream { .. } => 1,
        Subject::Component { .. } => 2,
        Subject::Topology if name.topology().as_str() == CLUSTER => 4,
        Subject::Topology => 3,
    }
}

/// The names that a metric adds to directly; these add to their own parents in turn.
pub fn parents(name: &MetricName) -> Vec<MetricName> {
    let topology = name.topology();
    if [CLUSTER, NIMBUS, SUPERVISOR].contains(&topology.as_str()) {
        return Vec::new();
    }
    let here = |subject| name.rolled_up(topology.clone(), subject);
    match name.subject() {
        Subject::Stream { component, task, stream } => vec![
            here(Subject::Task { component: component.clone(), task: *task }),
            here(Subject::ComponentStream { component: component.clone(), stream: stream.clone() }),
        ],
        Subject::Task { component, .. } => vec![here(Subject::Component { component: component.clone() })],
        Subject::Component { .. } | Subject::Worker { .. } | Subject::Connection { .. } => {
            vec![here(Subject::Topology)]
        }
        Subject::Topology => vec![name.rolled_up(cluster(), Subject::Topology)],
        Subject::ComponentStream { .. } | Subject::Nimbus { .. } => Vec::new(),
    }
}

/// All names that a metric adds to, the nearest first.
pub fn ancestors(name: &MetricName) -> Vec<MetricName> {
    let mut above = parents(name);
    let mut next = 0;
    while let Some(name) = above.get(next) {
        let more = parents(name);
        above.extend(more);
        next += 1;
    }
    above
}

/// Topology id of the cluster's metrics.
pub fn cluster() -> TopologyId {
    CLUSTER.parse().expect("the name of the cluster is an id")
}
