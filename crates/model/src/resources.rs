//! Resources that components request and supervisors offer.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ComponentId, topology::Topology};

/// Setting of a component: memory on the heap of each of its tasks, in MiB.
pub const ON_HEAP: &str = "topology.component.resources.onheap.memory.mb";

/// Setting of a component: memory off the heap of each of its tasks, in MiB. Without a JVM, the two
/// kinds of memory are added.
pub const OFF_HEAP: &str = "topology.component.resources.offheap.memory.mb";

/// Setting of a component: CPU of each of its tasks, in hundredths of a core.
pub const CPU: &str = "topology.component.cpu.pcore.percent";

/// Request of each task of a component; 0 is no demand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_mb: u64,
    /// CPU in hundredths of a core.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_percent: u64,
}

/// Requests of the components that have one.
pub type TaskRequests = BTreeMap<ComponentId, TaskRequest>;

/// Capacity that a supervisor declares; what it does not declare is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// CPU in hundredths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u64>,
}

/// A resource that can run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Memory.
    Memory,
    /// CPU.
    Cpu,
}

impl Resource {
    /// Returns an amount with its unit.
    pub fn amount(self, n: u64) -> String {
        match self {
            Self::Memory => format!("{n} MiB"),
            Self::Cpu => format!("{n} % of a core"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Cpu => "CPU",
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Capacity {
    /// Returns whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the request of each task of a component. Fractions are rounded up.
pub fn request(topology: &Topology, component: &ComponentId) -> TaskRequest {
    let amount = |key: &str| {
        topology.setting(component, key).and_then(Value::as_f64).filter(|n| *n > 0.0).unwrap_or(0.0)
    };
    TaskRequest {
        // Both are at most the maximum of the settings, which fits.
        memory_mb: (amount(ON_HEAP) + amount(OFF_HEAP)).ceil() as u64,
        cpu_percent: amount(CPU).ceil() as u64,
    }
}

/// Returns the request of each component of `topology` that has one.
pub fn requests(topology: &Topology) -> TaskRequests {
    let all = topology.components.keys().map(|component| (component.clone(), request(topology, component)));
    all.filter(|(_, request)| *request != TaskRequest::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_component_or_of_the_topology() {
        let topology = serde_json::json!({
            "name": "t",
            "settings": { CPU: 10, ON_HEAP: 128.0 },
            "components": {
                "a": { "kind": "spout", "parallelism": 1, "run": { "command": ["x"] } },
                "b": { "kind": "bolt", "parallelism": 1, "run": { "command": ["x"] },
                       "settings": { CPU: 150.5, ON_HEAP: 0, OFF_HEAP: 64.5 } },
                "c": { "kind": "bolt", "parallelism": 1, "run": { "command": ["x"] },
                       "settings": { CPU: 0, ON_HEAP: 0 } },
            },
        });
        let topology: Topology = serde_json::from_value(topology).expect("a topology");
        let id = |text: &str| -> ComponentId { text.parse().expect("valid") };
        let expected = [
            (id("a"), TaskRequest { memory_mb: 128, cpu_percent: 10 }),
            (id("b"), TaskRequest { memory_mb: 65, cpu_percent: 151 }),
        ];
        assert_eq!(requests(&topology), expected.into());
    }
}
