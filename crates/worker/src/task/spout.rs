//! A spout's loop: requests tuples while the topology is active, at the rate at which they can be
//! sent on.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Failure, TaskContext, Tracking,
    spout_protocol::{Care, Effect, SpoutProtocol, TreeLimits, Yield},
};
use crate::{
    multilang::{
        batch::{OUTCOMES_MAX, Outcomes},
        child::{self, Child, Received},
        message::{ComponentNotice, Emit, EmitReply, SpoutCommand, ToChild},
    },
    tracking::{Mailbox, News, Outcome, PENDING_MAX, PendingTuple},
};
use stormkeeper_model::{TaskId, clock::Monotonic, heartbeat::TaskStatus};
use stormkeeper_stream::{Anchor, Anchors};

/// Longest pause of a spout that has nothing to emit: the spout is then called 20 times a
/// second, which costs next to nothing, and a new tuple waits at most this long.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Time limit for a spout to reply to `deactivate` when its worker stops.
const DEACTIVATE_TIMEOUT: Duration = Duration::from_millis(300);

/// Period of looking whether the component owes an answer: one that is outstanding at two looks is
/// shown as pending.
const OWED_PERIOD: Duration = Duration::from_millis(250);

/// Period of the reports that tuples timed out.
const TIMEOUTS_PERIOD: Duration = Duration::from_secs(60);

/// Activity of the spouts: an active spout is called for tuples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    Active,
    Inactive,
}

/// Spout-specific part of a task.
pub(crate) struct Spout {
    activity: watch::Receiver<Activity>,
    protocol: SpoutProtocol,
    // Time at which the pending command was sent to the child.
    command_sent_at: Option<Monotonic>,
    // Commands that were sent to the child.
    n_commands: u64,
    // Number of commands at the last look, if the answer to the last of them was outstanding.
    owed: Option<u64>,
    // `None` if trees are not tracked.
    mailbox: Option<Arc<Mailbox>>,
    limits: Option<TreeLimits>,
    // Tuples that timed out since the last report about them, and its time.
    n_timed_out: u64,
    timeouts_reported: Option<Monotonic>,
}

/// Pauses of a spout that emits nothing: they double up to a maximum, and start over after an
/// emit.
pub(crate) struct Pauses {
    first: Duration,
    next: Duration,
}

impl Pauses {
    pub(crate) fn from(first: Duration) -> Self {
        Self { first, next: first }
    }

    pub(crate) fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(MAX_PAUSE.max(self.first));
        pause
    }

    pub(crate) fn start_over(&mut self) {
        self.next = self.first;
    }
}

impl Spout {
    /// Creates the spout of a task that is called for tuples while `activity` is active, and while it has
    /// fewer than `max_pending` pending tuples, if their trees are tracked.
    pub(crate) fn new(
        activity: watch::Receiver<Activity>,
        task: TaskId,
        tracking: Option<&Tracking>,
        max_pending: usize,
    ) -> Self {
        let limits = tracking.map(|tracking| TreeLimits { max_pending, timeout: tracking.timeout });
        Self {
            activity,
            protocol: SpoutProtocol::new(limits),
            command_sent_at: None,
            n_commands: 0,
            owed: None,
            mailbox: tracking.map(|tracking| tracking.tracker.mailbox(task)),
            limits,
            n_timed_out: 0,
            timeouts_reported: None,
        }
    }

    pub(super) async fn run_protocol(
        &mut self,
        context: &mut TaskContext,
        child: &mut Child,
    ) -> Result<Infallible, Failure> {
        let (mut checks, mut watchdog) = context.start_watchdog();
        let mut owed_looks = tokio::time::interval(OWED_PERIOD);
        owed_looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pauses = Pauses::from(context.settings.spout_wait);
        let mut paused = false;
        let pause = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(pause);
        let mailbox = self.mailbox.clone();
        loop {
            self.take_news(context);
            context.metrics.pending(self.protocol.n_pending());
            let activity = *self.activity.borrow();
            if self.send_next_command(activity, child, !paused) {
                watchdog.reset();
                self.command_sent_at = context.metrics.is_on().then(|| context.clock.monotonic());
                if let Some(now) = self.command_sent_at.filter(|_| self.protocol.is_called()) {
                    context.metrics.spout_call_began(now);
                }
            }
            tokio::select! {
                // Cancel-safe: see `exchange`.
                exchanged = child.exchange() => {
                    exchanged?;
                    while let Some(received) = context.next_message(child)? {
                        watchdog.reset();
                        let Some(effect) = self.effect_of(received, context, child) else { continue };
                        self.record_call(&effect, context);
                        match effect {
                            Effect::Next(Yield::Nothing, _) => {
                                paused = true;
                                pause.as_mut().reset(tokio::time::Instant::now() + pauses.take());
                            }
                            Effect::Emit(..) => pauses.start_over(),
                            Effect::Nothing | Effect::HandshakeDone | Effect::Next(..) | Effect::Notice(_) => {}
                        }
                        self.handle_effect(effect, context, child).await;
                    }
                    context.metrics.settle();
                }
                // Cancel-safe: the value itself is read above.
                changed = self.activity.changed() => {
                    if changed.is_err() {
                        // The worker is stopping, and ends this loop.
                        std::future::pending::<()>().await;
                    }
                    paused = false;
                    pauses.start_over();
                    self.show_activity(context);
                }
                () = &mut pause, if paused => paused = false,
                // Cancel-safe: the news are taken above.
                () = news(mailbox.as_deref()) => {}
                _ = checks.tick() => {
                    if self.protocol.awaits_answer() {
                        watchdog.check(context.clock.monotonic(), self.protocol.awaited())?;
                    }
                    context.report_killed_for_memory(child);
                    self.expire(context);
                }
                _ = owed_looks.tick() => {
                    let owed = u64::from(self.owes_an_answer());
                    context.counters.set_pending(owed.max(self.protocol.n_pending() as u64));
                }
            }
        }
    }

