//! The thread of a bolt.

use std::{sync::Arc, time::Duration};

use super::{
    Bolt, BoltOutput, Error, Tuple,
    bolt_output::{Given, Settling, Untold},
    pace::Pace,
    registry::MakeBolt,
    task::{Sending, Surroundings},
};
use crate::{
    queue::Inbox,
    samples::{Values, Way},
    settings::TaskSettings,
    tracking::Delivery,
};
use stormkeeper_model::{ComponentId, StreamId, clock::Monotonic, heartbeat::TaskStatus};
use stormkeeper_stream::Origin;

/// Longest time for which an ack waits for others, to be told to the ackers with them.
const SETTLE_PERIOD: Duration = Duration::from_millis(1);

/// Period of looking at held tuples while nothing else happens: another thread may have dropped them.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Number of times in a message timeout that a bolt may reset the timeouts of what it holds: one may be late.
const RENEWALS: u32 = 3;

/// Number of times that an idle bolt lets other threads run before it waits.
const YIELDS: usize = 4;

/// A bolt's task, as far as it outlives the instances of the bolt.
pub(super) struct BoltTask {
    pub(super) sending: Sending,
    surroundings: Surroundings,
    make: MakeBolt,
    inbox: Inbox,
    pace: Pace,
    // Time of the last look at the clock.
    now: Monotonic,
    // The tuple at hand, which fails if the instance panics.
    at_hand: Option<Given>,
    settling: Settling,
    told: Monotonic,
    fields: Fields,
    tick: Option<Tick>,
    // `None` if tuples have no timeout.
    renewal: Option<Tick>,
}

/// Names of the fields of each input stream.
struct Fields {
    inputs: Vec<(ComponentId, StreamId, Arc<[String]>)>,
    // Of a stream that is no input.
    none: Arc<[String]>,
    // Origin of the last tuple, and position of its stream.
    last: Option<(Arc<Origin>, Option<usize>)>,
}

impl Fields {
    fn of(&mut self, origin: &Arc<Origin>) -> &Arc<[String]> {
        let known = self.last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, origin));
        let position = match known {
            Some((_, position)) => *position,
            None => {
                let is_it = |(from, on, _): &(ComponentId, StreamId, _)| {
                    *on == origin.stream && *from == origin.component
                };
                let position = self.inputs.iter().position(is_it);
                self.last = Some((Arc::clone(origin), position));
                position
            }
        };
        position.map_or(&self.none, |position| &self.inputs[position].2)
    }
}

struct Tick {
    period: Duration,
    next: Monotonic,
}

/// Reason to go on.
enum Woken {
    Tuples,
    Tick,
    /// Held tuples may have been settled or dropped by somebody else.
    Look,
    /// No tuple can come any more.
    Over,
}

impl BoltTask {
    pub(super) fn new(
        sending: Sending,
        surroundings: Surroundings,
        make: MakeBolt,
        inbox: Inbox,
        settings: &TaskSettings,
        untold: Untold,
    ) -> Self {
        let now = sending.clock.monotonic();
        let tick = settings.tick.as_ref();
        let tick = tick.map(|tick| Tick { period: tick.period, next: now.plus(tick.period) });
        let timeout = sending.tracking.as_ref().and_then(|tracking| tracking.timeout);
        let period = timeout.map(|timeout| timeout / RENEWALS);
        let renewal = period.map(|period| Tick { period, next: now.plus(period) });
        let inputs = surroundings.fields_of_inputs(&sending.component);
        let fields = Fields { inputs, none: Arc::default(), last: None };
        Self {
            sending,
            surroundings,
            make,
            inbox,
            pace: Pace::new(now),
            now,
            at_hand: None,
            settling: Settling::new(untold),
            told: now,
            fields,
            tick,
            renewal,
        }
    }

    /// Runs a new instance until the task is stopped.
    ///
    /// # Errors
    /// Error of preparing the instance.
    pub(super) fn run_instance(&mut self) -> Result<(), Error> {
        self.sending.call.begin();
        let mut bolt = (self.make)();
        let prepared = bolt.prepare(&mut self.surroundings.context(&mut self.sending));
        self.sending.call.end();
        prepared?;
        self.sending.show(TaskStatus::Running);
        while let Some(woken) = self.wait() {
            match woken {
                // The worker is stopping.
                Woken::Over => break,
                Woken::Tuples => self.execute_batch(&mut *bolt),
                Woken::Tick => self.tick(&mut *bolt),
                Woken::Look => {
                    self.settling.fail_dropped(&mut self.sending);
                    self.renew(&mut *bolt);
                }
            }
        }
        self.tell();
        bolt.cleanup();
        Ok(())
    }

    /// Counts what an instance leaves behind: the tuple at hand and the held ones fail.
    pub(super) fn end_instance(&mut self) {
        self.sending.call.end();
        if let Some(given) = self.at_hand.take() {
            self.settling.fail(&given, &mut self.sending);
        }
        self.sending.metrics.calls_end(&self.sending.clock);
        self.settling.fail_dropped(&mut self.sending);
        self.sending.metrics.child_ended();
        self.tell();
    }

