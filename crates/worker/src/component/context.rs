//! Knowledge of a component about its topology.

use std::path::Path;

use serde_json::Value;

use crate::metrics::TaskMetrics;
use stormkeeper_metrics::{
    Control, Registry, UserMetrics,
    instrument::{Counter, Gauge, Histogram, Meter, Timer},
    user::RegisterError,
};
use stormkeeper_model::{
    ComponentId, TaskId, TopologyId,
    clock::Clock,
    topology::{Settings, TaskTable, Topology},
};

/// The topology around a task, and its user metrics.
#[derive(Debug)]
pub struct TopologyContext<'a> {
    pub(super) id: &'a TopologyId,
    pub(super) topology: &'a Topology,
    pub(super) table: &'a TaskTable,
    pub(super) component: &'a ComponentId,
    pub(super) task: TaskId,
    pub(super) settings: &'a Settings,
    pub(super) resources: &'a Path,
    pub(super) credentials: &'a Path,
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a mut TaskMetrics,
}

impl TopologyContext<'_> {
    /// Id of the topology in the cluster.
    pub fn topology_id(&self) -> &TopologyId {
        self.id
    }

    /// Name that the author gave the topology.
    pub fn topology_name(&self) -> &str {
        self.topology.name.as_str()
    }

    /// The component of this task.
    pub fn component(&self) -> &ComponentId {
        self.component
    }

    /// The id of this task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// The place of this task among those of its component, from 0: to share work among them.
    pub fn task_index(&self) -> usize {
        self.tasks_of(self.component.as_str()).iter().position(|task| *task == self.task).unwrap_or(0)
    }

    /// Tasks of a component, in ascending order; none if there is no such component.
    pub fn tasks_of(&self, component: &str) -> Vec<TaskId> {
        let found = self.table.0.iter().find(|(id, _)| id.as_str() == component);
        found.map(|(_, tasks)| tasks.iter().collect()).unwrap_or_default()
    }

    /// A setting: of the component, else of the topology, else of the host, else its default.
    pub fn setting(&self, key: &str) -> Option<&Value> {
        self.settings.get(key).filter(|value| !value.is_null())
    }

    /// All settings, as [`setting`](Self::setting) finds them.
    pub fn settings(&self) -> &Settings {
        self.settings
    }

    /// Directory with the files that were submitted with the topology; it may not exist.
    pub fn resources(&self) -> &Path {
        self.resources
    }

    /// File with the credentials of the topology, a JSON object. It is replaced as a whole when they change.
    pub fn credentials_file(&self) -> &Path {
        self.credentials
    }

    /// Returns a counter of this task.
    ///
    /// # Errors
    /// [`RegisterError`] if the name is not valid or there are too many metrics.
    pub fn counter(&mut self, name: &str) -> Result<Counter, RegisterError> {
        let counter = self.user_metrics().register_counter(name)?;
        self.metrics.keep_user_counter(name);
        Ok(counter)
    }

    /// Returns a gauge of this task.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn gauge(&mut self, name: &str) -> Result<Gauge, RegisterError> {
        self.user_metrics().register_gauge(name)
    }

    /// Returns a meter of this task.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn meter(&mut self, name: &str) -> Result<Meter, RegisterError> {
        self.user_metrics().register_meter(name)
    }

    /// Returns a histogram of this task.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn histogram(&mut self, name: &str) -> Result<Histogram, RegisterError> {
        self.user_metrics().register_histogram(name)
    }

    /// Returns a timer of this task.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn timer(&mut self, name: &str) -> Result<Timer, RegisterError> {
        self.user_metrics().register_timer(name)
    }

    /// Metrics of the task; of a topology without metrics, instruments that nobody reads.
    fn user_metrics(&self) -> UserMetrics {
        self.metrics.user_client().unwrap_or_else(|| {
            let registry = Registry::new(Control::default(), self.clock.monotonic());
            UserMetrics::new(&registry, self.id.clone(), self.component.clone(), self.task)
        })
    }
}
