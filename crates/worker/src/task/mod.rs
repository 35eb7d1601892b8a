//! The tasks: one loop each around a spout's or a bolt's child process.
//!
//! ```text
//!  inbox ─▶ bolt loop ─▶ child ─▶ bolt loop ─▶ emitter ─▶ outbox
//!           spout loop ─▶ child ─▶ spout loop ─▶ emitter ─▶ outbox
//! ```
//!
//! - What a message means is decided by two cores without I/O, [`spout_protocol`] and
//!   [`bolt_protocol`]; the loops [`spout`] and [`bolt`] carry it out.
//! - [`run`] owns the child. One that ends, prints what is no message, breaks the protocol or
//!   is silent for too long is ended, reported as a task error with its exit status and its
//!   last words, and started again after a delay. The other tasks of the worker go on:
//!   Storm ends the whole worker here.
//! - A tuple that was given to a child that died, and not acked, counts as failed. A tuple
//!   that still waits is for the next child.
//! - A loop that waits for room in its outbox hears nothing from its child meanwhile; that
//!   time does not count as the child's silence.

mod bolt;
mod bolt_protocol;
mod emitter;
mod in_flight;
mod spout;
mod spout_protocol;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Interval};
use tracing::{debug, error, info, trace, warn};

pub(super) use bolt::Bolt;
pub(super) use emitter::{Emitter, Wiring};
pub(super) use spout::{Activity, Spout};

use crate::{
    beat::StatusBoard,
    counters::TaskCounters,
    errors::Reporter,
    metrics::TaskMetrics,
    multilang::{
        child::{self, Child, Launch},
        handshake,
        message::{FromChild, LogLevel, Remark},
    },
    settings::TaskSettings,
};
use stormkeeper_model::{
    TaskId, TopologyId,
    backoff::Backoff,
    heartbeat::TaskStatus,
    clock::{Clock, Monotonic},
    topology::Settings,
};
use stormkeeper_runtime::tasks::Tasks;
use stormkeeper_stream::grouping;

/// The first delay before a child is started again, and the longest: a component that can
/// not run costs two starts a minute.
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(30);

/// A child that ran for so long was fine: the next delay is short again.
const STEADY_RUN: Duration = Duration::from_secs(60);

/// How long a child whose stdout ended may take to exit, so that its status can be told.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// The same for one that is ended for what it did; most such children are about to exit.
const BLAMED_GRACE: Duration = Duration::from_millis(100);

/// How long a child may take to end once its stdin is closed and the worker stops.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(500);

/// How often a child's silence is looked at, and a bolt's child asked for a sign of life;
/// as often as Storm does.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// What a spout and a bolt have in common.
pub(super) struct Seat {
    pub(super) task: TaskId,
    pub(super) launch: Launch,
    pub(super) topology: TopologyId,
    pub(super) defaults: Settings,
    pub(super) wiring: watch::Receiver<Arc<Wiring>>,
    pub(super) settings: TaskSettings,
    pub(super) emitter: Emitter,
    pub(super) counters: Arc<TaskCounters>,
    pub(super) errors: Reporter,
    pub(super) board: StatusBoard,
    pub(super) clock: Clock,
    /// Owns what reads the children's stderr; when it is cancelled the task stops.
    pub(super) tasks: Tasks,
    pub(super) metrics: TaskMetrics,
}

/// What differs between a spout and a bolt.
pub(super) enum Part {
    Spout(Spout),
    Bolt(Bolt),
}

/// Why a child's run ended before its worker wanted it to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Child(#[from] child::Error),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error(transparent)]
    Route(#[from] grouping::Error),
    #[error("it was silent for {0:?}")]
    Silent(Duration),
}

