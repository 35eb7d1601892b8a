//! Levels of measured metrics.

use stormkeeper_metrics::{MetaType, MetricName, name::SUPERVISOR};

/// Level of a metric, and with it the begin of the names and the labels of its families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// One stream of a task.
    Stream,
    /// A task.
    Task,
    /// One stream of a component.
    ComponentStream,
    /// A component.
    Component,
    /// A topology.
    Topology,
    /// A connection of a worker.
    Connection,
    /// A worker.
    Worker,
    /// A host.
    Host,
    /// A nimbus.
    Nimbus,
}

impl Level {
    /// All levels, the lowest first.
    pub const ALL: [Self; 9] = [
        Self::Stream,
        Self::Task,
        Self::ComponentStream,
        Self::Component,
        Self::Topology,
        Self::Connection,
        Self::Worker,
        Self::Host,
        Self::Nimbus,
    ];

    /// Returns the level of a metric.
    pub fn of(name: &MetricName) -> Self {
        match name.meta() {
            MetaType::Stream => Self::Stream,
            MetaType::Task => Self::Task,
            MetaType::ComponentStream => Self::ComponentStream,
            MetaType::Component => Self::Component,
            MetaType::Topology => Self::Topology,
            MetaType::Netty => Self::Connection,
            MetaType::Worker if name.topology().as_str() == SUPERVISOR => Self::Host,
            MetaType::Worker => Self::Worker,
            MetaType::Nimbus => Self::Nimbus,
        }
    }

    /// Returns the level's word in names and labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Task => "task",
            Self::ComponentStream => "component_stream",
            Self::Component => "component",
            Self::Topology => "topology",
            Self::Connection => "connection",
            Self::Worker => "worker",
            Self::Host => "host",
            Self::Nimbus => "nimbus",
        }
    }
}
