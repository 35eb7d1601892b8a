//! The thread of a bolt.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::mpsc;

use super::{
    Bolt, BoltOutput, Error, Tuple,
    bolt_output::{Given, Settling, Untold},
    registry::MakeBolt,
    task::{Sending, Surroundings},
};
use crate::{settings::TaskSettings, tracking::Delivery};
use stormkeeper_model::{ComponentId, StreamId, clock::Monotonic, heartbeat::TaskStatus};
use stormkeeper_stream as stream;

/// Maximum number of tuples that are taken from the inbox at once.
const TAKEN_MAX: usize = 1024;

/// Longest time for which an ack waits for others, to be told to the ackers with them.
const SETTLE_PERIOD: Duration = Duration::from_millis(1);

/// Period of looking at held tuples while nothing else happens: another thread may have dropped them.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Number of times that an idle bolt lets other threads run before it waits.
const YIELDS: usize = 4;

/// A bolt's task, as far as it outlives the instances of the bolt.
pub(super) struct BoltTask {
    sending: Sending,
    surroundings: Surroundings,
    make: MakeBolt,
    inbox: mpsc::Receiver<stream::Tuple>,
    // Tuples that were taken from the inbox and not executed.
    waiting: VecDeque<stream::Tuple>,
    taken: Vec<stream::Tuple>,
    // The tuple at hand, which fails if the instance panics.
    at_hand: Option<Given>,
    settling: Settling,
    told: Monotonic,
    fields: Fields,
    tick: Option<Tick>,
}

/// Names of the fields of each input stream.
struct Fields(Vec<(ComponentId, StreamId, Vec<String>)>);

impl Fields {
    fn of(&self, tuple: &stream::Tuple) -> &[String] {
        let known = self.0.iter().find(|(from, on, _)| on == tuple.stream() && from == tuple.component());
        known.map(|(.., fields)| fields.as_slice()).unwrap_or_default()
    }
}

struct Tick {
    period: Duration,
    next: Monotonic,
}

/// Reason to go on.
enum Woken {
    Tuples(usize),
    Tick,
    /// Held tuples may have been settled or dropped by somebody else.
    Look,
}

impl BoltTask {
    pub(super) fn new(
        sending: Sending,
        surroundings: Surroundings,
        make: MakeBolt,
        inbox: mpsc::Receiver<stream::Tuple>,
        settings: &TaskSettings,
        untold: Untold,
    ) -> Self {
        let now = sending.clock.monotonic();
        let tick = settings.tick.as_ref();
        let tick = tick.map(|tick| Tick { period: tick.period, next: now.plus(tick.period) });
        let fields = Fields(surroundings.fields_of_inputs(&sending.component));
        Self {
            sending,
            surroundings,
            make,
            inbox,
            waiting: VecDeque::new(),
            taken: Vec::new(),
            at_hand: None,
            settling: Settling::new(untold),
            told: now,
            fields,
            tick,
        }
    }