/// A message that is fine by itself and wrong here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Violation {
    #[error("it sent {what:?} before its pid")]
    BeforePid { what: &'static str },
    #[error("it sent its pid twice")]
    PidTwice,
    #[error("it is a spout and sent {what:?}, as only a bolt may")]
    NotForSpouts { what: &'static str },
    #[error("it sent {what:?} for tuple {id:?}, which it does not have: unknown, or acked or failed before")]
    NotInFlight { what: &'static str, id: String },
}

impl Seat {
    /// Made for each child and dropped at once: it names every task of the topology, which
    /// is too much to keep for every task.
    fn start_child(&self) -> Result<Child, child::Error> {
        let Wiring { topology, table, .. } = &**self.wiring.borrow();
        let Launch { component, pid_dir, .. } = &self.launch;
        let (id, defaults) = (&self.topology, &self.defaults);
        let hello = handshake::message(id, topology, defaults, table, component, self.task, pid_dir);
        Child::start(&self.launch, &hello, &self.tasks)
    }

    /// The next message that the child has said whole, if there is one.
    fn heard(&mut self, child: &mut Child) -> Result<Option<FromChild>, child::Error> {
        if !self.metrics.times_message() {
            return child.heard();
        }
        let begun = self.clock.monotonic();
        let heard = child.heard()?;
        if heard.is_some() {
            self.metrics.deserialized(self.clock.monotonic().since(begun));
        }
        Ok(heard)
    }

    fn show(&self, status: TaskStatus) {
        self.board.set(self.task, status);
    }

    fn note(&mut self, remark: Remark) {
        let (component, task) = (&self.launch.component, self.task);
        match remark {
            Remark::Error(text) => self.report(&text),
            Remark::Log { level, text } => match level {
                LogLevel::Trace => trace!(%component, %task, "{text}"),
                LogLevel::Debug => debug!(%component, %task, "{text}"),
                LogLevel::Info => info!(%component, %task, "{text}"),
                LogLevel::Warn => warn!(%component, %task, "{text}"),
                LogLevel::Error => error!(%component, %task, "{text}"),
            },
            Remark::Metrics { name, value } => {
                if let Err(wrong) = self.metrics.user(&name, &value) {
                    self.report(&wrong);
                }
            }
        }
    }

    /// Reports a text of the child's.
    fn report(&self, text: &str) {
        let (message, stack) = headline(text);
        self.errors.report(&self.launch.component, self.task, message.to_owned(), stack.to_owned());
    }

    fn watch_silence(&self) -> (Interval, Silence) {
        let limit = self.settings.timeout;
        // Often enough that a short limit is kept as well.
        let period = CHECK_PERIOD.min(limit / 4).max(Duration::from_millis(1));
        let mut checks = tokio::time::interval(period);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let silence = Silence { limit, period, checked: self.clock.monotonic(), silent_for: Duration::ZERO };
        (checks, silence)
    }
}

/// How long a child has been silent while it could be heard.
#[derive(Debug)]
struct Silence {
    limit: Duration,
    period: Duration,
    checked: Monotonic,
    silent_for: Duration,
}

impl Silence {
    /// The child gave a sign of life, or is asked for one only now.
    fn broken(&mut self) {
        self.silent_for = Duration::ZERO;
    }

    /// Looks at the time, about once in a period.
    fn check(&mut self, now: Monotonic) -> Result<(), Failure> {
        // A check that comes late counts little: we waited for our outbox, or the whole
        // process was stopped, and nobody listened meanwhile.
        self.silent_for += now.since(self.checked).min(2 * self.period);
        self.checked = now;
        match self.silent_for > self.limit {
            true => Err(Failure::Silent(self.limit)),
            false => Ok(()),
        }
    }
}

/// The line that says what happened, and the whole text when there is more: the first line,
/// but the last one of a Python traceback.
fn headline(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once('\n') {
        None => (text, ""),
        Some(("Traceback (most recent call last):", rest)) => (rest.lines().last().unwrap_or(text), text),
        Some((first, _)) => (first, text),
    }
}

impl Part {
    /// Works with a child until that fails. Dropping the future between two messages or
    /// while it waits for its outbox loses at most the message in hand.
    async fn converse(&mut self, seat: &mut Seat, child: &mut Child) -> Failure {
        let ended = match self {
            Self::Spout(spout) => spout.converse(seat, child).await,
            Self::Bolt(bolt) => bolt.converse(seat, child).await,
        };
        match ended {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    /// Tells a child that its worker stops.
    async fn take_leave(&mut self, child: &mut Child) {
        match self {
            Self::Spout(spout) => spout.take_leave(child).await,
            // Its stdin is about to end, which says it all.
            Self::Bolt(_) => {}
        }
    }

    /// Forgets a child, and counts the tuples that went with it as failed.
    fn forget_child(&mut self, seat: &mut Seat) {
        match self {
            Self::Spout(spout) => spout.forget_child(),
            Self::Bolt(bolt) => bolt.forget_child(|given| {
                seat.counters.failed.add(1);
                seat.metrics.failed(given.source);
            }),
        }
        seat.metrics.settle();
    }
}

/// Runs a task until its `seat.tasks` are cancelled, starting its child again whenever it
/// fails.
pub(super) async fn run(mut seat: Seat, mut part: Part) {
    let cancelled = seat.tasks.cancelled();
    let mut backoff =
        Backoff::new(RESTART_MIN, RESTART_MAX, fastrand::Rng::new()).expect("the constants are in order");
    loop {
        let began = seat.clock.monotonic();
        let (failure, obituary) = match seat.start_child() {
            Err(error) => (Failure::from(error), None),
            Ok(mut child) => {
                let failure = tokio::select! {
                    // Dropping the conversation is how it stops; see `converse`.
                    () = cancelled.cancelled() => None,
                    failure = part.converse(&mut seat, &mut child) => Some(failure),
                };
                let Some(failure) = failure else {
                    part.take_leave(&mut child).await;
                    child.end(STOP_GRACE).await;
                    seat.metrics.settle();
                    return;
                };
                let grace = match failure {
                    Failure::Child(child::Error::Ended { .. }) => EXIT_GRACE,
                    _ => BLAMED_GRACE,
                };
                (failure, Some(child.end(grace).await))
            }
        };
        if cancelled.is_cancelled() {
            // It ended because everything does.
            return;
        }
        seat.show(TaskStatus::Restarting);
        part.forget_child(&mut seat);
        let component = seat.launch.component.clone();
        let mut message = format!("task {} of {component}: {failure}", seat.task);
        let mut last_words = String::new();
        if let Some(obituary) = obituary {
            message.push_str(&format!(" ({})", obituary.exit));
            if let Some(line) = obituary.last_words.lines().last() {
                message.push_str(&format!("; it said last: {line}"));
            }
            last_words = obituary.last_words;
        }
        if seat.clock.monotonic().since(began) >= STEADY_RUN {
            backoff.reset();
        }
        let delay = backoff.next_delay();
        seat.errors.report(&component, seat.task, message, last_words);
        info!(%component, task = %seat.task, ?delay, "the component's process is started again");
        tokio::select! {
            // Cancel-safe: both only wait.
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
    fn a_child_is_silent_only_while_it_is_listened_to() {
        let clock = Clock::manual(Timestamp::EPOCH);
        let secs = Duration::from_secs;
        let mut silence =
            Silence { limit: secs(10), period: secs(1), checked: clock.monotonic(), silent_for: secs(0) };
        let mut after = |by, broken: bool| {
            clock.turn(by);
            if broken {
                silence.broken();
            }
            silence.check(clock.monotonic()).is_ok()
        };
        assert!((0..10).all(|_| after(secs(1), false)));
        assert!(!after(secs(1), false));
        assert!(after(secs(1), true));
        // The process was stopped for an hour.
        assert!(after(secs(3600), false));
        assert!((0..7).all(|_| after(secs(1), false)));
        assert!(!after(secs(1), false));
    }

    #[test]
    fn the_line_that_says_what_happened_is_found() {
        assert_eq!(headline("oh no\n"), ("oh no", ""));
        assert_eq!(headline("oh no\nat x\n"), ("oh no", "oh no\nat x"));
        let traceback = "Traceback (most recent call last):\n  File \"x\"\nValueError: bad";
        assert_eq!(headline(traceback), ("ValueError: bad", traceback));
    }
}
