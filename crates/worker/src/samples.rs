//! Samples of the tuples of components, which operators ask for while the worker runs.
//!
//! A task looks at one atomic number per tuple, which is 0 as long as nobody has asked. Everything else
//! is done for the tuples of a sample only, under the limit of tuples in a second, and the lines are
//! written by a task of their own: a disk that hangs delays no tuple.

mod line;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::{info, warn};

pub(crate) use line::{Values, Way};

use crate::log::RotatingFile;
use stormkeeper_model::{
    ComponentId, TaskId,
    clock::{Clock, Monotonic},
    task_set::TaskSet,
    topology::TaskTable,
    tuple_samples::{SAMPLES_FILE, TupleSample, TupleSamples},
};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// The size at which the file is rotated; two are kept.
const MAX_BYTES: u64 = 4 << 20;

const N_FILES: usize = 2;

/// Maximum number of lines that wait for the disk. More are left out, and counted in a later line.
const LINES_WAITING: usize = 512;

/// Period for which the limit of tuples holds.
const LIMIT_PERIOD: Duration = Duration::from_secs(1);

/// The samples of the components of a worker.
#[derive(Debug)]
pub(crate) struct Samples {
    components: BTreeMap<ComponentId, Arc<OfComponent>>,
    followed: TupleSamples,
    lines: mpsc::Sender<String>,
    clock: Clock,
}

/// The sample of one component.
#[derive(Debug, Default)]
struct OfComponent {
    /// 0 while there is none: the only number at which a task looks then.
    one_in: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now: Option<Active>,
    n_left_out: u64,
}

/// A sample that has not ended.
#[derive(Debug)]
struct Active {
    sample: TupleSample,
    /// End by the clock of this process.
    ends: Monotonic,
    /// Begin of the period of the limit, and number of tuples since.
    since: Monotonic,
    n_shown: u32,
}

impl Samples {
    /// Creates the samples of the components of `local`; none is on. Lines go into [`SAMPLES_FILE`] in
    /// `logs`.
    pub(crate) fn start(
        logs: PathBuf,
        (local, table): (&TaskSet, &TaskTable),
        clock: Clock,
        tasks: &Tasks,
    ) -> Self {
        Self::new((local, table), start_writer(logs, tasks), clock)
    }

    fn new((local, table): (&TaskSet, &TaskTable), lines: mpsc::Sender<String>, clock: Clock) -> Self {
        let components = local.iter().filter_map(|task| table.component_of(task).cloned());
        let components = components.map(|component| (component, Arc::default())).collect();
        Self { components, followed: TupleSamples::default(), lines, clock }
    }

    /// Returns the sampler of a task.
    pub(crate) fn sampler(&self, component: &ComponentId, task: TaskId) -> Sampler {
        let of_component = self.components.get(component).cloned().unwrap_or_default();
        let (lines, clock) = (self.lines.clone(), self.clock.clone());
        let task = Some(OfTask { component: component.clone(), task, lines, clock });
        Sampler { of_component, n_before_next: 0, task }
    }

    /// Follows the samples of the topology. A sample that is new to this worker lasts for its whole time from
    /// now on, so that no other clock is needed.
    pub(crate) fn follow(&mut self, samples: &TupleSamples) {
        if self.followed == *samples {
            return;
        }
        let now = self.clock.monotonic();
        for (component, of_component) in &self.components {
            let (before, next) = (self.followed.0.get(component), samples.0.get(component));
            if before == next {
                continue;
            }
            let active = next.map(|sample| Active {
                sample: *sample,
                ends: now.plus(Duration::from_secs(sample.for_secs)),
                since: now,
                n_shown: 0,
            });
            match next {
                Some(TupleSample { one_in, per_sec, for_secs, .. }) => {
                    info!(%component, one_in, per_sec, for_secs, "a sample of the tuples of a component begins");
                }
                None => info!(%component, "the sample of the tuples of a component is over"),
            }
            let mut state = of_component.state();
            *state = State { now: active, n_left_out: 0 };
            of_component.one_in.store(next.map_or(0, |sample| sample.one_in.max(1)), Ordering::Relaxed);
        }
        self.followed = samples.clone();
    }
}

