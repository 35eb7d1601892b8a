//! Tasks: one loop per task around the child process of its spout or bolt.
//!
//! ```text
//!  inbox ─▶ bolt loop ─▶ child ─▶ bolt loop ─▶ emitter ─▶ outbox
//!           spout loop ─▶ child ─▶ spout loop ─▶ emitter ─▶ outbox
//! ```
//!
//! - Two cores without I/O, [`spout_protocol`] and [`bolt_protocol`], decide what a message
//!   means; the loops [`spout`] and [`bolt`] execute their decisions.
//! - [`run`] owns the child. A child that exits, does not end its message within the limit, or is
//!   silent (for the timeout it neither sent a message nor read from its pipe) is ended, reported as
//!   a task error with its exit status and its last lines of stderr, and restarted after a delay. The
//!   other tasks of the worker continue; Storm ends the whole worker in this case.
//! - One bad message costs one message: a message that is invalid, or that makes no sense in the
//!   state of the protocol, is refused with a task error, and the child goes on. A refused emit with
//!   an id fails. A `sync`, `ack` or `fail` that is not JSON is reported and carried out.
//! - A tuple that was sent to a child and not acked when the child died counts as failed, and fails its
//!   trees at once. A tuple that was not sent yet waits for the next child.
//! - A spout's tuples that are pending when its child dies count as failed: nobody knows their ids any
//!   more. Emitting them again is the spout's duty.
//! - A loop that waits for room in its outbox does not read its child's output; that time does
//!   not count as silence of the child.

mod bolt;
mod bolt_protocol;
mod choice;
mod cycle;
mod emitter;
pub(crate) mod headline;
mod in_flight;
mod spout;
mod spout_protocol;
mod write_window;

use std::{sync::Arc, time::Duration};

use tokio::time::Interval;
use tracing::{debug, error, info, trace, warn};

pub(super) use bolt::Bolt;
pub(super) use cycle::Cycle;
pub use emitter::EmitError;
pub(super) use emitter::{Emitter, Target, Wiring};
pub(super) use spout::{Activity, Pauses, Spout};

use crate::{
    counters::TaskCounters,
    errors::ErrorReporter,
    heartbeat::StatusBoard,
    log,
    metrics::TaskMetrics,
    multilang::{
        child::{self, Child, ChildExit, ChildSpec, Received},
        codec::Codec,
        handshake,
        message::{ComponentNotice, EmitReply, FromChild, LogLevel, Parsed, Refused, RefusedEmit, ToChild},
    },
    restarts::RestartBoard,
    samples::Sampler,
    settings::TaskSettings,
    tracking::{Settled, Tracker},
};
use stormkeeper_model::{
    TaskId, TopologyId,
    backoff::Delays,
    clock::{Clock, Monotonic},
    heartbeat::TaskStatus,
    topology::Settings,
};
use stormkeeper_runtime::{log_scope::LogScope, oom::OomWatch, tasks::Tasks};
use stormkeeper_topology_package::launch::{CREDENTIALS_SETTING, CREDENTIALS_VARIABLE};

/// First and longest delay before a child is restarted: a component that cannot run costs two
/// starts a minute.
pub(super) const RESTART: Delays = Delays::between(Duration::from_secs(1), Duration::from_secs(30));

/// Run time after which a child counts as stable: the next restart delay is short again.
pub(super) const STABLE_RUN: Duration = Duration::from_secs(60);

/// Time for a child whose stdout was closed to exit, so that its exit status can be reported.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// Time to exit for a child that is ended because of a failure; most such children are about to
/// exit.
const FAILED_GRACE: Duration = Duration::from_millis(100);

/// Time for a child to exit after its stdin was closed because the worker stops.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(500);

/// Period at which a child's silence is checked and a bolt's child is sent a heartbeat; the same
/// as Storm's.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Period of the reports that texts of messages were changed.
const CHANGED_TEXT_PERIOD: Duration = Duration::from_secs(60);

/// State that spouts and bolts have in common.
pub(super) struct TaskContext {
    pub(super) task: TaskId,
    pub(super) launch: ChildSpec,
    pub(super) topology: TopologyId,
    pub(super) defaults: Settings,
    pub(super) wiring: Arc<Wiring>,
    pub(super) settings: TaskSettings,
    pub(super) emitter: Emitter,
    pub(super) counters: Arc<TaskCounters>,
    pub(super) errors: ErrorReporter,
    pub(super) board: StatusBoard,
    pub(super) restarts: RestartBoard,
    pub(super) oom: Arc<OomWatch>,
    pub(super) clock: Clock,
    /// What the component logs.
    pub(super) log_scope: LogScope,
    /// Shows received tuples to operators who ask for a sample.
    pub(super) sampler: Sampler,
    /// Owns the tasks that read the children's stderr; when it is cancelled, the task stops.
    pub(super) tasks: Tasks,
    pub(super) metrics: TaskMetrics,
    /// Tracking of tuple trees; `None` if the topology has no ackers.
    pub(super) tracking: Option<Tracking>,
    /// Number of messages whose texts were changed, and time of the last report about them.
    pub(super) n_changed_texts: u64,
    pub(super) changes_reported: Option<Monotonic>,
}

