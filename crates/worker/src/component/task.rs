//! A task whose component is in this program: its thread, and what becomes of an instance that fails.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    EmitError, EmitValues, Source, TopologyContext, Values, bolt::BoltTask, bolt_output::Untold,
    spout::SpoutTask,
};
use crate::{
    counters::TaskCounters,
    errors::ErrorReporter,
    heartbeat::StatusBoard,
    metrics::{StreamIndex, TaskMetrics},
    restarts::RestartBoard,
    samples::Sampler,
    settings::TaskSettings,
    task::{Emitter, RESTART, STABLE_RUN, Target, Tracking, Wiring, headline, tell_ackers},
    tracking::Settled,
};
use stormkeeper_model::{
    ComponentId, StreamId, TaskId, TopologyId,
    clock::{Clock, Monotonic},
    heartbeat::TaskStatus,
    topology::{Input, Settings},
};
use stormkeeper_runtime::{error_chain, log_scope::LogScope, threads};
use stormkeeper_stream::Anchors;

/// Time for a call of a component to return when its worker stops.
const STOP_GRACE: Duration = Duration::from_millis(1500);

/// Period of looking for calls that do not return. A call that lasts longer is shown as pending.
const CHECK_PERIOD: Duration = Duration::from_millis(250);

/// Everything that a task is made of.
pub(crate) struct Parts {
    pub(crate) task: TaskId,
    pub(crate) component: ComponentId,
    pub(crate) topology: TopologyId,
    pub(crate) wiring: Arc<Wiring>,
    pub(crate) settings: TaskSettings,
    /// All settings of the component, for itself.
    pub(crate) all_settings: Settings,
    pub(crate) resources: PathBuf,
    pub(crate) credentials: PathBuf,
    pub(crate) emitter: Emitter,
    pub(crate) counters: Arc<TaskCounters>,
    pub(crate) metrics: TaskMetrics,
    pub(crate) tracking: Option<Tracking>,
    pub(crate) errors: ErrorReporter,
    pub(crate) board: StatusBoard,
    pub(crate) restarts: RestartBoard,
    pub(crate) clock: Clock,
    /// What the component logs.
    pub(crate) log_scope: LogScope,
    /// Shows received tuples to operators who ask for a sample.
    pub(crate) sampler: Sampler,
    /// Cancelled when the task must stop.
    pub(crate) stop: CancellationToken,
}

/// Means of a component's thread to emit and to report.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) task: TaskId,
    pub(super) component: ComponentId,
    pub(super) counters: Arc<TaskCounters>,
    pub(super) metrics: TaskMetrics,
    pub(super) tracking: Option<Tracking>,
    pub(super) clock: Clock,
    pub(super) log_scope: LogScope,
    pub(super) sampler: Sampler,
    pub(super) stop: CancellationToken,
    pub(super) board: StatusBoard,
    pub(super) call: Arc<Call>,
    errors: ErrorReporter,
    emitter: Emitter,
    values: Values,
    runtime: Handle,
}

/// What the thread of a component and the watch on it tell each other.
#[derive(Debug, Default)]
pub(super) struct Call {
    // Odd while a call is being made, even between calls and while a call waits for room. The thread is the
    // only writer.
    number: AtomicU64,
    looks: AtomicBool,
}

impl Call {
    /// Notes that a call begins, or goes on.
    #[inline]
    pub(super) fn begin(&self) {
        self.number.store((self.number.load(Ordering::Relaxed) + 1) | 1, Ordering::Relaxed);
    }

    /// Notes that no call is being made.
    #[inline]
    pub(super) fn end(&self) {
        let number = self.number.load(Ordering::Relaxed);
        self.number.store(number + (number & 1), Ordering::Relaxed);
    }

    /// Asks the thread to look at the clock, and whether it must stop.
    pub(super) fn ask_to_look(&self) {
        self.looks.store(true, Ordering::Relaxed);
    }

    /// Returns whether the thread was asked to look, once for each time.
    #[inline]
    pub(super) fn takes_look(&self) -> bool {
        self.looks.load(Ordering::Relaxed) && self.looks.swap(false, Ordering::Relaxed)
    }

    /// Returns the number of the call that is being made.
    fn current(&self) -> Option<u64> {
        Some(self.number.load(Ordering::Relaxed)).filter(|number| number & 1 == 1)
    }
}

/// The call that was seen last, for how long it has lasted.
#[derive(Debug, Default)]
struct Seen(Option<(u64, Monotonic)>);

impl Seen {
    /// Returns for how long the `current` call has been seen, and its number.
    fn look(&mut self, current: Option<u64>, now: Monotonic) -> Option<(u64, Duration)> {
        let number = current?;
        match self.0 {
            Some((seen, since)) if seen == number => Some((number, now.since(since))),
            _ => {
                self.0 = Some((number, now));
                None
            }
        }
    }
}

