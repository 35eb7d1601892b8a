//! Metrics of a worker, and their way to the leader.
//!
//! ```text
//!  task loop ─ instruments ─▶ registry ─ collect ─▶ spool ─ reporter ══ TCP ══▶ topology master
//!      └────── counter file, in the spool                                        │ (in one worker)
//!                     leader ◀──────────────────── HTTP ──────────────────────────┘
//! ```
//!
//! - [`task`] counts the work of one task, [`user`] updates the metrics of its component, and
//!   [`gauges`] reads the resource usage of the process.
//! - [`reporter`] collects a report at each end of a minute and every report period, keeps the
//!   reports in the spool until they are committed, and sends them to the current topology master.
//!   [`topology_master`] rolls the reports up and sends them to the leader. Both use the messages of
//!   [`report`].
//! - Metrics never delay a tuple: the loops count in memory and write some bytes to the page
//!   cache; separate tasks do the rest.
//!
//! With `topology.enable.metrics: false` none of this runs.

#[cfg(feature = "test-support")]
pub mod bench_support;
pub(super) mod control;
#[cfg(feature = "test-support")]
pub mod fake_worker;
mod gauges;
#[cfg(test)]
mod known_work;
mod load;
mod master_link;
pub(super) mod messages;
mod report_writer;
pub(super) mod reporter;
mod spool_index;
mod task;
#[cfg(test)]
mod tests;
pub(super) mod topology_master;
mod user;
pub(super) mod worker_metrics;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::time::Instant;

pub(super) use master_link::TcpMasterLink;
pub use master_link::{MasterAddress, MasterEnd, MasterLink};
pub(super) use task::{StreamIndex, TaskMetrics};
pub(super) use worker_metrics::WorkerMetrics;

use crate::Options;
use load::Load;
use stormkeeper_metric_shipping::spool::{self, Launch, SpoolLock};
use stormkeeper_metrics::{Builtin, Control, MetricName, Registry, Subject, UserMetrics, builtin};
use stormkeeper_model::{ComponentId, TaskId, TopologyId, clock::Clock};
use stormkeeper_runtime::proc;

/// Waits until `due`, or for ever. Cancel-safe: it only waits.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Registry, clock and spool directory of a worker's metrics. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    clock: Clock,
    launch: Launch,
    host: String,
    port: u16,
    spool: SpoolLock,
    usage: fn() -> io::Result<proc::ProcessTree>,
    times_emits: AtomicBool,
    // Guards the busy times of tasks; held for a moment when a task starts or is sampled.
    loads: Mutex<BTreeMap<TaskId, Arc<Load>>>,
}

impl Metrics {
    /// Starts the metrics: locks the spool directory below the worker's directory. Blocks.
    pub(super) fn start(options: &Options, control: Control, clock: &Clock) -> io::Result<Self> {
        let launch = Launch {
            topology: options.spec.topology.clone(),
            worker: options.spec.worker.clone(),
            started: clock.now(),
        };
        let spool = spool::lock(&options.spec.dir, &launch)?;
        let metrics = Self(Arc::new(Inner {
            registry: Registry::new(control.clone(), clock.monotonic()),
            clock: clock.clone(),
            launch,
            host: options.spec.host.clone(),
            port: options.port().0,
            spool,
            usage: options.usage,
            times_emits: AtomicBool::new(false),
            loads: Mutex::default(),
        }));
        metrics.control(&control);
        Ok(metrics)
    }

    /// Replaces the metric settings.
    pub(super) fn control(&self, control: &Control) {
        self.0.registry.control(control);
        let emit_time = self.name(&builtin::EMIT_TIME, &Subject::Topology);
        self.0.times_emits.store(control.measures(&emit_time), Ordering::Relaxed);
    }

    /// Adds the busy time of a task to those that are sampled.
    fn keep_load(&self, task: TaskId, load: &Arc<Load>) {
        self.loads().insert(task, Arc::clone(load));
    }

    /// Returns the time in which a task was busy since it started, in µs.
    pub(super) fn busy_micros(&self, task: TaskId) -> Option<u64> {
        let load = self.loads().get(&task).cloned()?;
        Some(load.busy_nanos(self.0.clock.monotonic()) / 1000)
    }

    fn loads(&self) -> MutexGuard<'_, BTreeMap<TaskId, Arc<Load>>> {
        self.0.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Reads the resource usage of this worker and its components. Blocks.
    fn usage(&self) -> io::Result<proc::ProcessTree> {
        (self.0.usage)()
    }

    fn launch(&self) -> &Launch {
        &self.0.launch
    }

    fn topology(&self) -> &TopologyId {
        &self.0.launch.topology
    }

    /// Returns the directory of the reports and of the counter files.
    fn dir(&self) -> &Path {
        &self.0.spool.dir
    }

    fn times_emits(&self) -> bool {
        self.0.times_emits.load(Ordering::Relaxed)
    }

    fn user_client(&self, component: ComponentId, task: TaskId) -> UserMetrics {
        UserMetrics::new(&self.0.registry, self.topology().clone(), component, task)
    }

    /// Returns this worker as the subject of a metric.
    pub(super) fn worker(&self) -> Subject {
        Subject::Worker { host: self.0.host.clone(), port: self.0.port }
    }

    /// Returns a connection of this worker as the subject of a metric.
    pub(super) fn connection(&self) -> Subject {
        Subject::Connection { host: self.0.host.clone(), port: self.0.port }
    }

    /// Returns the full name of a metric of `subject`.
    pub(super) fn name(&self, metric: &Builtin, subject: &Subject) -> MetricName {
        let named = metric.of(self.topology().clone(), subject.clone());
        named
            .or_else(|_invalid_host| metric.of(self.topology().clone(), with_valid_host(subject)))
            .expect("ids are parts of names, and a name of them is short")
    }

    /// Returns the full name of a metric of instance `which` of `subject`. If that name is too
    /// long, returns the name of the metric of all instances.
    pub(super) fn instance_name(&self, metric: &Builtin, subject: &Subject, which: &str) -> MetricName {
        let named = metric.of_one(self.topology().clone(), subject.clone(), which);
        named.unwrap_or_else(|_too_long| self.name(metric, subject))
    }
}

/// Returns the subject with a host name that is valid in the name of a metric.
fn with_valid_host(subject: &Subject) -> Subject {
    let valid = |host: &str| {
        let host: String =
            host.chars().filter(|c| *c != '@' && !c.is_control() && !c.is_whitespace()).take(100).collect();
        if host.is_empty() { "unknown".to_owned() } else { host }
    };
    match subject {
        Subject::Worker { host, port } => Subject::Worker { host: valid(host), port: *port },
        Subject::Connection { host, port } => Subject::Connection { host: valid(host), port: *port },
        Subject::Nimbus { host, port } => Subject::Nimbus { host: valid(host), port: *port },
        other @ (Subject::Stream { .. }
        | Subject::Task { .. }
        | Subject::ComponentStream { .. }
        | Subject::Component { .. }
        | Subject::Topology) => other.clone(),
    }
}
