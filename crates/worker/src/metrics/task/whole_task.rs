//! Instruments of a task as a whole.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    super::{Metrics, load::Load},
    ledger::Ledger,
};
use stormkeeper_metrics::{
    Builtin, Subject, builtin,
    instrument::{Counter, Gauge, Histogram},
};
use stormkeeper_model::{ComponentId, TaskId, clock::Clock};

/// Instruments of the task as a whole.
#[derive(Debug)]
pub(super) struct WholeTask {
    pub(super) failed: Counter,
    pub(super) executor_time: Histogram,
    pub(super) emit_time: Histogram,
    pub(super) serialize_time: Histogram,
    pub(super) deserialize_time: Histogram,
    pub(super) batch_inter_time: Histogram,
    pub(super) acker_time: Histogram,
    pub(super) serialize_queue: Gauge,
}

impl WholeTask {
    pub(super) fn new(
        metrics: &Metrics,
        component: &ComponentId,
        task: TaskId,
        load: &Arc<Load>,
        ledger: &mut Ledger,
    ) -> Self {
        let subject = Subject::Task { component: component.clone(), task };
        let name = |metric: &Builtin| metrics.name(metric, &subject);
        let histogram = |metric| metrics.registry().histogram(name(metric));
        let share = |part: fn(&Load) -> u64, whole: fn(&Load) -> u64| {
            let (load, before) = (Arc::clone(load), (AtomicU64::new(0), AtomicU64::new(0)));
            move || {
                let since =
                    |now: u64, before: &AtomicU64| now.saturating_sub(before.swap(now, Ordering::Relaxed));
                let (part, whole) = (since(part(&load), &before.0), since(whole(&load), &before.1));
                (whole > 0).then(|| (part as f64 / whole as f64).min(1.0))
            }
        };
        let empty = share(Load::n_empty_calls, Load::n_calls);
        let capacity = capacity(metrics.clock().clone(), Arc::clone(load));
        // If the registry is full, these gauges are missing; the registry counts the rejection.
        let _full = metrics.registry().gauge_fn(name(&builtin::EMPTY_CPU_RATIO), empty);
        let _full = metrics.registry().gauge_fn(name(&builtin::CAPACITY), capacity);
        Self {
            failed: ledger.counter(metrics, &builtin::FAILED, &subject),
            executor_time: histogram(&builtin::EXECUTOR_TIME),
            emit_time: histogram(&builtin::EMIT_TIME),
            serialize_time: histogram(&builtin::SERIALIZE_TIME),
            deserialize_time: histogram(&builtin::DESERIALIZE_TIME),
            batch_inter_time: histogram(&builtin::BATCH_INTER_TIME),
            acker_time: histogram(&builtin::ACKER_TIME),
            serialize_queue: metrics.registry().gauge(name(&builtin::SERIALIZE_QUEUE)),
        }
    }
}

/// Returns a function that computes the busy share of the time since its last call.
fn capacity(clock: Clock, load: Arc<Load>) -> impl Fn() -> Option<f64> {
    let (began, passed, worked) = (clock.monotonic(), AtomicU64::new(0), AtomicU64::new(0));
    let since = |now: u64, before: &AtomicU64| now.saturating_sub(before.fetch_max(now, Ordering::Relaxed));
    move || {
        let now = clock.monotonic();
        let time = since(u64::try_from(now.since(began).as_nanos()).unwrap_or(u64::MAX), &passed);
        let busy = since(load.busy_nanos(now), &worked);
        (time > 0).then(|| (busy as f64 / time as f64).min(1.0))
    }
}
