//! A bolt's loop: tuples from the inbox to the child, what it says to the outbox.

use std::{collections::VecDeque, convert::Infallible};

use tokio::{sync::mpsc, time::Interval};

use super::{
    Failure, Seat, Silence,
    bolt_protocol::{BoltProtocol, Effect},
    in_flight::{Given, Kind},
};
use crate::{
    multilang::{
        child::Child,
        message::{Answer, ToChild},
    },
    settings::Tick,
};
use stormkeeper_model::{heartbeat::TaskStatus, clock::Monotonic};
use stormkeeper_stream::{Tuple, Value};

/// How many bytes of tuples are made ready for the child's stdin. What is in there cannot be
/// overtaken by the answer to an emit, so it is no more than keeps the pipe busy.
const WRITE_AHEAD_BYTES: usize = 32 << 10;

/// Where the system's own tuples come from, and the task they name.
const SYSTEM_COMPONENT: &str = "__system";
const TICK_STREAM: &str = "__tick";
const HEARTBEAT_STREAM: &str = "__heartbeat";
const SYSTEM_TASK: i64 = -1;

/// The bolt's side of a task.
pub(crate) struct Bolt {
    inbox: mpsc::Receiver<Tuple>,
    protocol: BoltProtocol,
    // Taken from the inbox and not given to the child yet; it outlives the child.
    waiting: VecDeque<Tuple>,
    taken: Vec<Tuple>,
    // Tuples encoded since the child's stdin was last empty.
    n_unwritten: usize,
    // A tick is due. One waits at most: a bolt that is late gets one, not all it missed.
    tick_due: bool,
}

impl Bolt {
    /// A bolt that is given the tuples of `inbox`.
    pub(crate) fn new(inbox: mpsc::Receiver<Tuple>) -> Self {
        Self {
            inbox,
            protocol: BoltProtocol::default(),
            waiting: VecDeque::new(),
            taken: Vec::new(),
            n_unwritten: 0,
            tick_due: false,
        }
    }

    pub(super) async fn converse(
        &mut self,
        seat: &mut Seat,
        child: &mut Child,
    ) -> Result<Infallible, Failure> {
        let (mut checks, mut silence) = seat.watch_silence();
        let mut ticks = seat.settings.tick.as_ref().map(ticks);
        let mut inbox_open = true;
        loop {
            self.feed(seat, child);
            seat.metrics.settle();
            let room = seat.settings.max_pending.saturating_sub(self.waiting.len() + self.n_unwritten);
            tokio::select! {
                // Cancel-safe: see `exchange`.
                exchanged = child.exchange() => {
                    exchanged?;
                    self.hear(seat, child, &mut silence).await?;
                }
                // Cancel-safe: nothing is taken unless it is returned.
                n = self.inbox.recv_many(&mut self.taken, room), if inbox_open && room > 0 => {
                    inbox_open = n > 0;
                    self.waiting.extend(self.taken.drain(..));
                    if seat.metrics.is_on() {
                        seat.metrics.took_batch(seat.clock.monotonic());
                    }
                }
                // Cancel-safe: a tick that is not returned is due at the next call.
                () = next_tick(&mut ticks) => self.tick_due = true,
                _ = checks.tick() => {
                    silence.check(seat.clock.monotonic())?;
                    self.ask_for_sign_of_life(child);
                }
            }
        }
    }

    /// Makes waiting tuples ready for the child's stdin, as many as it takes to keep it busy.
    fn feed(&mut self, seat: &mut Seat, child: &mut Child) {
        if child.unsent_bytes() == 0 {
            self.n_unwritten = 0;
        }
        if !self.protocol.is_greeted() {
            return;
        }
        if let Some(tick) = seat.settings.tick.as_ref().filter(|_| self.tick_due) {
            self.tick_due = false;
            let id = self.protocol.give(Kind::Tick);
            child.send(&system_tuple(
                &id.to_string(),
                Some(SYSTEM_COMPONENT),
                TICK_STREAM,
                std::slice::from_ref(&tick.value),
            ));
        }
        let now = seat.clock.monotonic();
        let mut n_given = 0;
        while child.unsent_bytes() < WRITE_AHEAD_BYTES {
            let Some(tuple) = self.waiting.pop_front() else { break };
            let source = seat.metrics.executed(&tuple, now);
            let id = self.protocol.give(Kind::Input(Given { source, at: now }));
            child.send(&ToChild::Tuple {
                id: &id.to_string(),
                comp: Some(tuple.component().as_str()),
                stream: tuple.stream().as_str(),
                task: i64::from(tuple.source().0),
                tuple: tuple.values(),
            });
            self.n_unwritten += 1;
            n_given += 1;
            seat.counters.executed.add(1);
        }
        if n_given > 0 && seat.metrics.is_on() {
            let ahead = (self.waiting.len() + self.n_unwritten, seat.settings.max_pending);
            seat.metrics.serialized(n_given, seat.clock.monotonic().since(now), ahead);
        }
    }

    fn ask_for_sign_of_life(&mut self, child: &mut Child) {
        if let Some(id) = self.protocol.heartbeat() {
            child.send(&system_tuple(&id.to_string(), None, HEARTBEAT_STREAM, &[]));
        }
    }

    /// Takes in what the child has said.
    async fn hear(
        &mut self,
        seat: &mut Seat,
        child: &mut Child,
        silence: &mut Silence,
    ) -> Result<(), Failure> {
        // One reading for all messages that came together.
        let now = seat.clock.monotonic();
        while let Some(message) = seat.heard(child)? {
            let effect = self.protocol.hear(message)?;
            self.carry_out(effect, seat, child, now).await?;
            silence.broken();
        }
        if seat.metrics.is_on() {
            seat.metrics.bolt_heard(now);
        }
        Ok(())
    }

    async fn carry_out(
        &mut self,
        effect: Effect,
        seat: &mut Seat,
        child: &mut Child,
        now: Monotonic,
    ) -> Result<(), Failure> {
        match effect {
            Effect::Nothing => {}
            Effect::Greeted => seat.show(TaskStatus::Running),
            Effect::Emit(emit) => {
                let answer = emit.answer;
                let receivers = seat.emitter.emit(emit, &mut seat.metrics).await?;
                match answer {
                    Answer::TaskIds => child.send(&ToChild::TaskIds(receivers)),
                    Answer::None => {}
                }
            }
            Effect::Acked(given) => {
                seat.counters.acked.add(1);
                seat.metrics.acked(given.source, given.at, now);
            }
            Effect::Failed(given) => {
                seat.counters.failed.add(1);
                seat.metrics.failed(given.source);
            }
            Effect::Note(remark) => seat.note(remark),
        }
        Ok(())
    }

    /// Begins anew with another child. Tells `lost` of every tuple that went with the old one.
    pub(super) fn forget_child(&mut self, lost: impl FnMut(Given)) {
        self.n_unwritten = 0;
        self.protocol.forget_child(lost);
    }
}

fn system_tuple<'a>(id: &'a str, comp: Option<&'a str>, stream: &'a str, tuple: &'a [Value]) -> ToChild<'a> {
    ToChild::Tuple { id, comp, stream, task: SYSTEM_TASK, tuple }
}

fn ticks(tick: &Tick) -> Interval {
    let mut ticks = tokio::time::interval(tick.period);
    // The first one is due after a period, not at once.
    ticks.reset();
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticks
}

async fn next_tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
