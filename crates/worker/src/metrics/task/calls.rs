//! Times of the calls of a component in this program.
//!
//! A small call takes a few dozen nanoseconds, and so does a reading of the clock. So the clock is read
//! around the calls that the sample rate chooses, and the others are timed together, in *runs*:
//!
//! - A run ends when the loop looks at the clock, which is at most 64 calls later, when a call has taken
//!   milliseconds, before a chosen call, and when the tuples come from another stream. Nothing else happens
//!   during a run, so its time is the sum of the times of its calls, and each counts as their mean.
//! - A call during which a tick of the coarse clock passed ends its run. If the run took longer than that,
//!   the call was the slow one: the others count as calls of the run before.
//!
//! So counts and sums are exact, percentiles are those of calls that were timed by themselves, and a call of
//! some milliseconds shows in the maximum.

use std::time::Duration;

use super::{StreamIndex, TaskInstruments, TaskMetrics, micros};
use stormkeeper_metrics::instrument::{Histogram, Sampler};
use stormkeeper_model::clock::{Clock, Monotonic};
use stormkeeper_stream::Origin;

/// Time that a run without a slow call is far from reaching.
const SLOW: Duration = Duration::from_millis(1);

/// The run of calls at hand.
#[derive(Debug)]
pub(super) struct Calls {
    sampler: Sampler,
    run: Option<Open>,
    // Mean of the run before, of a call.
    usual: Duration,
}

/// A run that has not ended.
#[derive(Debug, Clone, Copy)]
struct Open {
    began: Monotonic,
    // Tick of the coarse clock at its begin.
    tick: u64,
    // Stream whose tuples are executed.
    input: StreamIndex,
    n: u64,
    // Calls of a spout, and those of them that emitted nothing.
    n_next: u64,
    n_empty: u64,
    n_acked: u64,
    // Tuples whose time of emit is known, and the sum of what passed from then to the begin of the run, in
    // nanoseconds. Less than 0 for what was emitted since.
    n_living: u64,
    lived_before: i128,
}

/// Times of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    took: Duration,
    n: u64,
    n_next: u64,
    n_empty: u64,
    input: StreamIndex,
    n_acked: u64,
    // The last call, if it was a slow one.
    slow: Option<Duration>,
    // Tuples whose time of emit is known, and the sum of their times until their executions began.
    living: (u64, Duration),
}

/// A call that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// Input stream whose metrics count the tuple.
    pub(crate) source: StreamIndex,
    /// Time at which it began, or the run to which it belongs.
    pub(crate) began: Monotonic,
    /// Whether it is timed by itself.
    pub(crate) is_timed: bool,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { sampler: Sampler::default(), run: None, usual: Duration::ZERO }
    }

    fn open(&mut self, now: Monotonic, tick: u64, input: StreamIndex) {
        let open = Open {
            began: now,
            tick,
            input,
            n: 0,
            n_next: 0,
            n_empty: 0,
            n_acked: 0,
            n_living: 0,
            lived_before: 0,
        };
        self.run = Some(open);
    }

    /// Ends the run at hand, if there is one.
    fn close(&mut self, now: Monotonic) -> Option<Run> {
        let open = self.run.take()?;
        let took = now.since(open.began);
        let mean = took.checked_div(count(open.n)).unwrap_or_default();
        let others = self.usual.saturating_mul(count(open.n).saturating_sub(1));
        let slow = (open.n > 1 && took >= SLOW).then(|| took.saturating_sub(others).max(mean));
        if open.n > 0 && slow.is_none() {
            self.usual = mean;
        }
        // They began evenly spread over the run, the first with it.
        let since_begin =
            mean.as_nanos() * u128::from(open.n_living) * u128::from(open.n.saturating_sub(1)) / 2;
        let lived = open.lived_before.saturating_add(i128::try_from(since_begin).unwrap_or(i128::MAX));
        let lived = u64::try_from(lived.max(0)).unwrap_or(u64::MAX);
        Some(Run {
            took,
            n: open.n,
            n_next: open.n_next,
            n_empty: open.n_empty,
            input: open.input,
            n_acked: open.n_acked,
            slow,
            living: (open.n_living, Duration::from_nanos(lived)),
        })
    }

    /// Returns the time at which the call at hand began, as far as that is known: calls before it took as
    /// long as those of the run before.
    fn began(&self, now: Monotonic) -> Option<Monotonic> {
        let open = self.run?;
        Some(open.began.plus(self.usual.saturating_mul(count(open.n)).min(now.since(open.began))))
    }
}

