//! Table of the built-in metrics: name, subject, unit and meaning of each.
//!
//! `docs/metrics.md` prints this table. Code that measures a built-in metric takes the name from
//! here.

mod table;
#[cfg(test)]
mod tests;

pub use table::*;

use super::{MetaType, MetricName, MetricType, Subject, name::InvalidName};
use stormkeeper_model::TopologyId;

/// One built-in metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// Last part of the metric name.
    pub name: &'static str,
    /// Metric group.
    pub group: &'static str,
    /// Metric type.
    pub kind: MetricType,
    /// Subject of the measurement.
    pub subject: SubjectKind,
    /// Unit of the values.
    pub unit: &'static str,
    /// Meaning of the values, one or two sentences.
    pub meaning: &'static str,
    /// Aggregation of several gauges for display.
    pub shown: Shown,
    /// State without any setting that names the metric.
    pub default: DefaultState,
    /// Implementation status.
    pub status: BuiltinStatus,
}

/// Subject of a metric. The levels above follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// Each stream of each task.
    Stream,
    /// Each task.
    Task,
    /// Each worker.
    Worker,
    /// Each connection of a worker to another worker.
    Connection,
    /// Each supervisor.
    Supervisor,
    /// Each nimbus.
    Nimbus,
}

/// Aggregation of the gauges of several tasks or workers for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

/// State of a metric that no setting names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultState {
    /// Measured.
    On,
    /// Measured only if `topology.enabled.metric.names` names the metric.
    Off,
}

/// Implementation status of a built-in metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltinStatus {
    /// Measured.
    Measured,
    /// Meaningless here; the text says why, and which metric replaces it.
    NotApplicable(&'static str),
}

impl SubjectKind {
    /// The level of the measurement itself.
    pub const fn meta(self) -> MetaType {
        match self {
            Self::Stream => MetaType::Stream,
            Self::Task => MetaType::Task,
            Self::Worker | Self::Supervisor => MetaType::Worker,
            Self::Connection => MetaType::Netty,
            Self::Nimbus => MetaType::Nimbus,
        }
    }

    /// True for the metrics of workers, which a topology's settings switch.
    pub const fn is_of_topology(self) -> bool {
        match self {
            Self::Stream | Self::Task | Self::Worker | Self::Connection => true,
            Self::Supervisor | Self::Nimbus => false,
        }
    }

    /// All levels of the metric, the lowest first.
    pub const fn levels(self) -> &'static str {
        match self {
            Self::Stream => "stream, task, component-stream, component, topology, cluster",
            Self::Task => "task, component, topology, cluster",
            Self::Worker => "worker, topology, cluster",
            Self::Connection => "connection, topology, cluster",
            Self::Supervisor => "supervisor",
            Self::Nimbus => "nimbus",
        }
    }
}

impl Builtin {
    /// Full metric name for `subject`.
    ///
    /// # Errors
    /// [`InvalidName`] if the subject's host cannot be part of a name.
    pub fn of(&self, topology: TopologyId, subject: Subject) -> Result<MetricName, InvalidName> {
        MetricName::new(topology, self.kind, subject, self.group, self.name)
    }

    /// Full metric name for one of several parts of the subject, such as a connection of a worker
    /// or a component that a task receives from. The levels above do not contain `which`.
    ///
    /// # Errors
    /// [`InvalidName`] if the subject's host or `which` cannot be part of a name.
    pub fn of_one(
        &self,
        topology: TopologyId,
        subject: Subject,
        which: &str,
    ) -> Result<MetricName, InvalidName> {
        MetricName::new(topology, self.kind, subject, self.group, &format!("{which}.{}", self.name))
    }
}

/// Finds the built-in metric of a full name, on any level.
pub fn of(name: &MetricName) -> Option<&'static Builtin> {
    let place = match (name.meta(), name.topology().as_str()) {
        (MetaType::Worker, super::name::SUPERVISOR) => Some(SubjectKind::Supervisor),
        (MetaType::Nimbus, _) => Some(SubjectKind::Nimbus),
        (_, _) => None,
    };
    let fits = |builtin: &&Builtin| {
        builtin.name == name.short_name()
            && builtin.group == name.group()
            && match place {
                Some(place) => builtin.subject == place,
                None => !matches!(builtin.subject, SubjectKind::Supervisor | SubjectKind::Nimbus),
            }
    };
    ALL.iter().find(fits)
}

/// Aggregation for gauges of this name; users' gauges are summed.
pub fn shown(name: &MetricName) -> Shown {
    of(name).map_or(Shown::Sum, |builtin| builtin.shown)
}

/// True if the metric is measured only when a setting enables its name.
pub fn is_off_by_default(name: &MetricName) -> bool {
    of(name).is_some_and(|builtin| builtin.default == DefaultState::Off)
}