impl Sending {
    /// Sends a tuple to its receivers, waiting for room. The anchors are as in [`Emitter::emit`].
    pub(super) fn emit(
        &mut self,
        target: Target<'_>,
        emitted: impl EmitValues,
        n_trees: usize,
        anchor: impl FnOnce(&[TaskId], StreamIndex) -> Anchors,
    ) -> Result<&[TaskId], EmitError> {
        let Self { emitter, metrics, runtime, stop, call, values, .. } = self;
        values.write(emitted)?;
        let mut sending = pin!(emitter.emit(target, values.encoded(), n_trees, metrics, anchor));
        // The fast and common case: all receivers have room.
        if let Poll::Ready(sent) = sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return sent;
        }
        call.end();
        let sent = threads::block_on(runtime, async {
            tokio::select! {
                biased;
                // Cancel-safe: the task is stopping, and its tuples are lost with it.
                () = stop.cancelled() => Err(EmitError::Stopping),
                sent = sending => sent,
            }
        });
        call.begin();
        sent
    }

    /// Returns the receivers of the last emit.
    pub(super) fn receivers(&self) -> &[TaskId] {
        self.emitter.receivers()
    }

    /// Waits for `event`; `None` if the task must stop.
    pub(super) fn wait<T>(&self, event: impl Future<Output = T>) -> Option<T> {
        let stop = self.stop.clone();
        threads::block_on(&self.runtime, async {
            tokio::select! {
                biased;
                // Cancel-safe: the caller says so of `event`.
                () = stop.cancelled() => None,
                happened = event => Some(happened),
            }
        })
    }

    /// Tells the ackers what became of deliveries, and empties `settled`.
    pub(super) fn tell(&mut self, settled: &mut Vec<Settled>) {
        tell_ackers(self.tracking.as_ref(), settled, &mut self.metrics, &self.clock);
    }

    /// Reports an error that the component returned.
    pub(super) fn report(&self, error: &super::Error) {
        self.report_text(&error_chain(&**error).to_string());
    }

    pub(super) fn report_text(&self, text: &str) {
        let (message, stack) = headline::split(text);
        self.errors.report(&self.component, self.task, message.to_owned(), stack.to_owned());
    }

    pub(super) fn show(&self, status: TaskStatus) {
        self.board.set(self.task, status);
    }
}

/// Spout or bolt, with what outlives its instances.
pub(super) enum State {
    Spout(Box<SpoutTask>),
    Bolt(Box<BoltTask>),
}

/// Surroundings of an instance, shown to it when it begins.
pub(super) struct Surroundings {
    topology: TopologyId,
    wiring: Arc<Wiring>,
    all_settings: Settings,
    resources: PathBuf,
    credentials: PathBuf,
}

impl Surroundings {
    /// Returns the names of the fields of each stream that a component receives.
    pub(super) fn fields_of_inputs(
        &self,
        component: &ComponentId,
    ) -> Vec<(ComponentId, StreamId, Arc<[String]>)> {
        let components = &self.wiring.topology.components;
        let inputs = components.get(component).map(|component| &component.inputs);
        let fields = |input: &Input| {
            let declared = components.get(&input.from)?.outputs.get(&input.stream)?;
            Some((input.from.clone(), input.stream.clone(), declared.fields.clone().into()))
        };
        inputs.into_iter().flatten().filter_map(fields).collect()
    }

    pub(super) fn context<'a>(&'a self, sending: &'a mut Sending) -> TopologyContext<'a> {
        TopologyContext {
            id: &self.topology,
            topology: &self.wiring.topology,
            table: &self.wiring.table,
            component: &sending.component,
            task: sending.task,
            settings: &self.all_settings,
            resources: &self.resources,
            credentials: &self.credentials,
            clock: &sending.clock,
            metrics: &mut sending.metrics,
        }
    }
}

