//! Full metric names: level, type, topology, subject, group and last part.
//!
//! ```text
//! metaType@metricType@topologyId@componentId@taskId@streamId@metricGroup@metricName   8 parts
//! metaType@metricType@topologyId@host@port@metricGroup@metricName                     7 parts
//! ```
//!
//! The types are JStorm's numbers. Its other spelling, with both types as two letters in one
//! part (`SC@…`), is parsed as well; names are always written with numbers.

mod pattern;

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use pattern::matches_pattern;
use stormkeeper_model::{ComponentId, StreamId, TaskId, TopologyId, id::quoted};

/// Maximum length of a full name.
pub const MAX_NAME_BYTES: usize = 1024;

/// Maximum length of a group and of a last part.
pub const MAX_PART_BYTES: usize = 200;

/// Level of a metric: the kind of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MetaType {
    /// A task: the sum of its streams, or measured for the task as a whole.
    Task,
    /// A component: all of its tasks.
    Component,
    /// One stream of one task.
    Stream,
    /// A worker or a supervisor.
    Worker,
    /// A topology, or the cluster, which is called `__CLUSTER__`.
    Topology,
    /// A connection between workers, which JStorm calls netty.
    Netty,
    /// A nimbus.
    Nimbus,
    /// One stream of a component: all of its tasks.
    ComponentStream,
}

/// Type of the values of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MetricType {
    /// Number of events. Exact.
    Counter,
    /// Current value.
    Gauge,
    /// Events per second.
    Meter,
    /// Distribution of values.
    Histogram,
    /// Distribution of durations, and events per second.
    Timer,
}

/// Subject of a metric: the entity that is measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// One stream of one task.
    Stream {
        /// The task's component.
        component: ComponentId,
        /// The task's id.
        task: TaskId,
        /// The stream.
        stream: StreamId,
    },
    /// A task.
    Task {
        /// The task's component.
        component: ComponentId,
        /// The task's id.
        task: TaskId,
    },
    /// One stream of all tasks of a component.
    ComponentStream {
        /// The component.
        component: ComponentId,
        /// The stream.
        stream: StreamId,
    },
    /// A component.
    Component {
        /// The component.
        component: ComponentId,
    },
    /// A worker, or a supervisor (then the topology is `__SUPERVISOR__` and the port is 0).
    Worker {
        /// The worker's host.
        host: String,
        /// The worker's port.
        port: u16,
    },
    /// A connection of a worker; the metric's last part names the connection.
    Connection {
        /// The worker's host.
        host: String,
        /// The worker's port.
        port: u16,
    },
    /// A topology, or the cluster (then the topology is `__CLUSTER__`).
    Topology,
    /// A nimbus (the topology is `__NIMBUS__`).
    Nimbus {
        /// The nimbus' host.
        host: String,
        /// The port of its API.
        port: u16,
    },
}

/// Topology name in metrics of the cluster.
pub const CLUSTER: &str = "__CLUSTER__";
/// Topology name in metrics of nimbuses.
pub const NIMBUS: &str = "__NIMBUS__";
/// Topology name in metrics of supervisors.
pub const SUPERVISOR: &str = "__SUPERVISOR__";

/// Returns true if `id` names the metrics of daemons or of the cluster, and not a topology.
pub fn is_system_topology(id: &TopologyId) -> bool {
    [CLUSTER, NIMBUS, SUPERVISOR].contains(&id.as_str())
}

/// Group of the metrics that every worker measures.
pub const SYS: &str = "sys";
/// Group of user metrics.
pub const UDF: &str = "udf";
/// Group of connection metrics.
pub const NETTY: &str = "netty";

/// The full name of a metric. Unique in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MetricName {
    topology: TopologyId,
    kind: MetricType,
    subject: Subject,
    group: String,
    name: String,
}

/// A text that is not the full name of a metric.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a metric name: {reason}", quoted(text))]
pub struct InvalidName {
    /// The rejected text.
    pub text: String,
    /// The rule that the text breaks.
    pub reason: String,
}

impl MetaType {
    /// All levels, by number.
    pub const ALL: [Self; 8] = [
        Self::Task,
        Self::Component,
        Self::Stream,
        Self::Worker,
        Self::Topology,
        Self::Netty,
        Self::Nimbus,
        Self::ComponentStream,
    ];

    /// JStorm's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Task => 1,
            Self::Component => 2,
            Self::Stream => 3,
            Self::Worker => 4,
            Self::Topology => 5,
            Self::Netty => 6,
            Self::Nimbus => 7,
            Self::ComponentStream => 8,
        }
    }

    /// JStorm's letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Task => 'T',
            Self::Component => 'C',
            Self::Stream => 'S',
            Self::Worker => 'W',
            Self::Topology => 'P',
            Self::Netty => 'N',
            Self::Nimbus => 'M',
            Self::ComponentStream => 'O',
        }
    }

    /// The level's name in the API, the command line and configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Component => "component",
            Self::Stream => "stream",
            Self::Worker => "worker",
            Self::Topology => "topology",
            Self::Netty => "netty",
            Self::Nimbus => "nimbus",
            Self::ComponentStream => "component-stream",
        }
    }
}