fn count(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Run {
    /// Adds `n` of its calls to a histogram of their times.
    fn add_to(&self, histogram: &Histogram, n: u64) {
        let whole = micros(self.took) * n as f64 / self.n.max(1) as f64;
        match self.slow.map(micros).filter(|slow| *slow < whole) {
            Some(slow) if n > 1 => {
                histogram.update_many(n - 1, whole - slow);
                histogram.update_many(1, slow);
            }
            _ => histogram.update_many(n, whole),
        }
    }
}

impl TaskInstruments {
    fn count_run(&mut self, run: &Run, goes_on: Option<Monotonic>) {
        self.load.worked(run.took, goes_on);
        self.load.called(run.n_next, run.n_empty);
        run.add_to(&self.whole.executor_time, run.n);
        if let Some((_, input)) = self.inputs.get(usize::from(run.input.0)) {
            run.add_to(&input.latency, run.n_acked);
            let (n, lived) = run.living;
            input.life.update_many(n, micros(lived));
        }
    }

    /// Ends the run at hand, and begins the next one.
    fn next_run(&mut self, now: Monotonic, tick: u64, input: StreamIndex) {
        match self.calls.close(now) {
            Some(run) => self.count_run(&run, Some(now)),
            None => self.load.call_began(now),
        }
        self.calls.open(now, tick, input);
        self.now = Some(now);
    }
}

impl TaskMetrics {
    /// Records that calls may follow from now on, or go on: the time since the last call counted as theirs.
    pub(crate) fn calls_go_on(&mut self, now: Monotonic, clock: &Clock) {
        if let Some(on) = &mut self.0 {
            let input = on.calls.run.map_or(StreamIndex::UNKNOWN, |open| open.input);
            on.next_run(now, clock.coarse_tick(), input);
        }
    }

    /// Records that no call follows: what happens until [`calls_go_on`](Self::calls_go_on) is no work of the
    /// component.
    pub(crate) fn calls_end(&mut self, clock: &Clock) {
        let Some(on) = &mut self.0 else { return };
        if on.calls.run.is_some()
            && let Some(run) = on.calls.close(clock.monotonic())
        {
            on.count_run(&run, None);
        }
    }

    /// Counts a tuple of a bolt, whose execution begins; `now` is a reading of the clock, for metrics that
    /// are disabled. The time at which the call began is exact if it is sampled, and if it `must` be.
    #[inline]
    pub(crate) fn tuple_call_begins(
        &mut self,
        origin: &Origin,
        emitted_at: Option<Monotonic>,
        must: bool,
        now: Monotonic,
        clock: &Clock,
    ) -> Call {
        let Some(on) = &mut self.0 else {
            return Call { source: StreamIndex::UNKNOWN, began: now, is_timed: false };
        };
        let source = on.input(&origin.component, &origin.stream);
        let is_sampled = on.calls.sampler.takes(on.metrics.registry().shared());
        let begins = is_sampled || must;
        match &mut on.calls.run {
            Some(open) if open.n == 0 || (open.input == source && !begins) => open.input = source,
            Some(_) | None => on.next_run(clock.monotonic(), clock.coarse_tick(), source),
        }
        let began = on.calls.run.map_or(now, |open| open.began);
        let (Some((_, input)), Some(open)) = (on.inputs.get(usize::from(source.0)), &mut on.calls.run) else {
            return Call { source, began, is_timed: is_sampled };
        };
        input.executed.increment();
        input.received.mark();
        if let Some(emitted) = emitted_at {
            if is_sampled {
                input.life.update_sampled(micros(began.since(emitted)));
            } else {
                open.n_living += 1;
                open.lived_before += i128::from(began.as_nanos()) - i128::from(emitted.as_nanos());
            }
        }
        Call { source, began, is_timed: is_sampled }
    }

    /// Counts the end of such a call, and the tuple as acked if it `is_acked` by it.
    #[inline]
    pub(crate) fn tuple_call_ended(&mut self, call: &Call, is_acked: bool, clock: &Clock) {
        let Some(on) = &mut self.0 else { return };
        if is_acked && let Some((_, input)) = on.inputs.get(usize::from(call.source.0)) {
            input.acked.increment();
        }
        if call.is_timed {
            let now = clock.monotonic();
            let took = micros(now.since(call.began));
            on.whole.executor_time.update_sampled(took);
            if is_acked && let Some((_, input)) = on.inputs.get(usize::from(call.source.0)) {
                input.latency.update_sampled(took);
            }
            on.load.worked(now.since(call.began), Some(now));
            on.calls.open(now, clock.coarse_tick(), call.source);
            on.now = Some(now);
            return;
        }
        let Some(open) = &mut on.calls.run else { return };
        open.n += 1;
        open.n_acked += u64::from(is_acked);
        let tick = clock.coarse_tick();
        if tick != open.tick {
            on.next_run(clock.monotonic(), tick, call.source);
        }
    }

    /// Records that a call of a spout begins. Returns whether it is timed by itself.
    #[inline]
    pub(crate) fn next_begins(&mut self, clock: &Clock) -> bool {
        let Some(on) = &mut self.0 else { return false };
        let is_timed = on.calls.sampler.takes(on.metrics.registry().shared());
        if on.calls.run.is_none_or(|open| is_timed && open.n > 0) {
            on.next_run(clock.monotonic(), clock.coarse_tick(), StreamIndex::UNKNOWN);
        }
        is_timed
    }

    /// Counts the end of such a call.
    #[inline]
    pub(crate) fn next_ended(&mut self, is_timed: bool, is_empty: bool, clock: &Clock) {
        let Some(TaskInstruments { calls, .. }) = self.0.as_deref_mut() else { return };
        let Some(open) = &mut calls.run else { return };
        open.n += 1;
        open.n_next += 1;
        open.n_empty += u64::from(is_empty);
        let tick = clock.coarse_tick();
        if is_timed || tick != open.tick {
            self.next_run_of_spout(is_timed, tick, clock.monotonic());
        }
    }

    fn next_run_of_spout(&mut self, is_timed: bool, tick: u64, now: Monotonic) {
        let Some(on) = &mut self.0 else { return };
        let Some(run) = on.calls.close(now) else { return };
        if is_timed {
            on.load.worked(run.took, Some(now));
            on.load.called(run.n_next, run.n_empty);
            on.whole.executor_time.update_sampled(micros(run.took));
        } else {
            on.count_run(&run, Some(now));
        }
        on.calls.open(now, tick, StreamIndex::UNKNOWN);
        on.now = Some(now);
    }

    /// Returns the time at which the call at hand began, as far as that is known.
    pub(crate) fn call_began(&self, clock: &Clock) -> Option<Monotonic> {
        self.0.as_ref()?.calls.began(clock.monotonic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: StreamIndex = StreamIndex(0);

    fn at(micros: u64) -> Monotonic {
        Monotonic::START.plus(Duration::from_micros(micros))
    }

    /// Ends a run of `n` calls, all acked, that began at 0.
    fn run_of(calls: &mut Calls, n: u64, took: u64) -> Run {
        calls.open(at(0), 0, INPUT);
        let open = calls.run.as_mut().expect("open");
        (open.n, open.n_acked) = (n, n);
        calls.close(at(took)).expect("open")
    }

    fn histogram_of(run: &Run) -> stormkeeper_metrics::point::Histogram {
        let histogram = Histogram::new(&stormkeeper_metrics::instrument::Shared::new(0.1));
        run.add_to(&histogram, run.n);
        histogram.take()
    }

    #[test]
    fn calls_of_a_run_count_as_their_mean() {
        let run = run_of(&mut Calls::new(), 50, 100);
        let all = histogram_of(&run);
        assert_eq!((all.count, all.sum, all.min, all.max), (50, 100.0, 2.0, 2.0));
        assert_eq!(all.n_sampled(), 0);
    }

    #[test]
    fn call_that_ends_a_run_late_stands_out_from_calls_like_those_before() {
        let mut calls = Calls::new();
        run_of(&mut calls, 50, 100);
        let all = histogram_of(&run_of(&mut calls, 11, 8020));
        assert_eq!((all.count, all.sum.round(), all.min.round(), all.max), (11, 8020.0, 2.0, 8000.0));
        assert_eq!(calls.usual, Duration::from_micros(2), "it is no measure for those that follow");
        let all = histogram_of(&run_of(&mut calls, 1, 8000));
        assert_eq!((all.count, all.sum, all.max), (1, 8000.0, 8000.0));
    }

    #[test]
    fn first_run_of_all_has_nothing_to_compare_with_and_its_sum_is_exact() {
        let all = histogram_of(&run_of(&mut Calls::new(), 10, 5000));
        assert_eq!((all.count, all.sum, all.max), (10, 5000.0, 500.0));
    }

    #[test]
    fn tuples_lived_from_their_emits_to_executions_that_are_evenly_spread() {
        let mut calls = Calls::new();
        calls.open(at(1000), 0, INPUT);
        let open = calls.run.as_mut().expect("open");
        // Emitted at 400, 600, and at 1050, which is during the run.
        (open.n, open.n_living) = (3, 3);
        open.lived_before = [600_000, 400_000, -50_000].iter().sum();
        let run = calls.close(at(1300)).expect("open");
        // Executed at 1000, 1100 and 1200.
        assert_eq!(run.living, (3, Duration::from_micros(600 + 500 + 150)));
        calls.open(at(1000), 0, INPUT);
        let open = calls.run.as_mut().expect("open");
        (open.n, open.n_living, open.lived_before) = (1, 1, -5_000_000);
        assert_eq!(
            calls.close(at(1010)).expect("open").living,
            (1, Duration::ZERO),
            "the clock of another host"
        );
    }

    #[test]
    fn call_at_hand_began_after_calls_like_those_of_the_run_before() {
        let mut calls = Calls::new();
        assert_eq!(calls.began(at(5)), None);
        run_of(&mut calls, 50, 100);
        calls.open(at(1000), 0, INPUT);
        calls.run.as_mut().expect("open").n = 10;
        assert_eq!(calls.began(at(5000)), Some(at(1020)));
        assert_eq!(calls.began(at(1010)), Some(at(1010)), "no later than now");
    }
}
