//! What users measure themselves, task by task.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::{
    MetricName, MetricType, Registry, Subject,
    instrument::{Counter, Gauge, Histogram, Meter, Timer},
    name::{InvalidName, UDF},
    registry::Full,
};
use crate::model::{ComponentId, TaskId, TopologyId};

/// The most metrics that one task may register for its user.
pub const USER_METRICS_MAX: usize = 200;

/// The door for metrics of one task's user. Each has a name without `@` and white space; the
/// same name gives the same instrument. They are summed up over the tasks of the component, the
/// topology and the cluster, by what stands after the last dot of their names.
#[derive(Debug, Clone)]
pub struct MetricClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    topology: TopologyId,
    component: ComponentId,
    task: TaskId,
    // Guards the list of what this task registered; held during a registration.
    names: Mutex<BTreeSet<MetricName>>,
}

/// Why a metric of a user is not measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Its name cannot be one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The task has too many.
    #[error(
        "{name:?} is not measured: task {task} has registered {USER_METRICS_MAX} metrics, more are refused"
    )]
    TooMany {
        /// The name.
        name: String,
        /// The task.
        task: TaskId,
    },
    /// The process has too many.
    #[error(transparent)]
    Full(#[from] Full),
}

impl MetricClient {
    /// For the user of this task.
    pub fn new(registry: &Registry, topology: TopologyId, component: ComponentId, task: TaskId) -> Self {
        let registry = registry.clone();
        Self(Arc::new(Inner { registry, topology, component, task, names: Mutex::default() }))
    }

    /// The counter of this name.
    ///
    /// # Errors
    /// [`RegisterError`], for all kinds alike.
    pub fn register_counter(&self, name: &str) -> Result<Counter, RegisterError> {
        self.register(name, MetricType::Counter, Registry::try_counter)
    }

    /// The gauge of this name.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register_gauge(&self, name: &str) -> Result<Gauge, RegisterError> {
        self.register(name, MetricType::Gauge, Registry::try_gauge)
    }

    /// The meter of this name.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register_meter(&self, name: &str) -> Result<Meter, RegisterError> {
        self.register(name, MetricType::Meter, Registry::try_meter)
    }

    /// The histogram of this name.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register_histogram(&self, name: &str) -> Result<Histogram, RegisterError> {
        self.register(name, MetricType::Histogram, Registry::try_histogram)
    }

    /// The timer of this name.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register_timer(&self, name: &str) -> Result<Timer, RegisterError> {
        self.register(name, MetricType::Timer, Registry::try_timer)
    }

    fn register<T>(
        &self,
        name: &str,
        kind: MetricType,
        register: impl FnOnce(&Registry, MetricName) -> Result<T, Full>,
    ) -> Result<T, RegisterError> {
        let Inner { registry, topology, component, task, names } = &*self.0;
        let subject = Subject::Task { component: component.clone(), task: *task };
        let full = MetricName::new(topology.clone(), kind, subject, UDF, name)?;
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= USER_METRICS_MAX && !names.contains(&full) {
            return Err(RegisterError::TooMany { name: name.to_owned(), task: *task });
        }
        let instrument = register(registry, full.clone())?;
        names.insert(full);
        Ok(instrument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Monotonic, metrics::Control};

    fn client(registry: &Registry) -> MetricClient {
        let (topology, component) = ("t-1-1".parse().expect("an id"), "c".parse().expect("an id"));
        MetricClient::new(registry, topology, component, TaskId(3))
    }

    #[test]
    fn users_metrics_are_registered_for_their_task() {
        let registry = Registry::new(Control::default(), Monotonic::START);
        let client = client(&registry);
        client.register_counter("words").expect("a name").add(2);
        client.register_counter("words").expect("a name").add(3);
        client.register_gauge("words").expect("kinds are apart");
        client.register_meter("m").expect("a name");
        client.register_histogram("h").expect("a name");
        client.register_timer("t").expect("a name");
        let names: Vec<_> = registry.names_since(0).1.into_iter().map(|(_, name)| name.to_string()).collect();
        let kinds = ["1@1@t-1-1@c@3@@udf@words", "1@2@t-1-1@c@3@@udf@words", "1@3@t-1-1@c@3@@udf@m"];
        assert_eq!(names[..3], kinds);
        assert_eq!(registry.counters_of(TaskId(3)).counters[0].read(), 5);
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        let registry = Registry::new(Control::default(), Monotonic::START);
        let client = client(&registry);
        for bad in ["", "a@b", "a b", "a\tb", &"x".repeat(201)] {
            let refused = client.register_counter(bad);
            assert!(matches!(refused, Err(RegisterError::Name(_))), "{bad:?}: {refused:?}");
        }
        for n in 0..USER_METRICS_MAX {
            client.register_counter(&format!("n{n}")).expect("there is room");
        }
        let error = client.register_counter("more").expect_err("there is no room").to_string();
        assert!(error.contains("task 3 has registered 200 metrics"), "{error}");
        client.register_counter("n7").expect("it is there already");
    }
}
