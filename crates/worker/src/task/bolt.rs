//! A bolt's loop: sends tuples from the inbox to the child, and the child's emits to the outbox.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use tokio::time::Interval;

use super::{
    ChildWatchdog, Failure, TaskContext, Tracking,
    bolt_protocol::{BoltProtocol, Effect},
    in_flight::{InFlightTuple, TupleKind},
    write_window::WriteWindow,
};
use crate::{
    multilang::{
        child::Child,
        message::{EmitReply, ToChild},
    },
    queue::Inbox,
    samples::{Values, Way},
    settings::Tick,
    tracking::{Delivery, Settled, Settlement},
};
use stormkeeper_model::{backoff::Delays, clock::Monotonic, heartbeat::TaskStatus, topology::Ackers};
use stormkeeper_stream::{AnchorList, Tuple, Value};

/// Limit of encoded bytes queued for the child's stdin. The reply to an emit cannot overtake
/// queued tuples, so the queue holds no more than it takes to keep the pipe busy.
const WRITE_AHEAD_BYTES: usize = 32 << 10;

/// Delays between two looks at the pipe of a child that has not read enough for the next tuple:
/// a pipe does not tell its writer that it was read.
const LOOK: Delays = Delays::between(Duration::from_millis(1), Duration::from_millis(20));

/// Least time after which a component is reported that has acked none of its tuples.
const MISSING_ACKS_MIN: Duration = Duration::from_secs(10);

/// Source component, streams and source task of the system's own tuples.
const SYSTEM_COMPONENT: &str = "__system";
const TICK_STREAM: &str = "__tick";
const HEARTBEAT_STREAM: &str = "__heartbeat";
const SYSTEM_TASK: i64 = -1;

/// Bolt-specific part of a task.
pub(crate) struct Bolt {
    inbox: Inbox,
    protocol: BoltProtocol,
    // Tuples taken from the inbox and not yet sent to a child; they outlive the child.
    waiting: VecDeque<Tuple>,
    taken: Vec<Tuple>,
    // Tuples that were written for this child and not read yet.
    window: WriteWindow,
    // Settlements by the messages that are being handled, to be told to the ackers.
    settled: Vec<Settled>,
    // True if it was reported that the component never acks.
    never_acks: bool,
    // True if a tick is due. At most one tick waits: a late bolt receives one, not all missed ones.
    tick_due: bool,
}

