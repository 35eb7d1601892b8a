//! Metrics that users define and measure themselves, task by task.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::{
    MetricName, MetricType, Registry, Subject,
    instrument::{Counter, Gauge, Histogram, Meter, Timer},
    name::{InvalidName, UDF},
    registry::Full,
};
use stormkeeper_model::{ComponentId, TaskId, TopologyId};

/// Limit on user metrics of one task.
pub const USER_METRICS_MAX: usize = 200;

/// User metrics of one task. A metric name contains no `@` and no white space; the same name
/// returns the same instrument. User metrics are summed over the tasks of the component, the
/// topology and the cluster, each under its whole name.
#[derive(Debug, Clone)]
pub struct UserMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    topology: TopologyId,
    component: ComponentId,
    task: TaskId,
    // Guards the list of names that this task registered; held during a registration.
    names: Mutex<BTreeSet<MetricName>>,
}

/// Error of a registration; the metric is not measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The task has too many metrics.
    #[error(
        "{name:?} is not measured: task {task} already has {USER_METRICS_MAX} user metrics, which is the limit"
    )]
    TooMany {
        /// The rejected name.
        name: String,
        /// The task.
        task: TaskId,
    },
    /// The process has too many metrics.
    #[error(transparent)]
    Full(#[from] Full),
}

impl UserMetrics {
    /// User metrics of `task`.
    pub fn new(registry: &Registry, topology: TopologyId, component: ComponentId, task: TaskId) -> Self {
        let registry = registry.clone();
        Self(Arc::new(Inner { registry, topology, component, task, names: Mutex::default() }))
    }

    /// Returns the counter of this name; registers it if necessary.
    ///
    /// # Errors
    /// [`RegisterError`]; the same for all metric types.
    pub fn register_counter(&self, name: &str) -> Result<Counter, RegisterError> {
        self.register(name, MetricType::Counter, Registry::try_counter)
    }

    /// Returns the gauge of this name; registers it if necessary.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register_gauge(&self, name: &str) -> Result<Gauge, RegisterError> {
        self.register(name, MetricType::Gauge, Registry::try_gauge)
    }

    /// Returns the meter of this name; registers it if necessary.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register_meter(&self, name: &str) -> Result<Meter, RegisterError> {
        self.register(name, MetricType::Meter, Registry::try_meter)
    }

    /// Returns the histogram of this name; registers it if necessary.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register_histogram(&self, name: &str) -> Result<Histogram, RegisterError> {
        self.register(name, MetricType::Histogram, Registry::try_histogram)
    }

    /// Returns the timer of this name; registers it if necessary.
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
    use crate::Control;
    use stormkeeper_model::clock::Monotonic;

    fn client(registry: &Registry) -> UserMetrics {
        let (topology, component) = ("t-1-1".parse().expect("an id"), "c".parse().expect("an id"));
        UserMetrics::new(registry, topology, component, TaskId(3))
    }

    #[test]
    fn user_metrics_are_registered_for_their_task() {
        let registry = Registry::new(Control::default(), Monotonic::START);
        let client = client(&registry);
        client.register_counter("words").expect("a name").add(2);
        client.register_counter("words").expect("a name").add(3);
        client.register_gauge("words").expect("kinds have separate names");
        client.register_meter("m").expect("a name");
        client.register_histogram("h").expect("a name");
        client.register_timer("t").expect("a name");
        let names: Vec<_> = registry.names_since(0).1.into_iter().map(|(_, name)| name.to_string()).collect();
        let kinds = ["1@1@t-1-1@c@3@@udf@words", "1@2@t-1-1@c@3@@udf@words", "1@3@t-1-1@c@3@@udf@m"];
        assert_eq!(names[..3], kinds);
        assert_eq!(registry.counters_of(TaskId(3)).counters[0].read(), 5);
    }

    #[test]
    fn invalid_names_and_too_many_metrics_are_rejected() {
        let registry = Registry::new(Control::default(), Monotonic::START);
        let client = client(&registry);
        for bad in ["", "a@b", "a b", "a\tb", &"x".repeat(201)] {
            let rejected = client.register_counter(bad);
            assert!(matches!(rejected, Err(RegisterError::Name(_))), "{bad:?}: {rejected:?}");
        }
        for n in 0..USER_METRICS_MAX {
            client.register_counter(&format!("n{n}")).expect("below the limit");
        }
        let error = client.register_counter("more").expect_err("over the limit").to_string();
        assert!(error.contains("task 3 already has 200 user metrics"), "{error}");
        client.register_counter("n7").expect("registered before");
    }
}