impl OfComponent {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves numbers that are right enough for a sample.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sample if it shows one more tuple now, and the number of those that were left out
    /// before it.
    fn take(&self, now: Monotonic) -> Option<(TupleSample, u64)> {
        let mut state = self.state();
        let State { now: active, n_left_out } = &mut *state;
        let Some(Active { sample, since, n_shown, .. }) = active.as_mut().filter(|active| active.ends > now)
        else {
            *active = None;
            self.one_in.store(0, Ordering::Relaxed);
            return None;
        };
        if now.since(*since) >= LIMIT_PERIOD {
            (*since, *n_shown) = (now, 0);
        }
        if *n_shown >= sample.per_sec {
            *n_left_out += 1;
            return None;
        }
        *n_shown += 1;
        Some((*sample, std::mem::take(n_left_out)))
    }
}

/// Looks at the tuples of one task, in one direction. The default one never shows any.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    of_component: Arc<OfComponent>,
    n_before_next: u32,
    task: Option<OfTask>,
}

#[derive(Debug)]
struct OfTask {
    component: ComponentId,
    task: TaskId,
    lines: mpsc::Sender<String>,
    clock: Clock,
}

impl Sampler {
    /// Returns whether the next tuple is to be shown, as far as the share decides. Called once for each
    /// tuple.
    #[inline]
    pub(crate) fn is_next(&mut self) -> bool {
        match self.of_component.one_in.load(Ordering::Relaxed) {
            0 => false,
            one_in => self.counts(one_in),
        }
    }

    #[cold]
    fn counts(&mut self, one_in: u32) -> bool {
        match self.n_before_next.min(one_in - 1) {
            0 => {
                self.n_before_next = one_in - 1;
                true
            }
            n => {
                self.n_before_next = n - 1;
                false
            }
        }
    }

    /// Shows a tuple, unless as many as may be were shown in this second.
    #[cold]
    pub(crate) fn show(&self, way: Way<'_>, values: Values<'_>) {
        let Some(OfTask { component, task, lines, clock }) = &self.task else { return };
        let Some((sample, n_left_out)) = self.of_component.take(clock.monotonic()) else { return };
        let shown = line::Line { at: clock.now(), until: sample.until, component, task: *task, n_left_out };
        if lines.try_send(shown.text(way, values)).is_err() {
            self.of_component.state().n_left_out += n_left_out + 1;
        }
    }
}

/// Starts the task that writes lines into [`SAMPLES_FILE`] in `dir`, which is created with the first line.
/// Returns its queue.
fn start_writer(dir: PathBuf, tasks: &Tasks) -> mpsc::Sender<String> {
    let (lines, mut waiting) = mpsc::channel(LINES_WAITING);
    tasks.start("write samples", OnExit::Ignore, async move {
        let mut batch: Vec<String> = Vec::new();
        let mut is_failing = false;
        while waiting.recv_many(&mut batch, LINES_WAITING).await > 0 {
            let (dir, texts) = (dir.clone(), std::mem::take(&mut batch));
            let written = blocking::run(move || {
                // Opened anew: samples are rare, and their file is not kept open for the life of the worker.
                let file = RotatingFile::open_named(&dir, SAMPLES_FILE, MAX_BYTES, N_FILES)?;
                texts.iter().try_for_each(|text| std::io::Write::write_all(&mut &file, text.as_bytes()))
            });
            if let Err(error) = written.await
                && !std::mem::replace(&mut is_failing, true)
            {
                warn!(%error, file = SAMPLES_FILE, "cannot write a sample of tuples; its lines are lost");
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests;
