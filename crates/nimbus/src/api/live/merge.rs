//! Merge of the samples of all workers of a topology. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::sums::{ComponentSum, Measured};
use stormkeeper_api_types::message::live::{LiveComponent, LiveTask, MissingWorker};
use stormkeeper_metrics::live::{LiveSample, TaskSample};
use stormkeeper_model::{ComponentId, Slot, WorkerId, clock::Monotonic, task_set::TaskSet};

/// Maximum number of samples of a worker: rates are those between the first and the last of them.
const SAMPLES_MAX: usize = 3;

/// Age from which the numbers of a worker are missing.
const OLD: Duration = Duration::from_millis(3500);

/// Maximum number of components in an answer; further ones are counted.
const COMPONENTS_MAX: usize = 2000;

/// A worker of the topology, by its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) host: String,
    pub(super) tasks: TaskSet,
}

/// What was received about the workers of a topology.
#[derive(Debug, Default)]
pub(super) struct Merge {
    workers: BTreeMap<Slot, Received>,
}

#[derive(Debug)]
struct Received {
    worker: Option<WorkerId>,
    samples: VecDeque<Sampled>,
    /// Reason why there is no later sample.
    problem: Option<String>,
}

#[derive(Debug)]
struct Sampled {
    at: Monotonic,
    sample: LiveSample,
}

/// The numbers of a topology at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Numbers {
    /// Age of the oldest sample.
    pub(super) age: Option<Duration>,
    pub(super) n_live: usize,
    pub(super) missing: Vec<MissingWorker>,
    pub(super) components: Vec<LiveComponent>,
    pub(super) tasks: Vec<LiveTask>,
    pub(super) omitted: usize,
}

impl Merge {
    /// Takes a sample of a launch in `slot`, which was made at `at` by the clock of this nimbus.
    pub(super) fn take(&mut self, slot: Slot, worker: WorkerId, sample: LiveSample, at: Monotonic) {
        let received = self.received(slot);
        let last = received.samples.back().map(|last| last.sample.uptime_ms);
        // The agent sends its last line again after a broken connection.
        let is_known = last == Some(sample.uptime_ms) && received.worker.as_ref() == Some(&worker);
        if received.worker.as_ref() != Some(&worker) || last.is_some_and(|last| sample.uptime_ms < last) {
            received.samples.clear();
        }
        (received.worker, received.problem) = (Some(worker), None);
        if is_known {
            return;
        }
        received.samples.push_back(Sampled { at, sample });
        if received.samples.len() > SAMPLES_MAX {
            received.samples.pop_front();
        }
    }

    /// Takes the reason why a worker sends nothing.
    pub(super) fn take_problem(&mut self, slot: Slot, problem: String) {
        self.received(slot).problem = Some(problem);
    }

    fn received(&mut self, slot: Slot) -> &mut Received {
        let nothing = || Received { worker: None, samples: VecDeque::new(), problem: None };
        self.workers.entry(slot).or_insert_with(nothing)
    }

    /// Forgets the workers that are not expected.
    pub(super) fn keep_only(&mut self, expected: &BTreeMap<Slot, Expected>) {
        self.workers.retain(|slot, _| expected.contains_key(slot));
    }

    /// Returns whether each expected worker has `n` samples, or a reason why it has not.
    pub(super) fn is_complete(&self, expected: &BTreeMap<Slot, Expected>, n: usize) -> bool {
        let is_known =
            |received: &Received| received.samples.len() >= n.min(SAMPLES_MAX) || received.problem.is_some();
        expected.keys().all(|slot| self.workers.get(slot).is_some_and(is_known))
    }

    /// Returns whether each worker whose numbers are not missing has sent a sample since `begin`.
    pub(super) fn is_newer(&self, begin: Monotonic, now: Monotonic) -> bool {
        let mut live = self.workers.values().filter_map(|received| received.fresh(now)).peekable();
        live.peek().is_some() && live.all(|samples| samples.1.at > begin)
    }

    /// Returns the numbers of the expected workers.
    pub(super) fn numbers(&self, expected: &BTreeMap<Slot, Expected>, now: Monotonic) -> Numbers {
        let mut numbers = Numbers::default();
        let mut components: BTreeMap<&ComponentId, ComponentSum> = BTreeMap::new();
        for (slot, worker) in expected {
            let received = self.workers.get(slot);
            let Some((first, last)) = received.and_then(|received| received.fresh(now)) else {
                let reason = reason(received, now);
                let (supervisor, host, port) = (slot.supervisor.clone(), worker.host.clone(), slot.port);
                numbers.missing.push(MissingWorker { supervisor, host, port, reason });
                continue;
            };
            numbers.n_live += 1;
            numbers.age = numbers.age.max(Some(now.since(last.at)));
            let seconds = last.sample.uptime_ms.saturating_sub(first.sample.uptime_ms) as f64 / 1000.0;
            // A worker speaks for its own tasks only.
            for task in last.sample.tasks.iter().filter(|task| worker.tasks.contains(task.task)) {
                let before = first.sample.tasks.iter().find(|before| before.task == task.task);
                let measured = Measured::between(before.filter(|_| seconds > 0.0), task, seconds);
                numbers.tasks.push(of_task(task, &measured));
                components.entry(&task.component).or_default().add(task, measured);
            }
        }
        numbers.tasks.sort_unstable_by_key(|task| task.task);
        numbers.omitted = components.len().saturating_sub(COMPONENTS_MAX);
        for (id, sum) in components.into_iter().take(COMPONENTS_MAX) {
            let (component, omitted) = sum.result(id.clone());
            numbers.components.push(component);
            numbers.omitted += omitted;
        }
        numbers
    }
}

impl Received {
    /// Returns the first and the last sample, unless the last one is old.
    fn fresh(&self, now: Monotonic) -> Option<(&Sampled, &Sampled)> {
        let last = self.samples.back()?;
        (now.since(last.at) < OLD).then_some((self.samples.front()?, last))
    }
}

fn reason(received: Option<&Received>, now: Monotonic) -> String {
    let problem = received.and_then(|received| received.problem.clone());
    let last = received.and_then(|received| received.samples.back());
    match (problem, last) {
        (Some(problem), _) => problem,
        (None, Some(last)) => format!("no numbers for {} s", now.since(last.at).as_secs()),
        (None, None) => "no numbers yet".to_owned(),
    }
}

fn of_task(task: &TaskSample, measured: &Measured) -> LiveTask {
    LiveTask {
        task: task.task,
        component: task.component.clone(),
        counts: task.counts,
        rates: measured.rates,
        pending: task.pending,
        capacity: measured.capacity,
        queue: task.queue,
    }
}
