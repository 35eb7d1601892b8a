//! The author's topology: components, streams and groupings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{
    ComponentId, StreamId, TaskId, TopologyName,
    platform::Program,
    task_set::{MAX_TASKS, TaskSet},
};

/// Settings by Storm key, unchanged: components receive them in their handshake, so the values
/// keep the shape that the author gave them.
pub type Settings = BTreeMap<String, serde_json::Value>;

/// A graph of spouts and bolts. [`crate::validate`] checks whether it can run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// Name that the author gave the topology.
    pub name: TopologyName,
    /// `topology.*` settings and any other settings that components read.
    #[serde(default)]
    pub settings: Settings,
    /// Spouts and bolts by id.
    pub components: BTreeMap<ComponentId, Component>,
    /// The author's program, which is the worker; without one, the supervisor's own program is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// Keys of those settings that the command line of the submission gave (`-c`), for people: they are in
    /// [`Topology::settings`] with the others.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub given_at_submission: BTreeSet<String>,
}

/// A spout or a bolt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Spout or bolt.
    pub kind: ComponentKind,
    /// Number of tasks.
    pub parallelism: u32,
    /// Program that each task starts.
    pub run: Run,
    /// Streams that the component emits, with their fields.
    #[serde(default)]
    pub outputs: BTreeMap<StreamId, StreamDeclaration>,
    /// Streams that the component receives; empty for a spout.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// Settings of this component alone; they override the topology's.
    #[serde(default)]
    pub settings: Settings,
}

/// Kind of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    /// Brings tuples into the topology.
    Spout,
    /// Receives tuples and may emit further tuples.
    Bolt,
}

/// Implementation of a component's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Run {
    /// A command that speaks Storm's multilang protocol over its stdin and stdout, started in the
    /// topology's unpacked `resources/`.
    Command(Vec<String>),
    /// Code in the topology's own worker program ([`Topology::program`]), which has it under the id of
    /// the component.
    #[serde(rename = "in_worker")]
    InWorker,
}

/// A stream that a component emits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDeclaration {
    /// Field names of its tuples, in order.
    pub fields: Vec<String>,
    /// True if the emitter names the receiving task of every tuple (direct stream).
    #[serde(default)]
    pub direct: bool,
}

/// A stream that a bolt receives, and how its tuples are distributed to the bolt's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The emitting component.
    pub from: ComponentId,
    /// The stream of the emitting component.
    pub stream: StreamId,
    /// Distribution of tuples to the receiving tasks.
    pub grouping: Grouping,
}

/// Distribution of the tuples of a stream to the tasks of a receiving bolt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "fields")]
pub enum Grouping {
    /// Evenly, at random.
    Shuffle,
    /// Evenly over the tasks in the emitter's own worker, or over all tasks if it has none.
    LocalOrShuffle,
    /// Tuples with equal values of these fields always go to the same task.
    Fields(Vec<String>),
    /// Tuples with equal values of these fields go to the same two tasks, to the one of them that the
    /// emitter has sent fewer tuples.
    PartialKey(Vec<String>),
    /// Every task receives every tuple.
    All,
    /// The task with the lowest id receives every tuple.
    Global,
    /// No preference; distributed like shuffle.
    None,
    /// The emitter names the receiving task.
    Direct,
}

/// Ackers of a topology whose tuple trees are tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ackers {
    /// Each worker has one.
    PerWorker,
    /// The first workers of the assignment have one each, at most this many; at least 1.
    Count(u32),
}

impl Ackers {
    /// Setting of the number of ackers: unset for one per worker, 0 for none.
    pub const SETTING: &str = "topology.acker.executors";

    /// Returns the ackers that a value of the setting asks for.
    pub fn of_setting(value: Option<&serde_json::Value>) -> Option<Self> {
        match value.and_then(serde_json::Value::as_u64).map(|n| u32::try_from(n).unwrap_or(u32::MAX)) {
            None => Some(Self::PerWorker),
            Some(0) => None,
            Some(n) => Some(Self::Count(n)),
        }
    }
}

impl Topology {
    /// Returns a setting of a component: its own value, else the topology's.
    pub fn setting(&self, component: &ComponentId, key: &str) -> Option<&serde_json::Value> {
        self.components
            .get(component)
            .and_then(|component| component.settings.get(key))
            .or_else(|| self.settings.get(key))
    }

    /// Returns how `table` contradicts the topology, if it does: each component has tasks, and nothing
    /// else does.
    pub fn contradiction(&self, table: &TaskTable) -> Option<String> {
        let unknown = table.0.keys().find(|id| !self.components.contains_key(*id));
        let idle = self.components.keys().find(|id| table.0.get(*id).is_none_or(TaskSet::is_empty));
        match (unknown, idle) {
            (Some(unknown), _) => Some(format!("the topology has no component {unknown}")),
            (None, Some(idle)) => Some(format!("the component {idle} of the topology has no tasks")),
            (None, None) => None,
        }
    }

    /// Returns a setting of the topology, if it is a non-negative integer.
    pub fn whole_number(&self, key: &str) -> Option<u64> {
        self.settings.get(key).and_then(serde_json::Value::as_u64)
    }

    /// Returns the number of worker processes that the author requested; one by default.
    pub fn wanted_workers(&self) -> u32 {
        self.whole_number("topology.workers").and_then(|n| u32::try_from(n).ok()).unwrap_or(1).max(1)
    }
}

/// Tasks of each component. Fixed between rebalances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TaskTable(pub BTreeMap<ComponentId, TaskSet>);