impl MetricType {
    /// All types, by number.
    pub const ALL: [Self; 5] = [Self::Counter, Self::Gauge, Self::Meter, Self::Histogram, Self::Timer];

    /// JStorm's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Counter => 1,
            Self::Gauge => 2,
            Self::Meter => 3,
            Self::Histogram => 4,
            Self::Timer => 5,
        }
    }

    /// JStorm's letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Counter => 'C',
            Self::Gauge => 'G',
            Self::Meter => 'M',
            Self::Histogram => 'H',
            Self::Timer => 'T',
        }
    }

    /// The type's name in the API and the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Meter => "meter",
            Self::Histogram => "histogram",
            Self::Timer => "timer",
        }
    }
}

impl MetricName {
    /// Builds a name from its parts.
    ///
    /// # Errors
    /// [`InvalidName`] if a part is empty where it must not be, too long, or contains `@`, white
    /// space or a control character.
    pub fn new(
        topology: TopologyId,
        kind: MetricType,
        subject: Subject,
        group: &str,
        name: &str,
    ) -> Result<Self, InvalidName> {
        let made = Self { topology, kind, subject, group: group.to_owned(), name: name.to_owned() };
        let fail = |reason: String| Err(InvalidName { text: made.to_string(), reason });
        let host = match &made.subject {
            Subject::Worker { host, .. }
            | Subject::Connection { host, .. }
            | Subject::Nimbus { host, .. } => Some(host.as_str()),
            Subject::Stream { .. }
            | Subject::Task { .. }
            | Subject::ComponentStream { .. }
            | Subject::Component { .. }
            | Subject::Topology => None,
        };
        for (what, part) in
            host.map(|host| ("host", host)).into_iter().chain([("group", group), ("name", name)])
        {
            if part.is_empty() {
                return fail(format!("its {what} is empty"));
            }
            if part.len() > MAX_PART_BYTES {
                return fail(format!("its {what} is longer than {MAX_PART_BYTES} bytes"));
            }
            if part.chars().any(|c| c == '@' || c.is_control() || c.is_whitespace()) {
                return fail(format!("its {what} contains @, white space or a control character"));
            }
        }
        if made.to_string().len() > MAX_NAME_BYTES {
            return fail(format!("it is longer than {MAX_NAME_BYTES} bytes"));
        }
        Ok(made)
    }

    /// Returns the name of the same metric for another subject, under the same or another
    /// topology. Of the last part only the [short name](Self::short_name) is kept.
    pub fn rolled_up(&self, topology: TopologyId, subject: Subject) -> Self {
        let name = self.short_name().to_owned();
        Self { topology, subject, kind: self.kind, group: self.group.clone(), name }
    }

    /// Returns the same name with another type.
    pub fn of_kind(mut self, kind: MetricType) -> Self {
        self.kind = kind;
        self
    }

    /// Suffix of the last part that identifies the metric on the levels above and in the switches
    /// of live control: the text after the last dot, so `count.RecvTps` is `RecvTps`. The whole
    /// part of a user metric, whose dots are its author's, and if the text after the dot is empty.
    pub fn short_name(&self) -> &str {
        match self.name.rsplit_once('.') {
            Some((_, short)) if !short.is_empty() && self.group != UDF => short,
            Some(_) | None => &self.name,
        }
    }

    /// The metric's topology.
    pub fn topology(&self) -> &TopologyId {
        &self.topology
    }

    /// The metric's level.
    pub fn meta(&self) -> MetaType {
        match self.subject {
            Subject::Stream { .. } => MetaType::Stream,
            Subject::Task { .. } => MetaType::Task,
            Subject::ComponentStream { .. } => MetaType::ComponentStream,
            Subject::Component { .. } => MetaType::Component,
            Subject::Worker { .. } => MetaType::Worker,
            Subject::Connection { .. } => MetaType::Netty,
            Subject::Topology => MetaType::Topology,
            Subject::Nimbus { .. } => MetaType::Nimbus,
        }
    }

    /// The metric's type.
    pub fn kind(&self) -> MetricType {
        self.kind
    }