impl Bolt {
    /// Creates a bolt that processes the tuples of `inbox`.
    pub(crate) fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            protocol: BoltProtocol::default(),
            waiting: VecDeque::new(),
            taken: Vec::new(),
            window: WriteWindow::new(1, Duration::ZERO),
            settled: Vec::new(),
            never_acks: false,
            tick_due: false,
        }
    }

    pub(super) async fn run_protocol(
        &mut self,
        context: &mut TaskContext,
        child: &mut Child,
    ) -> Result<Infallible, Failure> {
        let (mut checks, mut watchdog) = context.start_watchdog();
        // Nothing is given before the handshake, which says whether the child takes batches.
        let mut max_pending = context.settings.max_pending;
        self.window = WriteWindow::new(max_pending, context.settings.timeout);
        let mut looks = LOOK.backoff();
        let mut look_due = looks.next_delay();
        let mut ticks = context.settings.tick.as_ref().map(ticks);
        let mut inbox_open = true;
        loop {
            if child.takes_batches() && max_pending != context.settings.max_pending_in_batches {
                max_pending = context.settings.max_pending_in_batches;
                self.window = WriteWindow::new(max_pending, context.settings.timeout);
            }
            if self.has_read_since(child, context.clock.monotonic()) {
                watchdog.reset();
                looks.reset();
                look_due = looks.next_delay();
            }
            self.write_pending(context, child);
            context.counters.set_pending(self.n_pending());
            let n_ahead = self.waiting.len() + self.window.n_unread();
            context.metrics.waiting(n_ahead, max_pending);
            context.metrics.settle();
            let room = max_pending.saturating_sub(n_ahead);
            let waits_for_reading = self.window.n_unread() > 0 && (room == 0 || !self.waiting.is_empty());
            tokio::select! {
                // Cancel-safe: see `exchange`.
                exchanged = child.exchange() => {
                    exchanged?;
                    self.handle_messages(context, child, &mut watchdog).await?;
                }
                // Cancel-safe: no tuple is taken unless the call returns.
                n = self.inbox.recv_many(&mut self.taken, room), if inbox_open && room > 0 => {
                    inbox_open = n > 0;
                    self.waiting.extend(self.taken.drain(..));
                    if context.metrics.is_on() {
                        context.metrics.batch_received(context.clock.monotonic());
                    }
                }
                // Cancel-safe: a tick that is not returned is due at the next call.
                () = next_tick(&mut ticks) => self.tick_due = true,
                // Cancel-safe: the next turn of the loop looks at the pipe in any case.
                () = tokio::time::sleep(look_due), if waits_for_reading => look_due = looks.next_delay(),
                _ = checks.tick() => {
                    watchdog.check(context.clock.monotonic(), self.protocol.awaited())?;
                    self.send_heartbeat(context, child);
                    context.report_killed_for_memory(child);
                    self.report_missing_acks(context);
                }
            }
        }
    }

    /// Reports a component that has had a tracked tuple for much longer than the message timeout and has
    /// never acked or failed any, once until it is restarted.
    fn report_missing_acks(&mut self, context: &TaskContext) {
        let Some(Tracking { timeout: Some(timeout), .. }) = &context.tracking else { return };
        let now = context.clock.monotonic();
        let limit = (2 * *timeout).max(MISSING_ACKS_MIN);
        let is_missing = self.protocol.unsettled_since().is_some_and(|since| now.since(since) > limit);
        if is_missing && !std::mem::replace(&mut self.never_acks, true) {
            context.report(&format!(
                "task {} of {} has neither acked nor failed any of its tuples in {} s, so every tuple of a spout that \
                 reaches it fails after {} s; ack each tuple when it is done, or set {} to 0 if nobody needs acks",
                context.task,
                context.launch.component,
                limit.as_secs(),
                timeout.as_secs(),
                Ackers::SETTING,
            ));
        }
    }

    /// Returns whether the child has read from its pipe since the last call, if tuples are unread.
    fn has_read_since(&mut self, child: &Child, now: Monotonic) -> bool {
        self.window.n_unread() > 0 && self.window.read(child.read_bytes(), now)
    }

    /// Returns the number of tuples that were received and that the component has not finished.
    pub(super) fn n_pending(&self) -> u64 {
        (self.inbox.len() + self.waiting.len()) as u64 + self.protocol.n_unfinished()
    }

    /// Encodes waiting tuples for the child's stdin, as many as it takes to keep the pipe busy and as
    /// the window allows. Ticks are not held back.
    fn write_pending(&mut self, context: &mut TaskContext, child: &mut Child) {
        if !self.protocol.is_handshake_done() {
            return;
        }
        if let Some(tick) = context.settings.tick.as_ref().filter(|_| self.tick_due) {
            self.tick_due = false;
            let id = self.protocol.add_tuple(TupleKind::Tick);
            child.send(&system_tuple(
                &id.to_string(),
                Some(SYSTEM_COMPONENT),
                TICK_STREAM,
                std::slice::from_ref(&tick.value),
            ));
        }
        let now = context.clock.monotonic();
        let mut n_sent = 0;
        while child.unsent_bytes() < WRITE_AHEAD_BYTES && !self.window.is_full() {
            let Some(tuple) = self.waiting.pop_front() else { break };
            if context.sampler.is_next() {
                let trees = AnchorList::Given(tuple.anchors());
                let way = Way::Received { origin: tuple.origin(), trees };
                context.sampler.show(way, Values::Plain(tuple.values()));
            }
            let source = context.metrics.executed(tuple.origin(), tuple.emitted_at(), now);
            let delivery = Delivery::of(AnchorList::Given(tuple.anchors()), context.task);
            let id = self.protocol.add_tuple(TupleKind::Input(InFlightTuple { source, at: now, delivery }));
            child.send_tuple(id, &tuple);
            self.window.wrote(child.queued_bytes(), now);
            n_sent += 1;
            context.counters.executed.add(1);
        }
        child.finish_batch();
        if n_sent > 0 && context.metrics.is_on() {
            context.metrics.serialized(context.clock.monotonic().since(now));
        }
    }

    fn send_heartbeat(&mut self, context: &mut TaskContext, child: &mut Child) {
        if let Some(id) = self.protocol.heartbeat() {
            if context.metrics.is_on() {
                context.metrics.heartbeat_sent(context.clock.monotonic());
            }
            child.send(&system_tuple(&id.to_string(), None, HEARTBEAT_STREAM, &[]));
        }
    }

    /// Handles all received messages of the child.
    async fn handle_messages(
        &mut self,
        context: &mut TaskContext,
        child: &mut Child,
        watchdog: &mut ChildWatchdog,
    ) -> Result<(), Failure> {
        // One clock reading for all messages that arrived together.
        let now = context.clock.monotonic();
        let mut has_received = false;
        while let Some(received) = context.next_message(child)? {
            has_received = true;
            watchdog.reset();
            match context.effect_of(received, child, |message| self.protocol.on_message(message)) {
                Ok(effect) => self.handle_effect(effect, context, child, now).await,
                Err(Some(refused)) => self.protocol.refuse(&refused.anchors),
                Err(None) => {}
            }
            // Before an ack that follows: it would complete the tree.
            self.settled.extend(self.protocol.take_refused());
        }
        context.settle(&mut self.settled);
        // An exchange that only wrote is no sign of life: a bolt that hangs would look idle.
        if has_received && context.metrics.is_on() {
            context.metrics.bolt_messages_handled(now);
        }
        Ok(())
    }

    async fn handle_effect(
        &mut self,
        effect: Effect,
        context: &mut TaskContext,
        child: &mut Child,
        now: Monotonic,
    ) {
        match effect {
            Effect::Nothing => {}
            Effect::Synced => context.metrics.heartbeat_answered(),
            Effect::HandshakeDone => context.show(TaskStatus::Running),
            Effect::Emit(emit) => {
                let (reply, anchors) = (emit.reply, &emit.anchors);
                let (n_trees, protocol) = (self.protocol.n_trees(anchors), &mut self.protocol);
                let anchor = |receivers: &[_], _| protocol.anchor(anchors, receivers);
                match context.emitter.emit_message(&emit, n_trees, &mut context.metrics, anchor).await {
                    Ok(receivers) => match reply {
                        EmitReply::TaskIds => child.send(&ToChild::TaskIds(receivers)),
                        EmitReply::None => {}
                    },
                    Err(error) => {
                        self.protocol.refuse(anchors);
                        context.refuse(child, &error.to_string(), reply);
                    }
                }
            }
            Effect::Acked(given) => {
                context.counters.acked.add(1);
                context.metrics.child_acked(given.source, given.at, now);
                self.settled.extend(given.delivery.acked());
            }
            Effect::Failed(given) => {
                context.counters.failed.add(1);
                context.metrics.child_failed(given.source, given.at);
                self.settled.extend(given.delivery.settled(Settlement::Failed));
            }
            Effect::TimeoutReset(delivery) => {
                self.settled.extend(delivery.settled(Settlement::TimeoutReset));
            }
            Effect::Notice(notice) => context.handle_notice(notice),
        }
    }

    /// Resets the protocol for a new child. Calls `lost` for each open input of the old child, whose trees
    /// fail.
    pub(super) fn reset(&mut self, context: &mut TaskContext, mut lost: impl FnMut(&InFlightTuple)) {
        let settled = &mut self.settled;
        self.protocol.reset(|given| {
            lost(&given);
            settled.extend(given.delivery.settled(Settlement::Failed));
        });
        context.settle(settled);
        self.never_acks = false;
    }
}

fn system_tuple<'a>(id: &'a str, comp: Option<&'a str>, stream: &'a str, tuple: &'a [Value]) -> ToChild<'a> {
    ToChild::Tuple { id, comp, stream, task: SYSTEM_TASK, tuple }
}

fn ticks(tick: &Tick) -> Interval {
    let mut ticks = tokio::time::interval(tick.period);
    // The first tick is due after one period, not at once.
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
