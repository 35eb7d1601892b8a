//! Measuring, and getting what was measured to the leader.
//!
//! ```text
//!  task loop ─ instruments ─▶ registry ─ cut ─▶ files ─ reporter ══ TCP ══▶ topology master ─ HTTP ─▶ leader
//!      └────── counters' file (see `rpc::reports`)    ◀── safe ──────────────────────┘ (in one worker)
//! ```
//!
//! - [`task`] counts what one task does, [`user`] what its component says of itself, and
//!   [`gauges`] reads what the process uses.
//! - [`reporter`] reports at each end of a minute and every report period, keeps the reports until they
//!   are safe, and brings them to the master of the moment. [`master`] rolls them up and brings
//!   them to the leader. They speak [`report`].
//! - Nothing here holds up a tuple: the loops count in memory and write some bytes to the page
//!   cache; the rest is tasks of its own.
//!
//! With `topology.enable.metrics: false` there is nothing of all this.

pub(super) mod control;
#[cfg(feature = "test-support")]
pub mod flow;
mod gauges;
pub(super) mod master;
pub(super) mod measuring;
pub(super) mod report;
pub(super) mod reporter;
mod shelf;
mod task;
#[cfg(test)]
mod tests;
mod user;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub(super) use measuring::Measuring;
pub(super) use task::{Source, TaskMetrics};

use crate::Options;
use stormkeeper_metric_shipping::spool::{self, Launch, SpoolLock};
use stormkeeper_metrics::{Builtin, Control, MetricName, Registry, Subject, UserMetrics, builtin};
use stormkeeper_model::{ComponentId, TaskId, TopologyId, clock::Clock};

/// What all parts of a worker measure with. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    clock: Clock,
    launch: Launch,
    host: String,
    port: u16,
    taken: SpoolLock,
    times_emits: AtomicBool,
}

impl Metrics {
    /// Begins to measure: takes the metrics' directory below the worker's own. Blocks.
    pub(super) fn start(options: &Options, control: Control, clock: &Clock) -> io::Result<Self> {
        let launch = Launch {
            topology: options.topology.clone(),
            worker: options.worker.clone(),
            started: clock.now(),
        };
        let taken = spool::lock(&options.dir, &launch)?;
        let metrics = Self(Arc::new(Inner {
            registry: Registry::new(control.clone(), clock.monotonic()),
            clock: clock.clone(),
            launch,
            host: options.host.clone(),
            port: options.port().0,
            taken,
            times_emits: AtomicBool::new(false),
        }));
        metrics.control(&control);
        Ok(metrics)
    }

    /// Measures other things from now on.
    pub(super) fn control(&self, control: &Control) {
        self.0.registry.control(control);
        let emit_time = self.name(&builtin::EMIT_TIME, &Subject::Topology);
        self.0.times_emits.store(control.measures(&emit_time), Ordering::Relaxed);
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn launch(&self) -> &Launch {
        &self.0.launch
    }

    fn topology(&self) -> &TopologyId {
        &self.0.launch.topology
    }

    /// Where reports and counters are kept.
    fn dir(&self) -> &Path {
        &self.0.taken.dir
    }

    fn times_emits(&self) -> bool {
        self.0.times_emits.load(Ordering::Relaxed)
    }

    fn user_client(&self, component: ComponentId, task: TaskId) -> UserMetrics {
        UserMetrics::new(&self.0.registry, self.topology().clone(), component, task)
    }

    /// This worker, as what is measured.
    pub(super) fn worker(&self) -> Subject {
        Subject::Worker { host: self.0.host.clone(), port: self.0.port }
    }

    /// A connection of this worker.
    pub(super) fn connection(&self) -> Subject {
        Subject::Connection { host: self.0.host.clone(), port: self.0.port }
    }

    /// The full name of a metric of `subject`.
    pub(super) fn name(&self, metric: &Builtin, subject: &Subject) -> MetricName {
        let named = metric.of(self.topology().clone(), subject.clone());
        named
            .or_else(|_host_is_no_part_of_a_name| metric.of(self.topology().clone(), nameable(subject)))
            .expect("ids are parts of names, and a name of them is short")
    }

    /// The full name of a metric of one of several of `subject`; where that would be too long, of
    /// all of them together.
    pub(super) fn name_of_one(&self, metric: &Builtin, subject: &Subject, which: &str) -> MetricName {
        let named = metric.of_one(self.topology().clone(), subject.clone(), which);
        named.unwrap_or_else(|_too_long| self.name(metric, subject))
    }
}

/// The same subject at a host whose name can stand in a metric's.
fn nameable(subject: &Subject) -> Subject {
    let fitting = |host: &str| {
        let host: String =
            host.chars().filter(|c| *c != '@' && !c.is_control() && !c.is_whitespace()).take(100).collect();
        if host.is_empty() { "unknown".to_owned() } else { host }
    };
    match subject {
        Subject::Worker { host, port } => Subject::Worker { host: fitting(host), port: *port },
        Subject::Connection { host, port } => Subject::Connection { host: fitting(host), port: *port },
        Subject::Nimbus { host, port } => Subject::Nimbus { host: fitting(host), port: *port },
        other @ (Subject::Stream { .. }
        | Subject::Task { .. }
        | Subject::ComponentStream { .. }
        | Subject::Component { .. }
        | Subject::Topology) => other.clone(),
    }
}