    /// The metric's subject.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The metric's group: [`SYS`], [`UDF`] or [`NETTY`].
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The last part of the name, such as `Emitted`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}@{}@", self.meta().number(), self.kind.number(), self.topology)?;
        match &self.subject {
            Subject::Stream { component, task, stream } => write!(f, "{component}@{task}@{stream}")?,
            Subject::Task { component, task } => write!(f, "{component}@{task}@")?,
            Subject::ComponentStream { component, stream } => write!(f, "{component}@0@{stream}")?,
            Subject::Component { component } => write!(f, "{component}@0@")?,
            Subject::Worker { host, port }
            | Subject::Connection { host, port }
            | Subject::Nimbus { host, port } => write!(f, "{host}@{port}")?,
            Subject::Topology => f.write_str("@0")?,
        }
        write!(f, "@{}@{}", self.group, self.name)
    }
}

impl From<MetricName> for String {
    fn from(name: MetricName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for MetricName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl FromStr for MetricName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fail = |reason: String| InvalidName { text: text.to_owned(), reason };
        let parts: Vec<&str> = text.split('@').collect();
        let (meta, kind, rest) = types(&parts).map_err(fail)?;
        let (topology, rest) =
            rest.split_first().ok_or_else(|| fail("it ends after its types".to_owned()))?;
        let topology = topology.parse().map_err(|error| fail(format!("{error}")))?;
        let (subject, group, name) = subject(meta, rest).map_err(fail)?;
        Self::new(topology, kind, subject, group, name)
    }
}

/// Parses the two types at the start of a name, in either spelling; returns the remaining parts.
fn types<'a>(parts: &'a [&'a str]) -> Result<(MetaType, MetricType, &'a [&'a str]), String> {
    if let [both, rest @ ..] = parts
        && let [meta, kind] = both.chars().collect::<Vec<_>>()[..]
        && both.chars().all(char::is_alphabetic)
    {
        let meta = MetaType::ALL.into_iter().find(|known| known.letter() == meta);
        let kind = MetricType::ALL.into_iter().find(|known| known.letter() == kind);
        return match (meta, kind) {
            (Some(meta), Some(kind)) => Ok((meta, kind, rest)),
            (_, _) => Err(format!("{} are not the letters of a meta type and a metric type", quoted(both))),
        };
    }
    let [meta, kind, rest @ ..] = parts else { return Err("it has too few parts".to_owned()) };
    let meta = MetaType::ALL.into_iter().find(|known| known.number().to_string() == *meta);
    let kind = MetricType::ALL.into_iter().find(|known| known.number().to_string() == *kind);
    match (meta, kind) {
        (Some(meta), Some(kind)) => Ok((meta, kind, rest)),
        (None, _) => Err("its first part is not a meta type, 1 to 8".to_owned()),
        (Some(_), None) => Err("its second part is not a metric type, 1 to 5".to_owned()),
    }
}

/// Parses the parts after the topology.
fn subject<'a>(meta: MetaType, parts: &[&'a str]) -> Result<(Subject, &'a str, &'a str), String> {
    let text = |error: stormkeeper_model::id::InvalidId| error.to_string();
    match meta {
        MetaType::Task | MetaType::Component | MetaType::Stream | MetaType::ComponentStream => {
            let [component, task, stream, group, name] = *parts else {
                return Err(format!("a {} has 5 parts after its topology", meta.word()));
            };
            let component: ComponentId = component.parse().map_err(text)?;
            let number =
                || task.parse().map(TaskId).map_err(|_| format!("{} is not a task id", quoted(task)));
            let has_no_task = task.is_empty() || task == "0";
            let subject = match meta {
                MetaType::Task if stream.is_empty() => Subject::Task { component, task: number()? },
                MetaType::Stream => {
                    Subject::Stream { component, task: number()?, stream: stream.parse().map_err(text)? }
                }
                MetaType::Component if has_no_task && stream.is_empty() => Subject::Component { component },
                MetaType::ComponentStream if has_no_task => {
                    Subject::ComponentStream { component, stream: stream.parse().map_err(text)? }
                }
                _ => return Err(format!("the task or stream does not fit a {}", meta.word())),
            };
            Ok((subject, group, name))
        }
        MetaType::Worker | MetaType::Topology | MetaType::Netty | MetaType::Nimbus => {
            let [host, port, group, name] = *parts else {
                return Err(format!("a {} has 4 parts after its topology", meta.word()));
            };
            let number = || port.parse().map_err(|_| format!("{} is not a port", quoted(port)));
            let subject = match meta {
                MetaType::Worker => Subject::Worker { host: host.to_owned(), port: number()? },
                MetaType::Netty => Subject::Connection { host: host.to_owned(), port: number()? },
                MetaType::Nimbus => Subject::Nimbus { host: host.to_owned(), port: number()? },
                _ if host.is_empty() && (port.is_empty() || port == "0") => Subject::Topology,
                _ => return Err("a topology has no host and no port".to_owned()),
            };
            Ok((subject, group, name))
        }
    }
}
