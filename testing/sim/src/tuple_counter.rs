//! Random counts of the tasks of a fake worker: in the instruments of the real worker, and in the
//! journal, from which the invariants know what the metric stores must have.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    counters::{Counts, TaskCounts},
    machine::Machine,
    model::MachineEvent,
    worker::FakeWorker,
};
use stormkeeper_model::{ComponentId, StreamId, TaskId, task_set::TaskSet, topology::TaskTable};
use stormkeeper_topology_package::launch::LaunchSpec;
use stormkeeper_worker::fake_worker::{FakeTaskMetrics, FakeWorkerCounter, FakeWorkerMetrics};

/// Bounds of the pause between two counts of one worker.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Bounds of the counts.
const EMITTED_MAX: u64 = 30;
const FAILED_MAX: u64 = 3;

/// Counter of one fake worker.
pub(super) struct TupleCounter {
    machine: Arc<Machine>,
    pid: u32,
    spec: LaunchSpec,
    random: fastrand::Rng,
    tasks: Vec<(ComponentId, TaskId, FakeTaskMetrics)>,
    own: FakeWorkerCounter,
}

impl TupleCounter {
    pub(super) fn new(
        worker: &mut FakeWorker,
        metrics: &FakeWorkerMetrics,
        own: &TaskSet,
        table: &TaskTable,
    ) -> Self {
        let task = |task: TaskId| {
            let component = table.component_of(task)?;
            Some((component.clone(), task, metrics.task(component.clone(), task)))
        };
        Self {
            machine: Arc::clone(&worker.machine),
            pid: worker.pid,
            spec: worker.spec.clone(),
            random: worker.random.fork(),
            tasks: own.iter().filter_map(task).collect(),
            own: metrics.worker_counter(),
        }
    }

    /// Counts until it is dropped, the process hangs, or the counting phase of the run ends.
    pub(super) async fn run(mut self) {
        loop {
            tokio::time::sleep(PAUSE_MIN + (PAUSE_MAX - PAUSE_MIN).mul_f64(self.random.f64())).await;
            if self.machine.is_hung(self.pid) || !self.machine.env.is_counting.load(Ordering::Relaxed) {
                return;
            }
            let counts = self.count();
            self.machine.record(&MachineEvent::Counted(counts));
        }
    }

    fn count(&mut self) -> Counts {
        let (random, stream) = (&mut self.random, StreamId::default_stream());
        let mut count = |(component, task, metrics): &mut (ComponentId, TaskId, FakeTaskMetrics)| {
            let (emitted, failed) = (random.u64(0..=EMITTED_MAX), random.u64(0..=FAILED_MAX));
            metrics.emit(&stream, emitted);
            metrics.fail(failed);
            // A supervisor may have removed the worker's directory already.
            let _touched = metrics.touch();
            TaskCounts { component: component.clone(), task: *task, emitted, failed }
        };
        let tasks = self.tasks.iter_mut().map(&mut count).collect();
        let own = random.u64(0..=EMITTED_MAX);
        let reported = self.own.count(own);
        let LaunchSpec { topology, worker, host, slot, .. } = &self.spec;
        Counts {
            topology: topology.clone(),
            worker: worker.clone(),
            host: host.clone(),
            port: slot.port,
            tasks,
            own,
            reported,
        }
    }
}