/// Runs a task until it is stopped, with a new instance of its component whenever one fails. `make_state`
/// makes what outlives the instances.
pub(crate) async fn run(parts: Parts, source: Source) {
    let Parts { task, component, restarts, errors, board, counters, clock, stop, .. } = &parts;
    let (task, component, clock, stop) = (*task, component.clone(), clock.clone(), stop.clone());
    let (restarts, errors, board) = (restarts.clone(), errors.clone(), board.clone());
    let counters = Arc::clone(counters);
    let limit = parts.settings.timeout;
    let call = Arc::<Call>::default();
    let (untold, tracking) = (Untold::default(), parts.tracking.clone());
    let mut state = State::new(parts, source, Arc::clone(&call), untold.clone());
    let during_call = || {
        counters.set_pending(counters.pending().max(1));
        // Settlements from before the call must not wait for its end.
        if let Some(Tracking { tracker, .. }) = &tracking {
            tracker.settle(&mut untold.lock());
        }
    };
    let mut backoff = RESTART.backoff();
    loop {
        let began = clock.monotonic();
        let name = format!("{component}-{task}");
        let started = threads::start(&name, move || {
            let ended = run_caught(&mut state);
            state.end_instance();
            (state, ended)
        });
        let cause = match started {
            Err(error) => {
                let text = format!("cannot start the thread of task {task} of {component}: {error}");
                errors.report(&component, task, text, String::new());
                warn!(%component, %task, %error, "cannot start the thread of a component; the task is down");
                // The state is lost with the closure; the worker starts again.
                return stop.cancel();
            }
            Ok(thread) => {
                let Some((returned, ended)) = watched(thread, (&call, &during_call), limit, &stop, |secs| {
                    let text = format!(
                        "task {task} of {component}: a call has not returned for {secs} s; if it never does, the task \
                         is stuck until its worker is restarted"
                    );
                    errors.report(&component, task, text, String::new());
                }, &clock)
                .await
                else {
                    warn!(%component, %task, "a call of the component has not returned; its thread ends with the process");
                    return;
                };
                state = returned;
                match ended {
                    Ok(()) => return,
                    Err(cause) => cause,
                }
            }
        };
        if stop.is_cancelled() {
            let text = format!("task {task} of {component}, while it stopped: {cause}");
            return errors.report(&component, task, text, String::new());
        }
        board.set_failed(task, format!("{component}: {cause}"));
        restarts.add(&component, task, &cause);
        if clock.monotonic().since(began) >= STABLE_RUN {
            backoff.reset();
        }
        let delay = backoff.next_delay();
        let (message, stack) = headline::split(&cause);
        errors.report(&component, task, format!("task {task} of {component}: {message}"), stack.to_owned());
        info!(%component, %task, ?delay, "an instance of a component failed; a new one follows after the delay");
        tokio::select! {
            // Cancel-safe: both arms only wait.
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// Runs a new instance until the task is stopped. A panic is returned as an error, and so is one of what it
/// panicked with, or of its error.
fn run_caught(state: &mut State) -> Result<(), String> {
    let _entered = state.log_scope().enter();
    let run = || state.run_instance().map_err(|error| error_chain(&*error));
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(ended) => ended,
        Err(panic) => {
            let text = format!("panicked: {}", panic_text(&*panic));
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                // Dropping that as well could go on for ever.
                std::mem::forget(again);
            }
            Err(text)
        }
    }
}

/// Waits for the end of a thread, and reports calls that last longer than `limit`, each once. `None` if the
/// task must stop and the thread does not return in time.
async fn watched<T>(
    mut thread: oneshot::Receiver<T>,
    (call, during_call): (&Call, &(dyn Fn() + Sync)),
    limit: Duration,
    stop: &CancellationToken,
    report: impl Fn(u64),
    clock: &Clock,
) -> Option<T> {
    let (mut reported, mut seen) = (None, Seen::default());
    loop {
        tokio::select! {
            // Cancel-safe: the result stays in the channel.
            ended = &mut thread => return ended.ok(),
            () = stop.cancelled() => break,
            () = tokio::time::sleep(CHECK_PERIOD.min(limit)) => {
                call.ask_to_look();
                let Some((number, lasting)) = seen.look(call.current(), clock.monotonic()) else { continue };
                during_call();
                if lasting > limit && reported != Some(number) {
                    report(limit.as_secs());
                    reported = Some(number);
                }
            }
        }
    }
    call.ask_to_look();
    tokio::time::timeout(STOP_GRACE, thread).await.ok()?.ok()
}

/// Returns the text of a panic; most have one.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

impl State {
    fn new(parts: Parts, source: Source, call: Arc<Call>, untold: Untold) -> Self {
        let Parts {
            task, component, topology, wiring, settings, all_settings, resources, credentials, ..
        } = parts;
        let Parts {
            emitter,
            counters,
            metrics,
            tracking,
            errors,
            board,
            clock,
            log_scope,
            sampler,
            stop,
            ..
        } = parts;
        let runtime = Handle::current();
        let sending = Sending {
            task,
            component,
            counters,
            metrics,
            tracking,
            clock,
            log_scope,
            sampler,
            stop,
            board,
            call,
            errors,
            emitter,
            values: Values::default(),
            runtime,
        };
        let surroundings = Surroundings { topology, wiring, all_settings, resources, credentials };
        match source {
            Source::Spout(make, activity) => {
                Self::Spout(Box::new(SpoutTask::new(sending, surroundings, make, activity, &settings)))
            }
            Source::Bolt(make, inbox) => {
                Self::Bolt(Box::new(BoltTask::new(sending, surroundings, make, inbox, &settings, untold)))
            }
        }
    }

    fn log_scope(&self) -> LogScope {
        match self {
            Self::Spout(spout) => spout.sending.log_scope.clone(),
            Self::Bolt(bolt) => bolt.sending.log_scope.clone(),
        }
    }

    fn run_instance(&mut self) -> Result<(), super::Error> {
        match self {
            Self::Spout(spout) => spout.run_instance(),
            Self::Bolt(bolt) => bolt.run_instance(),
        }
    }

    fn end_instance(&mut self) {
        match self {
            Self::Spout(spout) => spout.end_instance(),
            Self::Bolt(bolt) => bolt.end_instance(),
        }
    }
}
