//! Recent failures of supervisors, which are tried last.

use std::collections::BTreeMap;

use stormkeeper_model::{SupervisorId, TopologyId};

/// Number of recent failures of each supervisor: workers that it could not bring up, and what
/// started again and again there. The caller lets the numbers decay.
///
/// Failures are a preference and no prohibition: a supervisor with failures is used if no other has a
/// free slot, and workers that run there stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    /// Failures that concern any worker on the supervisor.
    pub of_supervisors: BTreeMap<SupervisorId, u32>,
    /// Failures that concern one topology, on each supervisor.
    pub of_topologies: BTreeMap<TopologyId, BTreeMap<SupervisorId, u32>>,
}

impl Failures {
    /// Number of failures that speak against a worker of `topology` on `supervisor`.
    pub fn against(&self, topology: &TopologyId, supervisor: &SupervisorId) -> u32 {
        let general = self.of_supervisors.get(supervisor).copied().unwrap_or(0);
        let own = self.of_topologies.get(topology).and_then(|counts| counts.get(supervisor));
        general.saturating_add(own.copied().unwrap_or(0))
    }
}