    /// Returns whether the same answer was outstanding at the last look.
    fn owes_an_answer(&mut self) -> bool {
        let owed = self.protocol.awaits_answer().then_some(self.n_commands);
        let before = std::mem::replace(&mut self.owed, owed);
        owed.is_some() && owed == before
    }

    /// Sends the next command to the child, if there is one. Returns whether it sent one.
    fn send_next_command(&mut self, activity: Activity, child: &mut Child, may_call: bool) -> bool {
        if child.takes_batches() {
            let mut outcomes = self.protocol.next_outcomes(OUTCOMES_MAX).peekable();
            if outcomes.peek().is_some() {
                child.send(&Outcomes::of(outcomes));
                self.n_commands += 1;
                return true;
            }
        }
        let Some((command, id)) = self.protocol.next_command(activity, may_call) else { return false };
        match command {
            SpoutCommand::Next if child.takes_batches() => {
                child.send(&ToChild::Next { command, room: self.protocol.room() });
            }
            _ => child.send(&ToChild::Command { command, id: &id }),
        }
        self.n_commands += 1;
        true
    }

    /// Returns the effect of a message; `None` if the message is refused. A refused emit fails.
    fn effect_of(
        &mut self,
        received: Received,
        context: &mut TaskContext,
        child: &mut Child,
    ) -> Option<Effect> {
        match context.effect_of(received, child, |message| self.protocol.on_message(message)) {
            Ok(effect) => Some(effect),
            Err(refused) => {
                if refused.is_some_and(|emit| self.protocol.refuse(emit.id)) {
                    context.counters.failed.add(1);
                    context.metrics.failed_at_once();
                }
                None
            }
        }
    }

    /// Records the duration of a completed `next`.
    fn record_call(&mut self, effect: &Effect, context: &mut TaskContext) {
        let Effect::Next(_, calls) = effect else { return };
        if let Some(command_sent_at) = self.command_sent_at.take() {
            let took = context.clock.monotonic().since(command_sent_at);
            // All of them took equally long, as far as is known.
            for call in 1..=calls.n {
                context.metrics.spout_called(took / calls.n, calls.is_last_empty && call == calls.n);
            }
        }
    }

    fn show_activity(&self, context: &TaskContext) {
        if self.protocol.is_handshake_done() {
            context.show(match *self.activity.borrow() {
                Activity::Active => TaskStatus::Running,
                Activity::Inactive => TaskStatus::Inactive,
            });
        }
    }

    async fn handle_effect(&mut self, effect: Effect, context: &mut TaskContext, child: &mut Child) {
        match effect {
            Effect::Nothing | Effect::Next(Yield::Nothing, _) => {}
            Effect::HandshakeDone => self.show_activity(context),
            Effect::Emit(emit, care) => self.emit(emit, care, context, child).await,
            Effect::Next(Yield::Something, calls) => {
                context
                    .counters
                    .executed
                    .add(u64::from(calls.n) - u64::from(calls.is_last_empty && calls.n > 1));
            }
            Effect::Notice(notice) => context.handle_notice(notice),
        }
    }

    async fn emit(&mut self, emit: Emit, care: Care, context: &mut TaskContext, child: &mut Child) {
        let (reply, stream) = (emit.reply, emit.stream.as_ref());
        let TaskContext { emitter, metrics, tracking, clock, task, .. } = context;
        let (protocol, tracking) = (&mut self.protocol, tracking.as_ref());
        let begin = |receivers: &[TaskId], stream| {
            let (Care::Tree(id), Some(Tracking { tracker, .. })) = (&care, tracking) else {
                return Anchors::None;
            };
            let acker = tracker.acker_for(*task);
            let anchor = Anchor { acker, root: fastrand::u64(..), edge: fastrand::u64(..) };
            let tuple = PendingTuple { id: id.clone(), emitted: clock.monotonic(), stream };
            protocol.begin(anchor.root, tuple);
            tracker.begin(anchor, *task, receivers);
            Anchors::One(anchor)
        };
        let n_receivers = match emitter.emit_message(&emit, 1, metrics, begin).await {
            Ok(receivers) => {
                match reply {
                    EmitReply::TaskIds => child.send(&ToChild::TaskIds(receivers)),
                    EmitReply::None => {}
                }
                receivers.len()
            }
            Err(error) => {
                if let Care::Tree(id) | Care::AckAtOnce(id) = care {
                    self.protocol.tell(Outcome::Failed, id);
                    context.counters.failed.add(1);
                    context.metrics.failed_at_once();
                }
                context.refuse(child, &error.to_string(), reply);
                return;
            }
        };
        match care {
            Care::None => {}
            // The tree decides, unless nobody receives the tuple.
            Care::Tree(_) if n_receivers > 0 => {}
            Care::Tree(id) | Care::AckAtOnce(id) => {
                self.protocol.tell(Outcome::Acked, id);
                context.counters.acked.add(1);
                context.metrics.acked_at_once(stream);
            }
            Care::Dropped => context.report(&format!(
                "more than {PENDING_MAX} tuples with ids are pending: this tuple will be neither acked nor failed"
            )),
        }
    }

