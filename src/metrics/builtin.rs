//! Every metric that the system itself measures: what it is called, what of, what it means.
//!
//! `docs/metrics.md` prints this table. Whoever measures one takes its name from here.

mod table;
#[cfg(test)]
mod tests;

pub use table::*;

use super::{MetaType, MetricName, MetricType, Subject, name::InvalidName};
use crate::model::TopologyId;

/// One metric that the system measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// The last part of its name.
    pub name: &'static str,
    /// Its group.
    pub group: &'static str,
    /// What kind of numbers it gives.
    pub kind: MetricType,
    /// What it is measured of.
    pub of: Of,
    /// In what its values are.
    pub unit: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What is shown of gauges of several.
    pub shown: Shown,
    /// Whether it is measured without being enabled by name.
    pub default: Default,
    /// Whether it is measured at all.
    pub status: Status,
}

/// What a metric is measured of. The levels above follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Each stream of each task.
    Stream,
    /// Each task.
    Task,
    /// Each worker.
    Worker,
    /// Each connection of a worker to another one.
    Connection,
    /// Each supervisor.
    Supervisor,
    /// Each nimbus.
    Nimbus,
}

/// How gauges of several tasks or workers show as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As their sum.
    Sum,
    /// As their mean.
    Mean,
}

/// Whether a metric is measured without being enabled by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// It is.
    On,
    /// `topology.enabled.metric.names` must name it.
    Off,
}

/// Whether a metric is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is.
    Measured,
    /// It will be when tuple trees are tracked.
    WaitsForTracking,
    /// It has no meaning here; what stands for it.
    NotApplicable(&'static str),
}

impl Of {
    /// The level that it is measured on.
    pub const fn meta(self) -> MetaType {
        match self {
            Self::Stream => MetaType::Stream,
            Self::Task => MetaType::Task,
            Self::Worker | Self::Supervisor => MetaType::Worker,
            Self::Connection => MetaType::Netty,
            Self::Nimbus => MetaType::Nimbus,
        }
    }

    /// Where it shows, the lowest level first.
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
    /// Its full name for a subject.
    ///
    /// # Errors
    /// [`InvalidName`] when the subject's host is no part of a name.
    pub fn of(&self, topology: TopologyId, subject: Subject) -> Result<MetricName, InvalidName> {
        MetricName::new(topology, self.kind, subject, self.group, self.name)
    }

    /// Its full name for one of several of the subject, such as a connection of a worker or a
    /// component that a task receives from. `which` is left out on the levels above.
    ///
    /// # Errors
    /// [`InvalidName`] when the subject's host or `which` is no part of a name.
    pub fn of_one(
        &self,
        topology: TopologyId,
        subject: Subject,
        which: &str,
    ) -> Result<MetricName, InvalidName> {
        MetricName::new(topology, self.kind, subject, self.group, &format!("{which}.{}", self.name))
    }
}

/// The built-in metric that a name is of, on whatever level.
pub fn of(name: &MetricName) -> Option<&'static Builtin> {
    let place = match (name.meta(), name.topology().as_str()) {
        (MetaType::Worker, super::name::SUPERVISOR) => Some(Of::Supervisor),
        (MetaType::Nimbus, _) => Some(Of::Nimbus),
        (_, _) => None,
    };
    let fits = |builtin: &&Builtin| {
        builtin.name == name.short_name()
            && builtin.group == name.group()
            && match place {
                Some(place) => builtin.of == place,
                None => !matches!(builtin.of, Of::Supervisor | Of::Nimbus),
            }
    };
    ALL.iter().find(fits)
}

/// What is shown of a gauge of this name: of users' gauges the sum.
pub fn shown(name: &MetricName) -> Shown {
    of(name).map_or(Shown::Sum, |builtin| builtin.shown)
}

/// Whether it is measured only when it is enabled by name.
pub fn is_off_by_default(name: &MetricName) -> bool {
    of(name).is_some_and(|builtin| builtin.default == Default::Off)
}