impl<'de> Deserialize<'de> for TaskTable {
    /// Counts the tasks while it reads: a table of a few bytes can list a million of them for each
    /// component.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Tasks;
        impl<'de> Visitor<'de> for Tasks {
            type Value = TaskTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tasks by component")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TaskTable, A::Error> {
                let (mut table, mut n_tasks, mut seen) = (BTreeMap::new(), 0, BTreeSet::new());
                while let Some((component, tasks)) = map.next_entry::<ComponentId, TaskSet>()? {
                    n_tasks += tasks.len();
                    if n_tasks > MAX_TASKS as usize {
                        return Err(A::Error::custom(format!("there are more than {MAX_TASKS} tasks")));
                    }
                    if let Some(task) = tasks.iter().find(|task| !seen.insert(*task)) {
                        return Err(A::Error::custom(format!("task {task} is listed twice")));
                    }
                    if table.contains_key(&component) {
                        return Err(A::Error::custom(format!("component {component} is listed twice")));
                    }
                    table.insert(component, tasks);
                }
                if n_tasks == 0 {
                    return Err(A::Error::custom("there are no tasks"));
                }
                Ok(TaskTable(table))
            }
        }
        from.deserialize_map(Tasks)
    }
}

impl TaskTable {
    /// Numbers the tasks from 1, component by component in the order of their ids.
    pub fn number(components: impl IntoIterator<Item = (ComponentId, u32)>) -> Self {
        let mut next = 1;
        let table = components.into_iter().map(|(component, parallelism)| {
            let first = next;
            next += parallelism;
            (component, TaskSet::range(first, next - 1))
        });
        Self(table.collect())
    }

    /// Returns the component of `task`.
    pub fn component_of(&self, task: TaskId) -> Option<&ComponentId> {
        self.0.iter().find(|(_, tasks)| tasks.contains(task)).map(|(component, _)| component)
    }

    /// Returns every task with its component, in ascending order of component and task.
    pub fn iter(&self) -> impl Iterator<Item = (&ComponentId, TaskId)> {
        self.0.iter().flat_map(|(component, tasks)| tasks.iter().map(move |task| (component, task)))
    }

    /// Returns all tasks.
    pub fn tasks(&self) -> TaskSet {
        self.0.values().flat_map(TaskSet::iter).collect()
    }

    /// Returns the number of tasks.
    pub fn n_tasks(&self) -> usize {
        self.0.values().map(TaskSet::len).sum()
    }

    /// Returns the number of tasks of the [`resized`](Self::resized) table, without making it: a request may
    /// ask for thousands of millions.
    pub fn n_resized(&self, wanted: &BTreeMap<ComponentId, u32>) -> u64 {
        let of = |(component, tasks): (&ComponentId, &TaskSet)| {
            wanted.get(component).map_or(tasks.len() as u64, |n| u64::from(*n))
        };
        self.0.iter().map(of).sum()
    }

    /// Returns the table with another number of tasks for some components: remaining tasks keep
    /// their numbers, and new tasks are numbered after the highest number in this table.
    pub fn resized(&self, wanted: &BTreeMap<ComponentId, u32>) -> Self {
        let mut next =
            self.0.values().filter_map(|tasks| tasks.iter().next_back()).max().map_or(1, |t| t.0 + 1);
        let mut table = self.0.clone();
        for (component, tasks) in &mut table {
            let Some(&wanted) = wanted.get(component) else { continue };
            let wanted = wanted as usize;
            let kept: TaskSet = tasks.iter().take(wanted).collect();
            let n_new = u32::try_from(wanted - kept.len()).expect("at most the wanted count, a u32");
            *tasks = kept.iter().chain((next..next + n_new).map(TaskId)).collect();
            next += n_new;
        }
        Self(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ComponentId {
        text.parse().expect("valid id")
    }

    #[test]
    fn tasks_are_numbered_from_one() {
        let table = TaskTable::number([(id("a"), 2), (id("b"), 3)]);
        assert_eq!(table.0[&id("a")].to_string(), "1-2");
        assert_eq!(table.0[&id("b")].to_string(), "3-5");
        assert_eq!(table.component_of(TaskId(3)), Some(&id("b")));
        assert_eq!(table.component_of(TaskId(6)), None);
    }

    #[test]
    fn table_with_too_many_tasks_is_rejected_at_the_first_surplus_component() {
        let entries: Vec<String> = (0..10_000).map(|n| format!("\"c{n}\":\"1-1000000\"")).collect();
        let text = format!("{{{}}}", entries.join(","));
        let error = serde_json::from_str::<TaskTable>(&text).expect_err("too many tasks").to_string();
        assert!(error.starts_with("there are more than 1000000 tasks at line 1 column 3"), "{error}");
    }

    #[test]
    fn table_without_tasks_or_with_one_or_a_component_twice_is_rejected() {
        for (text, reason) in [
            (r#"{"count":"1-4","sentences":"4"}"#, "task 4 is listed twice"),
            (r#"{"count":"1-4","count":"5"}"#, "component count is listed twice"),
            ("{}", "there are no tasks"),
        ] {
            let error = serde_json::from_str::<TaskTable>(text).expect_err("invalid").to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn resizing_keeps_the_numbers_of_remaining_tasks() {
        let table = TaskTable::number([(id("a"), 2), (id("b"), 3)]);
        let resized = table.resized(&[(id("a"), 4), (id("b"), 1)].into());
        assert_eq!(resized.0[&id("a")].to_string(), "1-2,6-7");
        assert_eq!(resized.0[&id("b")].to_string(), "3");
        assert_eq!(resized.n_tasks(), 5);
    }
}