    /// Waits for tuples or for the next tick, unless there are tuples. `None` if the task must stop.
    fn wait(&mut self) -> Option<Woken> {
        if self.sending.stop.is_cancelled() {
            return None;
        }
        if self.inbox.n_in_batch() > 0 {
            return Some(Woken::Tuples);
        }
        // Before the count of held tuples is told: what changes it afterwards is noticed.
        let holds = self.settling.n_held() > 0;
        // What there is already needs no wait.
        if self.inbox.peek().is_none() {
            self.sending.metrics.calls_end(&self.sending.clock);
            self.tell();
            // Waking a thread costs more than a tuple does: under load the emitter may just need the
            // processor.
            for _ in 0..YIELDS {
                if self.inbox.peek().is_some() {
                    break;
                }
                std::thread::yield_now();
            }
        }
        if self.inbox.n_in_batch() > 0 {
            self.received();
            return Some(Woken::Tuples);
        }
        self.now = self.sending.clock.monotonic();
        let until_tick = self.tick.as_ref().map(|tick| tick.next.since(self.now));
        let inbox = &mut self.inbox;
        let woken = self.sending.wait(async {
            tokio::select! {
                biased;
                () = tokio::time::sleep(until_tick.unwrap_or_default()), if until_tick.is_some() => Woken::Tick,
                // Cancel-safe: tuples stay in the inbox.
                is_ready = inbox.ready() => if is_ready { Woken::Tuples } else { Woken::Over },
                () = tokio::time::sleep(LOOK_PERIOD), if holds => Woken::Look,
            }
        })?;
        if let Woken::Tuples = woken {
            self.received();
        }
        Some(woken)
    }

    fn received(&mut self) {
        self.now = self.sending.clock.monotonic();
        self.sending.metrics.batch_received(self.now);
        self.sending.metrics.calls_go_on(self.now, &self.sending.clock);
    }

    /// Executes the tuples of the batch that was received, as long as the task need not stop.
    fn execute_batch(&mut self, bolt: &mut dyn Bolt) {
        while self.inbox.n_in_batch() > 0 {
            let is_asked = self.sending.call.takes_look();
            if (self.pace.is_due() || is_asked) && !self.look(bolt) {
                return;
            }
            self.execute_next(bolt);
        }
    }

    /// Does what depends on the clock. Returns whether the task goes on.
    fn look(&mut self, bolt: &mut dyn Bolt) -> bool {
        self.now = self.sending.clock.monotonic();
        self.pace.looked(self.now);
        self.sending.metrics.calls_go_on(self.now, &self.sending.clock);
        if self.now.since(self.told) >= SETTLE_PERIOD {
            self.tell();
            self.told = self.now;
        }
        if self.tick.as_ref().is_some_and(|tick| tick.next <= self.now) {
            self.tick(bolt);
        }
        self.renew(bolt);
        !self.sending.stop.is_cancelled()
    }

    /// Executes the next tuple of the batch.
    fn execute_next(&mut self, bolt: &mut dyn Bolt) {
        let n_waiting = self.inbox.n_in_batch() as u64;
        let Self { inbox, sending, settling, fields, at_hand, now, .. } = self;
        let Some(row) = inbox.next_in_batch() else { return };
        if sending.sampler.is_next() {
            let way = Way::Received { origin: row.origin, trees: row.anchors };
            sending.sampler.show(way, Values::Encoded(row.values));
        }
        let holds = settling.n_held() > 0;
        let call = sending.metrics.tuple_call_begins(row.origin, row.emitted_at, holds, *now, &sending.clock);
        sending.counters.executed.add(1);
        // The one at hand too: a run until idle must not end meanwhile.
        sending.counters.set_pending(n_waiting + settling.n_held());
        sending.call.begin();
        let delivery = Delivery::of(row.anchors, sending.task);
        *at_hand = Some(Given { source: call.source, at: call.began, delivery });
        let mut out = BoltOutput { sending, settling, given: at_hand };
        let outcome = bolt.execute(&Tuple::new(row, fields.of(row.origin)), &mut out);
        sending.call.end();
        let given = at_hand.take();
        sending.metrics.tuple_call_ended(&call, given.is_some() && outcome.is_ok(), &sending.clock);
        match (given, &outcome) {
            (Some(given), Ok(())) => settling.ack_returned(&given, sending),
            (Some(given), Err(_)) => settling.fail(&given, sending),
            // It is held.
            (None, _) => {}
        }
        if let Err(error) = outcome {
            sending.report(&error);
        }
        settling.fail_dropped(sending);
    }

    /// Calls `tick`. Its time is that of the component, and of no tuple.
    fn tick(&mut self, bolt: &mut dyn Bolt) {
        self.now = self.sending.clock.monotonic();
        if let Some(tick) = &mut self.tick {
            tick.next = self.now.plus(tick.period);
        }
        let Self { sending, settling, at_hand, .. } = self;
        sending.metrics.calls_go_on(self.now, &sending.clock);
        sending.call.begin();
        let outcome = bolt.tick(&mut BoltOutput { sending, settling, given: at_hand });
        sending.call.end();
        if let Err(error) = outcome {
            sending.report(&error);
        }
        settling.fail_dropped(sending);
        self.now = sending.clock.monotonic();
        sending.metrics.calls_go_on(self.now, &sending.clock);
    }

    /// Lets the bolt reset the timeouts of what it holds, if it is time.
    fn renew(&mut self, bolt: &mut dyn Bolt) {
        let Some(renewal) = self.renewal.as_mut().filter(|renewal| renewal.next <= self.now) else { return };
        renewal.next = self.now.plus(renewal.period);
        let Self { sending, settling, at_hand, .. } = self;
        if settling.n_held() > 0 {
            sending.call.begin();
            bolt.renew(&mut BoltOutput { sending, settling, given: at_hand });
            sending.call.end();
            self.tell();
        }
    }

    /// Tells the ackers what became of tuples, and makes the counts durable.
    fn tell(&mut self) {
        let Self { sending, settling, .. } = self;
        sending.tell(&mut settling.settled.lock());
        sending.counters.set_pending(self.inbox.len() as u64 + settling.n_held());
        sending.metrics.settle();
    }
}