    /// Runs a new instance until the task is stopped.
    ///
    /// # Errors
    /// Error of preparing the instance.
    pub(super) fn run_instance(&mut self) -> Result<(), Error> {
        self.sending.call.begin(self.sending.clock.monotonic());
        let mut bolt = (self.make)();
        let prepared = bolt.prepare(&mut self.surroundings.context(&mut self.sending));
        self.sending.call.end();
        prepared?;
        self.sending.show(TaskStatus::Running);
        while let Some(woken) = self.wait() {
            match woken {
                // No sender is left: the worker is stopping.
                Woken::Tuples(0) => break,
                Woken::Tuples(_) => self.execute_waiting(&mut *bolt),
                Woken::Tick => self.tick(&mut *bolt),
                Woken::Look => self.settling.fail_dropped(&mut self.sending),
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
        self.settling.fail_dropped(&mut self.sending);
        self.sending.metrics.child_ended();
        self.tell();
    }

    /// Waits for tuples or for the next tick, unless there are tuples. `None` if the task must stop.
    fn wait(&mut self) -> Option<Woken> {
        if self.sending.stop.is_cancelled() {
            return None;
        }
        if !self.waiting.is_empty() {
            return Some(Woken::Tuples(self.waiting.len()));
        }
        self.tell();
        // Waking a thread costs more than a tuple does: under load the emitter may just need the processor.
        for _ in 0..YIELDS {
            if !self.inbox.is_empty() {
                break;
            }
            std::thread::yield_now();
        }
        let now = self.sending.clock.monotonic();
        let until_tick = self.tick.as_ref().map(|tick| tick.next.since(now));
        let (inbox, taken, holds) = (&mut self.inbox, &mut self.taken, self.settling.n_held() > 0);
        let woken = self.sending.wait(async {
            tokio::select! {
                biased;
                () = tokio::time::sleep(until_tick.unwrap_or_default()), if until_tick.is_some() => Woken::Tick,
                // Cancel-safe: no tuple is taken unless the call returns.
                n = inbox.recv_many(taken, TAKEN_MAX) => Woken::Tuples(n),
                () = tokio::time::sleep(LOOK_PERIOD), if holds => Woken::Look,
            }
        })?;
        self.waiting.extend(self.taken.drain(..));
        if matches!(woken, Woken::Tuples(n) if n > 0) && self.sending.metrics.is_on() {
            self.sending.metrics.batch_received(self.sending.clock.monotonic());
        }
        Some(woken)
    }

    fn execute_waiting(&mut self, bolt: &mut dyn Bolt) {
        let mut now = self.sending.clock.monotonic();
        while let Some(tuple) = self.waiting.pop_front() {
            now = self.execute(bolt, &tuple, now);
            if now.since(self.told) >= SETTLE_PERIOD {
                self.tell();
                self.told = now;
            }
            let is_tick_due = self.tick.as_ref().is_some_and(|tick| tick.next <= now);
            if is_tick_due {
                self.tick(bolt);
                now = self.sending.clock.monotonic();
            }
            if self.sending.stop.is_cancelled() {
                return;
            }
        }
    }

    /// Executes one tuple, which begins at `began`. Returns the time of its end.
    fn execute(&mut self, bolt: &mut dyn Bolt, tuple: &stream::Tuple, began: Monotonic) -> Monotonic {
        let Self { sending, settling, fields, at_hand, .. } = self;
        let source = sending.metrics.executed(tuple, began);
        sending.counters.executed.add(1);
        // The one at hand too: a run until idle must not end meanwhile.
        sending.counters.set_pending(self.waiting.len() as u64 + 1 + settling.n_held());
        let delivery = Delivery::of(tuple, sending.task);
        sending.metrics.execute_began(began);
        sending.call.begin(began);
        *at_hand = Some(Given { source, at: began, delivery });
        let mut out = BoltOutput { sending, settling, given: at_hand };
        let outcome = bolt.execute(&Tuple::new(tuple, fields.of(tuple)), &mut out);
        sending.call.end();
        let now = sending.clock.monotonic();
        match (at_hand.take(), &outcome) {
            (Some(given), Ok(())) => settling.ack(&given, sending, now),
            (Some(given), Err(_)) => settling.fail(&given, sending),
            // It is held.
            (None, _) => {}
        }
        if let Err(error) = outcome {
            sending.report(&error);
        }
        settling.fail_dropped(sending);
        sending.metrics.execute_ended(began, now, false);
        now
    }

    fn tick(&mut self, bolt: &mut dyn Bolt) {
        let now = self.sending.clock.monotonic();
        if let Some(tick) = &mut self.tick {
            tick.next = now.plus(tick.period);
        }
        let Self { sending, settling, at_hand, .. } = self;
        sending.metrics.execute_began(now);
        sending.call.begin(now);
        let outcome = bolt.tick(&mut BoltOutput { sending, settling, given: at_hand });
        sending.call.end();
        if let Err(error) = outcome {
            sending.report(&error);
        }
        settling.fail_dropped(sending);
        sending.metrics.execute_ended(now, sending.clock.monotonic(), true);
    }

    /// Tells the ackers what became of tuples, and makes the counts durable.
    fn tell(&mut self) {
        let Self { sending, settling, .. } = self;
        sending.tell(&mut settling.settled.lock());
        sending.counters.set_pending((self.inbox.len() + self.waiting.len()) as u64 + settling.n_held());
        sending.metrics.settle();
    }
}
