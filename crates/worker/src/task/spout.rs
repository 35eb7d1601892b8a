//! A spout's loop: it is asked for tuples while the topology is active, at the pace at which
//! they can be sent on.

use std::{convert::Infallible, time::Duration};

use tokio::sync::watch;

use super::{
    Failure, Seat,
    spout_protocol::{Effect, SpoutProtocol, Tracking, Yield},
};
use crate::multilang::{
    child::{self, Child},
    message::{Answer, ToChild},
};
use stormkeeper_model::{heartbeat::TaskStatus, clock::Monotonic};

/// The longest pause of a spout that has nothing to emit: it is then asked 20 times a
/// second, which costs next to nothing, and a new tuple waits at most this long.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// How long a spout may take to answer `deactivate` when its worker stops.
const LEAVE_PATIENCE: Duration = Duration::from_millis(300);

/// Whether spouts are asked for tuples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    Active,
    Inactive,
}

/// The spout's side of a task.
pub(crate) struct Spout {
    activity: watch::Receiver<Activity>,
    protocol: SpoutProtocol,
    // When the child was told what it does now.
    told: Option<Monotonic>,
}

/// The pauses of a spout that emits nothing: they double up to a maximum and start over
/// with the first emit.
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
    /// A spout that is asked for tuples while `activity` says so.
    pub(crate) fn new(activity: watch::Receiver<Activity>) -> Self {
        Self { activity, protocol: SpoutProtocol::default(), told: None }
    }

    pub(super) async fn converse(
        &mut self,
        seat: &mut Seat,
        child: &mut Child,
    ) -> Result<Infallible, Failure> {
        let (mut checks, mut silence) = seat.watch_silence();
        let mut pauses = Pauses::from(seat.settings.spout_wait);
        let mut paused = false;
        let pause = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(pause);
        loop {
            if !paused && self.tell_next(child) {
                silence.broken();
                self.told = seat.metrics.is_on().then(|| seat.clock.monotonic());
            }
            tokio::select! {
                // Cancel-safe: see `exchange`.
                exchanged = child.exchange() => {
                    exchanged?;
                    while let Some(message) = seat.heard(child)? {
                        let effect = self.protocol.hear(message)?;
                        self.note_call(&effect, seat);
                        match effect {
                            Effect::Next(Yield::Nothing) => {
                                paused = true;
                                pause.as_mut().reset(tokio::time::Instant::now() + pauses.take());
                            }
                            Effect::Emit(..) => pauses.start_over(),
                            Effect::Nothing | Effect::Greeted | Effect::Next(_) | Effect::Note(_) => {}
                        }
                        self.carry_out(effect, seat, child).await?;
                        silence.broken();
                    }
                    seat.metrics.settle();
                }
                // Cancel-safe: the value itself is looked at above.
                changed = self.activity.changed() => {
                    if changed.is_err() {
                        // The worker stops, and with it this loop.
                        std::future::pending::<()>().await;
                    }
                    paused = false;
                    pauses.start_over();
                    self.show_activity(seat);
                }
                () = &mut pause, if paused => paused = false,
                _ = checks.tick() => if self.protocol.owes_answer() {
                    silence.check(seat.clock.monotonic())?;
                }
            }
        }
    }

    /// Tells the child what is next for it, if anything. Answers whether there was.
    fn tell_next(&mut self, child: &mut Child) -> bool {
        let activity = *self.activity.borrow();
        let Some((command, id)) = self.protocol.next_command(activity) else { return false };
        child.send(&ToChild::Command { command, id: &id });
        true
    }

    /// Measures a `next` that is done.
    fn note_call(&mut self, effect: &Effect, seat: &mut Seat) {
        let Effect::Next(brought) = effect else { return };
        if let Some(told) = self.told.take() {
            let took = seat.clock.monotonic().since(told);
            seat.metrics.called(took, *brought == Yield::Nothing);
        }
    }

    fn show_activity(&self, seat: &Seat) {
        if self.protocol.is_greeted() {
            seat.show(match *self.activity.borrow() {
                Activity::Active => TaskStatus::Running,
                Activity::Inactive => TaskStatus::Inactive,
            });
        }
    }

    async fn carry_out(&mut self, effect: Effect, seat: &mut Seat, child: &mut Child) -> Result<(), Failure> {
        match effect {
            Effect::Nothing | Effect::Next(Yield::Nothing) => {}
            Effect::Greeted => self.show_activity(seat),
            Effect::Emit(emit, tracking) => {
                let answer = emit.answer;
                let stream = emit.stream.as_ref().filter(|_| tracking == Tracking::Acked).cloned();
                let receivers = seat.emitter.emit(emit, &mut seat.metrics).await?;
                match answer {
                    Answer::TaskIds => child.send(&ToChild::TaskIds(receivers)),
                    Answer::None => {}
                }
                match tracking {
                    Tracking::Untracked => {}
                    Tracking::Acked => {
                        seat.counters.acked.add(1);
                        seat.metrics.acked_at_once(stream.as_ref());
                    }
                    Tracking::AckDropped => seat.report(
                        "it emitted so many tuples with ids in one go that it is not told of the rest",
                    ),
                }
            }
            Effect::Next(Yield::Something) => seat.counters.executed.add(1),
            Effect::Note(remark) => seat.note(remark),
        }
        Ok(())
    }

    /// Deactivates an active spout before its stdin ends. Bounded; what it still emits goes
    /// nowhere.
    pub(super) async fn take_leave(&mut self, child: &mut Child) {
        let leave = async {
            loop {
                if let Some((command, id)) = self.protocol.next_command(Activity::Inactive) {
                    child.send(&ToChild::Command { command, id: &id });
                } else if !self.protocol.owes_answer() {
                    return Ok(());
                }
                child.exchange().await?;
                while let Some(message) = child.heard()? {
                    if self.protocol.hear(message).is_err() {
                        return Ok(());
                    }
                }
            }
        };
        // A child that fails now, or does not answer, is ended all the same.
        let _left: Result<Result<(), child::Error>, _> = tokio::time::timeout(LEAVE_PATIENCE, leave).await;
    }

    /// Begins anew with another child.
    pub(super) fn forget_child(&mut self) {
        self.protocol = SpoutProtocol::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_start_over() {
        let mut pauses = Pauses::from(Duration::from_millis(1));
        let taken: Vec<u128> = (0..8).map(|_| pauses.take().as_millis()).collect();
        assert_eq!(taken, [1, 2, 4, 8, 16, 32, 50, 50]);
        pauses.start_over();
        assert_eq!(pauses.take(), Duration::from_millis(1));
        let mut long = Pauses::from(Duration::from_millis(200));
        assert_eq!((long.take(), long.take()), (Duration::from_millis(200), Duration::from_millis(200)));
    }
}