/// Tracking of the tuple trees of a task.
#[derive(Debug, Clone)]
pub(super) struct Tracking {
    pub(super) tracker: Tracker,
    /// Time after which a tree fails; `None` if trees have no timeout.
    pub(super) timeout: Option<Duration>,
}

/// Tells the ackers what became of deliveries, and empties `settled`.
pub(super) fn tell_ackers(
    tracking: Option<&Tracking>,
    settled: &mut Vec<Settled>,
    metrics: &mut TaskMetrics,
    clock: &Clock,
) {
    // Tuples of an untracked topology belong to no tree.
    let Some(Tracking { tracker, .. }) = tracking.filter(|_| !settled.is_empty()) else {
        return settled.clear();
    };
    if !metrics.is_on() {
        return tracker.settle(settled);
    }
    let begun = clock.monotonic();
    tracker.settle(settled);
    metrics.settled(clock.monotonic().since(begun));
}

/// Spout or bolt.
pub(super) enum TaskKind {
    Spout(Box<Spout>),
    Bolt(Box<Bolt>),
}

/// Failure of a child that ended its run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Child(#[from] child::Error),
    #[error("no {awaited} for {limit:?}")]
    Silent { awaited: &'static str, limit: Duration },
}

/// Valid message that the protocol does not allow in the child's current state.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Violation {
    #[error("sent {what:?} before its pid")]
    BeforePid { what: &'static str },
    #[error("sent its pid twice")]
    PidTwice,
    #[error("is a spout and sent {what:?}, which only a bolt may send")]
    NotForSpouts { what: &'static str },
    #[error("sent {what:?} for tuple {id:?}, which is not in flight: unknown, or already acked or failed")]
    NotInFlight { what: &'static str, id: String },
}

impl TaskContext {
    /// Starts a child. The handshake is built for each child and then dropped: it names every
    /// task of the topology, which is too much to keep for every task.
    fn start_child(&self) -> Result<Child, child::Error> {
        let Wiring { topology, table, .. } = &*self.wiring;
        let ChildSpec { component, pid_dir, .. } = &self.launch;
        let (id, defaults) = (&self.topology, &self.defaults);
        let mut hello = handshake::message(id, topology, defaults, table, component, self.task, pid_dir);
        if let Some(path) = self.launch.environment.get(CREDENTIALS_VARIABLE) {
            hello["conf"][CREDENTIALS_SETTING] = path.to_string_lossy().into();
        }
        if self.launch.codec != Codec::Json {
            // Batches are JSON.
            hello["dialects"] = serde_json::json!([]);
        }
        Child::start(&self.launch, &hello, &self.tasks)
    }

    /// Returns the child's next completely read message, if there is one.
    fn next_message(&mut self, child: &mut Child) -> Result<Option<Received>, child::Error> {
        if !self.metrics.times_message() {
            return child.next_message();
        }
        let begun = self.clock.monotonic();
        let heard = child.next_message()?;
        if heard.is_some() {
            self.metrics.deserialized(self.clock.monotonic().since(begun));
        }
        Ok(heard)
    }

    /// Tells the ackers what became of deliveries, and empties `settled`.
    fn settle(&mut self, settled: &mut Vec<Settled>) {
        tell_ackers(self.tracking.as_ref(), settled, &mut self.metrics, &self.clock);
    }

    /// Takes a message, and reports once in a while that texts of messages were changed.
    #[inline]
    fn take(&mut self, received: Received) -> Result<FromChild, Refused> {
        let Parsed { message, has_changed_text, takes_batches: _ } = received?;
        if has_changed_text {
            self.n_changed_texts += 1;
            let now = self.clock.monotonic();
            if self.changes_reported.is_none_or(|last| now.since(last) >= CHANGED_TEXT_PERIOD) {
                self.changes_reported = Some(now);
                self.report(&format!(
                    "task {} of {}: {} had text that is not valid Unicode; U+FFFD stands for what was invalid, \
                     so texts that differed may be equal now",
                    self.task,
                    self.launch.component,
                    match self.n_changed_texts {
                        1 => "one message".to_owned(),
                        n => format!("{n} messages"),
                    }
                ));
            }
        }
        Ok(message)
    }

    /// Returns the effect that `on_message` finds for a message of the child.
    ///
    /// # Errors
    /// If the message is refused, which is reported: the emit that it was, if it was one.
    fn effect_of<E>(
        &mut self,
        received: Received,
        child: &mut Child,
        on_message: impl FnOnce(FromChild) -> Result<E, Violation>,
    ) -> Result<E, Option<RefusedEmit>> {
        let message = match self.take(received) {
            Ok(message) => message,
            Err(refused) => {
                let reply = refused.emit.as_ref().map_or(EmitReply::None, |emit| emit.reply);
                self.refuse(child, &refused.to_string(), reply);
                *refused.meant.ok_or(refused.emit)?
            }
        };
        let reply = message.awaited_reply();
        on_message(message).map_err(|violation| {
            self.refuse(child, &violation.to_string(), reply);
            None
        })
    }

    /// Reports a message of the child that is refused, and gives the child the reply that it waits
    /// for: no task received the tuple.
    fn refuse(&self, child: &mut Child, problem: &str, reply: EmitReply) {
        self.report(&format!("task {} of {}: {problem}", self.task, self.launch.component));
        match reply {
            EmitReply::TaskIds => child.send(&ToChild::TaskIds(&[])),
            EmitReply::None => {}
        }
    }

    /// Returns the cause of the end of a child, of one line.
    fn cause_of(&self, failure: &Failure, exit: Option<&ChildExit>) -> String {
        let mut cause = failure.to_string();
        let Some(exit) = exit else { return cause };
        // The worker itself ended a child that was silent.
        if let Failure::Silent { .. } = failure
            && !exit.was_killed
        {
            cause.push_str("; its process was ended");
            return cause;
        }
        let is_for_memory = exit.was_killed && !exit.names_memory && self.oom.has_killed();
        let memory = if is_for_memory { ", out of memory" } else { "" };
        cause.push_str(&format!(" ({}{memory})", exit.status));
        if let Some(line) = headline::of_last_words(&exit.stderr_tail) {
            cause.push_str(&format!("; stderr: {line}"));
        }
        cause
    }

    /// Reports processes of a running component that the kernel has killed for its memory limit.
    fn report_killed_for_memory(&self, child: &mut Child) {
        if let Some(report) = child.killed_for_memory() {
            self.report(&format!("task {} of {}: {report}", self.task, self.launch.component));
        }
    }

    fn show(&self, status: TaskStatus) {
        self.board.set(self.task, status);
    }

    fn handle_notice(&mut self, notice: ComponentNotice) {
        let (component, task) = (&self.launch.component, self.task);
        match notice {
            ComponentNotice::Error(text) if text.trim().is_empty() => {
                self.report("the component sent an error without a text");
            }
            ComponentNotice::Error(text) => self.report(&text),
            ComponentNotice::Log { level, text } => {
                let text = log::shortened(&text);
                let _entered = self.log_scope.enter();
                match level {
                    LogLevel::Trace => trace!(%component, %task, "{text}"),
                    LogLevel::Debug => debug!(%component, %task, "{text}"),
                    LogLevel::Info => info!(%component, %task, "{text}"),
                    LogLevel::Warn => warn!(%component, %task, "{text}"),
                    LogLevel::Error => error!(%component, %task, "{text}"),
                }
            }
            ComponentNotice::Metrics { name, value } => {
                if let Err(wrong) = self.metrics.update_user_metric(&name, &value) {
                    self.report(&wrong);
                }
            }
        }
    }

    /// Reports an error text as a task error.
    fn report(&self, text: &str) {
        let (message, stack) = headline::split(text);
        self.errors.report(&self.launch.component, self.task, message.to_owned(), stack.to_owned());
    }

    fn start_watchdog(&self) -> (Interval, ChildWatchdog) {
        let limit = self.settings.timeout;
        // Frequent enough for a short limit.
        let period = CHECK_PERIOD.min(limit / 4).max(Duration::from_millis(1));
        let mut checks = tokio::time::interval(period);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let watchdog =
            ChildWatchdog { limit, period, checked: self.clock.monotonic(), silent_for: Duration::ZERO };
        (checks, watchdog)
    }
}

/// Measures how long a child has been silent while its output was being read.
#[derive(Debug)]
struct ChildWatchdog {
    limit: Duration,
    period: Duration,
    checked: Monotonic,
    silent_for: Duration,
}

impl ChildWatchdog {
    /// Restarts the measurement: the child sent a message, or was just sent a command.
    fn reset(&mut self) {
        self.silent_for = Duration::ZERO;
    }

    /// Checks the silence against the limit; called about once in a period, with what the child owes.
    fn check(&mut self, now: Monotonic, awaited: &'static str) -> Result<(), Failure> {
        // A late check counts for at most two periods: the loop waited for its outbox, or the
        // whole process was stopped, and the child's output was not read meanwhile.
        self.silent_for += now.since(self.checked).min(2 * self.period);
        self.checked = now;
        match self.silent_for > self.limit {
            true => Err(Failure::Silent { awaited, limit: self.limit }),
            false => Ok(()),
        }
    }
}

impl TaskKind {
    /// Runs the protocol with a child until the child fails. Dropping the future between two
    /// messages or while it waits for its outbox loses at most the message being handled.
    async fn run_protocol(&mut self, context: &mut TaskContext, child: &mut Child) -> Failure {
        let ended = match self {
            Self::Spout(spout) => spout.run_protocol(context, child).await,
            Self::Bolt(bolt) => bolt.run_protocol(context, child).await,
        };
        match ended {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    /// Prepares a child for the stop of its worker.
    async fn deactivate_child(&mut self, child: &mut Child) -> Vec<ComponentNotice> {
        match self {
            Self::Spout(spout) => spout.deactivate_child(child).await,
            // The end of its stdin is the only signal that a bolt's child needs.
            Self::Bolt(_) => Vec::new(),
        }
    }

    /// Resets the protocol for a new child, and counts the old child's open tuples as failed.
    fn reset(&mut self, context: &mut TaskContext) {
        match self {
            Self::Spout(spout) => spout.reset(context),
            Self::Bolt(bolt) => {
                let mut lost = Vec::new();
                bolt.reset(context, |given| lost.push((given.source, given.at)));
                for (source, at) in lost {
                    context.counters.failed.add(1);
                    context.metrics.child_failed(source, at);
                }
                context.counters.set_pending(bolt.n_pending());
            }
        }
        context.metrics.child_ended();
        context.metrics.settle();
    }
}

/// Runs a task until its `context.tasks` are cancelled, starting its child again whenever it
/// fails.
pub(super) async fn run(mut context: TaskContext, mut kind: TaskKind) {
    let cancelled = context.tasks.cancelled();
    let mut backoff = RESTART.backoff();
    loop {
        let began = context.clock.monotonic();
        let (failure, exit) = match context.start_child() {
            Err(error) => (Failure::from(error), None),
            Ok(mut child) => {
                let failure = tokio::select! {
                    // Dropping the future is how the protocol stops; see `run_protocol`.
                    () = cancelled.cancelled() => None,
                    failure = kind.run_protocol(&mut context, &mut child) => Some(failure),
                };
                let Some(failure) = failure else {
                    let notices = kind.deactivate_child(&mut child).await;
                    let exit = child.end(STOP_GRACE).await;
                    let last = exit.last_notices.into_iter().map(ComponentNotice::of_stopped);
                    notices.into_iter().chain(last).for_each(|it| context.handle_notice(it));
                    kind.reset(&mut context);
                    return;
                };
                let grace = match failure {
                    Failure::Child(child::Error::Ended { .. }) => EXIT_GRACE,
                    _ => FAILED_GRACE,
                };
                let mut exit = child.end(grace).await;
                exit.last_notices.drain(..).for_each(|notice| context.handle_notice(notice));
                (failure, Some(exit))
            }
        };
        if cancelled.is_cancelled() {
            // The child ended because the worker stops.
            return;
        }
        context.board.set_failed(context.task, format!("{}: {failure}", context.launch.component));
        kind.reset(&mut context);
        let component = context.launch.component.clone();
        let cause = context.cause_of(&failure, exit.as_ref());
        let message = format!("task {} of {component}: {cause}", context.task);
        let stderr_tail = exit.map(|exit| exit.stderr_tail).unwrap_or_default();
        context.restarts.add(&component, context.task, &cause);
        if context.clock.monotonic().since(began) >= STABLE_RUN {
            backoff.reset();
        }
        let delay = backoff.next_delay();
        context.errors.report(&component, context.task, message, stderr_tail);
        info!(%component, task = %context.task, ?delay, "the child process failed; restarting it after the delay");
        tokio::select! {
            // Cancel-safe: both arms only wait.
            () = cancelled.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::Timestamp;

    #[test]
    fn silence_counts_only_while_the_child_is_read() {
        let clock = Clock::manual(Timestamp::EPOCH);
        let secs = Duration::from_secs;
        let mut watchdog = ChildWatchdog {
            limit: secs(10),
            period: secs(1),
            checked: clock.monotonic(),
            silent_for: secs(0),
        };
        let mut after = |by, is_reset: bool| {
            clock.advance(by);
            if is_reset {
                watchdog.reset();
            }
            watchdog.check(clock.monotonic(), "message").is_ok()
        };
        assert!((0..10).all(|_| after(secs(1), false)));
        assert!(!after(secs(1), false));
        assert!(after(secs(1), true));
        // The process was stopped for an hour.
        assert!(after(secs(3600), false));
        assert!((0..7).all(|_| after(secs(1), false)));
        assert!(!after(secs(1), false));
    }
}