    /// Takes the news about the trees of this spout's tuples.
    fn take_news(&mut self, context: &mut TaskContext) {
        let Some(mailbox) = &self.mailbox else { return };
        let (news, now) = (mailbox.take(), context.clock.monotonic());
        for (root, news) in news {
            let outcome = match news {
                News::Ended(outcome) => outcome,
                News::TimeoutReset => {
                    self.protocol.reset_timeout(root, now);
                    continue;
                }
            };
            // A tree that timed out before has no tuple any more.
            let Some(tuple) = self.protocol.end(root, outcome) else { continue };
            match outcome {
                Outcome::Acked => {
                    context.counters.acked.add(1);
                    context.metrics.tree_acked(tuple.stream, now.since(tuple.emitted));
                }
                Outcome::Failed => {
                    context.counters.failed.add(1);
                    context.metrics.tree_failed(tuple.stream);
                }
            }
        }
    }

    /// Fails tuples whose time is over, and reports them once in a while.
    fn expire(&mut self, context: &mut TaskContext) {
        let Some(Tracking { tracker, timeout: Some(timeout) }) = context.tracking.clone() else { return };
        let now = context.clock.monotonic();
        while let Some((root, tuple)) = self.protocol.expire(now) {
            tracker.forget(root);
            context.counters.failed.add(1);
            context.metrics.tree_failed(tuple.stream);
            self.n_timed_out += 1;
        }
        let is_due = self.timeouts_reported.is_none_or(|before| now.since(before) >= TIMEOUTS_PERIOD);
        if self.n_timed_out > 0 && is_due {
            let n = std::mem::take(&mut self.n_timed_out);
            self.timeouts_reported = Some(now);
            context.report(&format!(
                "{n} tuples were not fully processed within {} s (topology.message.timeout.secs) and failed: a bolt \
                 is too slow, does not ack, or its worker ended",
                timeout.as_secs(),
            ));
        }
    }

    /// Deactivates an active spout before its stdin is closed, and returns what the child reports
    /// meanwhile. Bounded; tuples that the spout still emits are discarded.
    pub(super) async fn deactivate_child(&mut self, child: &mut Child) -> Vec<ComponentNotice> {
        let mut notices = Vec::new();
        let leave = async {
            loop {
                let has_sent = self.send_next_command(Activity::Inactive, child, false);
                if !has_sent && !self.protocol.awaits_answer() {
                    return Ok(());
                }
                child.exchange().await?;
                while let Some(received) = child.next_message()? {
                    // Refused messages and late tuples are discarded.
                    let message = match received {
                        Ok(parsed) => Some(parsed.message),
                        Err(refused) => refused.meant.map(|meant| *meant),
                    };
                    let effect = message.map(|message| self.protocol.on_message(message));
                    if let Some(Ok(Effect::Notice(notice))) = effect {
                        notices.push(notice);
                    }
                }
            }
        };
        // A child that fails now, or does not reply, is ended all the same.
        let _left: Result<Result<(), child::Error>, _> =
            tokio::time::timeout(DEACTIVATE_TIMEOUT, leave).await;
        notices
    }

    /// Resets the protocol for a new child. The pending tuples of the old one count as failed.
    pub(super) fn reset(&mut self, context: &mut TaskContext) {
        for (root, tuple) in self.protocol.abandon() {
            if let Some(Tracking { tracker, .. }) = &context.tracking {
                tracker.forget(root);
            }
            context.counters.failed.add(1);
            context.metrics.tree_failed(tuple.stream);
        }
        self.protocol = SpoutProtocol::new(self.limits);
        self.owed = None;
        context.counters.set_pending(0);
        context.metrics.pending(0);
    }
}

async fn news(mailbox: Option<&Mailbox>) {
    match mailbox {
        Some(mailbox) => mailbox.added().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_start_over() {
        let mut pauses = Pauses::from(Duration::from_millis(1));
        let taken: Vec<u128> = (0..8).map(|_| pauses.take().as_millis()).collect();
        assert_eq!(taken, [1, 2, 4, 8, 16, 32, 50, 50]);
        pauses.start_over();
        assert_eq!(pauses.take(), Duration::from_millis(1));
        let mut long = Pauses::from(Duration::from_millis(200));
        assert_eq!((long.take(), long.take()), (Duration::from_millis(200), Duration::from_millis(200)));
    }
}
