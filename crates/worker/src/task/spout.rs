//! A spout's loop: requests tuples while the topology is active, at the rate at which they can be
//! sent on.

use std::{convert::Infallible, time::Duration};

use tokio::sync::watch;

use super::{
    Failure, TaskContext,
    spout_protocol::{Effect, SpoutProtocol, Tracking, Yield},
};
use crate::multilang::{
    child::{self, Child, Received},
    message::{ComponentNotice, EmitReply, ToChild},
};
use stormkeeper_model::{clock::Monotonic, heartbeat::TaskStatus};

/// Longest pause of a spout that has nothing to emit: the spout is then called 20 times a
/// second, which costs next to nothing, and a new tuple waits at most this long.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Time limit for a spout to reply to `deactivate` when its worker stops.
const DEACTIVATE_TIMEOUT: Duration = Duration::from_millis(300);

/// Period of looking whether the component owes an answer: one that is outstanding at two looks is
/// shown as pending.
const OWED_PERIOD: Duration = Duration::from_millis(250);

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
}

/// Pauses of a spout that emits nothing: they double up to a maximum, and start over after an
/// emit.
struct Pauses {
    first: Duration,
    next: Duration,
}

impl Pauses {
    fn from(first: Duration) -> Self {
        Self { first, next: first }
    }

    fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(MAX_PAUSE.max(self.first));
        pause
    }

    fn start_over(&mut self) {
        self.next = self.first;
    }
}

impl Spout {
    /// Creates a spout that is called for tuples while `activity` is active.
    pub(crate) fn new(activity: watch::Receiver<Activity>) -> Self {
        Self {
            activity,
            protocol: SpoutProtocol::default(),
            command_sent_at: None,
            n_commands: 0,
            owed: None,
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
        loop {
            if !paused && self.send_next_command(child) {
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
                            Effect::Next(Yield::Nothing) => {
                                paused = true;
                                pause.as_mut().reset(tokio::time::Instant::now() + pauses.take());
                            }
                            Effect::Emit(..) => pauses.start_over(),
                            Effect::Nothing | Effect::HandshakeDone | Effect::Next(_) | Effect::Notice(_) => {}
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
                _ = checks.tick() => {
                    if self.protocol.awaits_answer() {
                        watchdog.check(context.clock.monotonic(), self.protocol.awaited())?;
                    }
                    context.report_killed_for_memory(child);
                }
                _ = owed_looks.tick() => context.counters.set_pending(u64::from(self.owes_an_answer())),
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
    fn send_next_command(&mut self, child: &mut Child) -> bool {
        let activity = *self.activity.borrow();
        let Some((command, id)) = self.protocol.next_command(activity) else { return false };
        child.send(&ToChild::Command { command, id: &id });
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
        let Effect::Next(outcome) = effect else { return };
        if let Some(command_sent_at) = self.command_sent_at.take() {
            let took = context.clock.monotonic().since(command_sent_at);
            context.metrics.spout_called(took, *outcome == Yield::Nothing);
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
            Effect::Nothing | Effect::Next(Yield::Nothing) => {}
            Effect::HandshakeDone => self.show_activity(context),
            Effect::Emit(emit, tracking) => {
                let reply = emit.reply;
                let stream = emit.stream.as_ref().filter(|_| tracking == Tracking::Acked).cloned();
                match context.emitter.emit(emit, &mut context.metrics).await {
                    Ok(receivers) => match reply {
                        EmitReply::TaskIds => child.send(&ToChild::TaskIds(receivers)),
                        EmitReply::None => {}
                    },
                    Err(error) => {
                        if tracking == Tracking::Acked {
                            self.protocol.fail_last();
                            context.counters.failed.add(1);
                            context.metrics.failed_at_once();
                        }
                        context.refuse(child, &error.to_string(), reply);
                        return;
                    }
                }
                match tracking {
                    Tracking::Untracked => {}
                    Tracking::Acked => {
                        context.counters.acked.add(1);
                        context.metrics.acked_at_once(stream.as_ref());
                    }
                    Tracking::AckDropped => context.report(
                        "too many tuples with ids emitted by one `next`: this tuple will not be acked",
                    ),
                }
            }
            Effect::Next(Yield::Something) => context.counters.executed.add(1),
            Effect::Notice(notice) => context.handle_notice(notice),
        }
    }

    /// Deactivates an active spout before its stdin is closed, and returns what the child reports
    /// meanwhile. Bounded; tuples that the spout still emits are discarded.
    pub(super) async fn deactivate_child(&mut self, child: &mut Child) -> Vec<ComponentNotice> {
        let mut notices = Vec::new();
        let leave = async {
            loop {
                if let Some((command, id)) = self.protocol.next_command(Activity::Inactive) {
                    child.send(&ToChild::Command { command, id: &id });
                } else if !self.protocol.awaits_answer() {
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

    /// Resets the protocol for a new child.
    pub(super) fn reset(&mut self) {
        self.protocol = SpoutProtocol::default();
        self.owed = None;
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
