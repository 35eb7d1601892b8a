//! Resource usage of the worker process and its components, read before a report.

use std::sync::Mutex;

use tracing::debug;

use super::Metrics;
use stormkeeper_metrics::{builtin, instrument::Gauge};
use stormkeeper_model::clock::Monotonic;
use stormkeeper_runtime::proc::ProcessTree;

/// Usage gauges of one worker.
#[derive(Debug)]
pub(super) struct WorkerGauges {
    metrics: Metrics,
    cpu: Gauge,
    memory: Gauge,
    threads: Gauge,
    files: Gauge,
    // Guards the last reading; held for a moment once a minute.
    before: Mutex<Option<(Monotonic, ProcessTree)>>,
}

impl WorkerGauges {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let gauge = |metric| metrics.registry().gauge(metrics.name(metric, &metrics.worker()));
        let gauges = Self {
            metrics: metrics.clone(),
            cpu: gauge(&builtin::CPU_USED_RATIO),
            memory: gauge(&builtin::MEMORY_USED),
            threads: gauge(&builtin::THREADS),
            files: gauge(&builtin::OPEN_FILES),
            before: Mutex::new(None),
        };
        gauges.read();
        gauges
    }

    /// Reads the usage and sets the gauges. Blocks for some milliseconds.
    pub(super) fn read(&self) {
        let now = self.metrics.clock().monotonic();
        let tree = match self.metrics.usage() {
            Ok(tree) => tree,
            Err(error) => return debug!(%error, "cannot read the resource usage of this worker"),
        };
        self.memory.set(tree.all.resident_bytes as f64);
        self.threads.set(tree.own.n_threads as f64);
        self.files.set(tree.own.n_descriptors as f64);
        let before = self.before.lock().expect("no one panics while reading gauges").replace((now, tree));
        if let Some((then, before)) = before {
            let passed = now.since(then).as_secs_f64();
            // The total can decrease: a component's children exited and were not waited for.
            let total = |tree: &ProcessTree| tree.all.cpu + tree.all.children_cpu;
            let worked = total(&tree).saturating_sub(total(&before)).as_secs_f64();
            if passed > 0.0 {
                self.cpu.set(100.0 * worked / passed);
            }
        }
    }
}
