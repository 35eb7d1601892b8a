//! Windows: bolts that process many tuples together, by count or by the time in the tuples.

mod panes;

use std::{collections::VecDeque, time::Duration};

use stormkeeper_metrics::instrument::Counter;
use stormkeeper_model::{StreamId, TaskId};
use stormkeeper_worker::component::{
    Bolt, BoltOutput, EmitError, EmitValues, Error, Held, OwnedTuple, TopologyContext, Tuple,
};

use panes::{Complete, Panes};

/// Default limit of the tuples that a task keeps.
const KEPT_MAX: usize = 1_000_000;

/// Latest time: far more than any date. Times beyond it are mistakes, such as nanoseconds.
const TIME_MAX: i64 = 1 << 53;

/// Metric of the tuples that came too late for every window.
const LATE: &str = "late";

/// A bolt that processes windows of tuples.
pub trait WindowBolt: Send {
    /// Prepares the instance, before all other calls.
    ///
    /// # Errors
    /// As [`Bolt::prepare`].
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        let _unused = context;
        Ok(())
    }

    /// Processes a complete window.
    ///
    /// # Errors
    /// Reported as a task error. All tuples of the window fail, and are in no later one.
    fn process(&mut self, window: &Window<'_>, out: &mut WindowOutput<'_, '_>) -> Result<(), Error>;

    /// Releases what the instance holds, before its worker stops.
    fn cleanup(&mut self) {}
}

/// Shape of windows. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Count { length: usize, slide: usize },
    Time { length: i64, slide: i64, lag: i64 },
}

/// Kind of windows, to be made a bolt by [`of`](Self::of).
///
/// ```
/// # use std::time::Duration;
/// # use stormkeeper_topology::{Error, TopologyBuilder, Window, WindowBolt, WindowOutput, Windows};
/// /// Emits the number of orders, and their sum, of each minute.
/// struct Sum;
///
/// impl WindowBolt for Sum {
///     fn process(&mut self, window: &Window<'_>, out: &mut WindowOutput<'_, '_>) -> Result<(), Error> {
///         let mut sum = 0.0;
///         for order in window.tuples() {
///             sum += order.f64("price")?;
///         }
///         let (start, _) = window.span().expect("a window by time");
///         out.emit((start, window.len() as u64, sum))?;
///         Ok(())
///     }
/// }
///
/// # let mut topology = TopologyBuilder::new("orders");
/// let minute = Windows::by_time("ordered_at", Duration::from_secs(60)).lag(Duration::from_secs(5));
/// topology.bolt("sums", move || minute.of(Sum)).global("orders").output(["minute", "n", "sum"]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    shape: Shape,
    field: &'static str,
    limit: usize,
    late: Option<&'static str>,
}

impl Windows {
    /// Windows of `length` tuples, one after the other.
    ///
    /// # Panics
    /// If `length` is 0.
    pub fn by_count(length: usize) -> Self {
        assert!(length > 0, "a window has at least one tuple");
        let limit = KEPT_MAX.max(2 * length);
        Self { shape: Shape::Count { length, slide: length }, field: "", limit, late: None }
    }

    /// Windows of `length`, one after the other, by the time in `field`: a whole number, the milliseconds
    /// since 1970. They begin at multiples of their length.
    ///
    /// # Panics
    /// If `length` is shorter than a millisecond.
    pub fn by_time(field: &'static str, length: Duration) -> Self {
        let length = millis(length);
        assert!(length > 0, "a window is at least a millisecond long");
        Self { shape: Shape::Time { length, slide: length, lag: 0 }, field, limit: KEPT_MAX, late: None }
    }

    /// A window begins after each `slide` tuples, and so shares tuples with the one before.
    ///
    /// # Panics
    /// If the windows are by time, or `slide` is 0 or more than the length.
    #[must_use]
    pub fn sliding_count(mut self, slide: usize) -> Self {
        let Shape::Count { length, slide: before } = &mut self.shape else {
            panic!("windows by time slide by a time")
        };
        assert!(
            (1..=*length).contains(&slide),
            "windows slide by at least one tuple, and at most their length"
        );
        *before = slide;
        self
    }

    /// A window begins after each `slide`, and so shares tuples with the one before. Windows begin at
    /// multiples of `slide`.
    ///
    /// # Panics
    /// If the windows are by count, or `slide` is shorter than a millisecond or longer than the windows.
    #[must_use]
    pub fn sliding(mut self, slide: Duration) -> Self {
        let Shape::Time { length, slide: before, .. } = &mut self.shape else {
            panic!("windows by count slide by a number of tuples")
        };
        let slide = millis(slide);
        assert!(
            (1..=*length).contains(&slide),
            "windows slide by at least a millisecond, and at most their length"
        );
        *before = slide;
        self
    }

    /// Waits for tuples that come out of order: a window is complete when each source has sent a tuple that
    /// is `lag` younger than its end.
    ///
    /// # Panics
    /// If the windows are by count.
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        let Shape::Time { lag: before, .. } = &mut self.shape else { panic!("windows by count have no lag") };
        *before = millis(lag);
        self
    }

    /// Emits late tuples to this stream as they are, anchored to themselves. The component declares it with
    /// the fields of its input.
    #[must_use]
    pub fn late_to(self, stream: &'static str) -> Self {
        Self { late: Some(stream), ..self }
    }

    /// Keeps at most this many tuples in a task; a million otherwise. Beyond it tuples fail.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Makes a bolt of `inner` that gives it these windows.
    pub fn of<B: WindowBolt>(self, inner: B) -> Windowed<B> {
        Windowed {
            windows: self,
            inner,
            panes: Panes::new(self.shape),
            tuples: VecDeque::new(),
            held: VecDeque::new(),
            late: None,
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// A window of tuples.
#[derive(Debug)]
pub struct Window<'a> {
    tuples: &'a [OwnedTuple],
    span: Option<(i64, i64)>,
}

impl Window<'_> {
    /// The tuples: in the order of their times, or in the order in which they came if windows are by count.
    pub fn tuples(&self) -> impl ExactSizeIterator<Item = Tuple<'_>> {
        self.tuples.iter().map(OwnedTuple::tuple)
    }

    /// Number of tuples.
    pub fn len(&self) -> usize {
        self.tuples.len()
    }

    /// Returns whether there are no tuples. There are always some.
    pub fn is_empty(&self) -> bool {
        self.tuples.is_empty()
    }

    /// Start and end of a window by time, in milliseconds since 1970. The end is not a part of it.
    pub fn span(&self) -> Option<(i64, i64)> {
        self.span
    }
}

/// Output of a window.
#[derive(Debug)]
pub struct WindowOutput<'o, 'a> {
    out: &'o mut BoltOutput<'a>,
    held: &'o mut [Held],
}

impl WindowOutput<'_, '_> {
    /// Emits values to the default stream. The tuple is derived from all tuples of the window.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was emitted.
    pub fn emit(&mut self, values: impl EmitValues) -> Result<(), EmitError> {
        self.out.emission().anchored_to(self.held).emit(values).map(drop)
    }

    /// As [`emit`](Self::emit), to another stream.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was emitted.
    pub fn emit_to(&mut self, stream: &str, values: impl EmitValues) -> Result<(), EmitError> {
        self.out.emission().stream(stream).anchored_to(self.held).emit(values).map(drop)
    }
}

/// A bolt that collects tuples into windows: [`Windows::of`].
///
/// A tuple is acked when it is in no further window, and fails if the instance ends before. Meanwhile its
/// timeout is [reset](Bolt::renew), so that a window may be open for any time: a tuple that its spout emitted
/// again would be in it twice. Each tuple in an open window costs its acker one message in a third of the
/// message timeout.
///
/// By time, a window is complete when every task that has sent a tuple so far has sent one that is later than
/// the end of the window and the lag: the slowest one decides. A source that sends nothing any more holds all
/// windows. A tuple all of whose windows are complete is late: it is counted in the metric `late` of the
/// task, emitted to the stream of [`Windows::late_to`] if there is one, and acked.
///
/// A tuple that a spout emits again after a failure is late too if the windows went on meanwhile. Where none
/// may be missed, make the lag longer than the message timeout, or process the late ones.
#[derive(Debug)]
pub struct Windowed<B> {
    windows: Windows,
    inner: B,
    panes: Panes<(TaskId, StreamId)>,
    tuples: VecDeque<OwnedTuple>,
    held: VecDeque<Held>,
    late: Option<Counter>,
}

impl<B: WindowBolt> Windowed<B> {
    fn time_of(&self, tuple: &Tuple<'_>) -> Result<i64, Error> {
        match self.windows.shape {
            Shape::Count { .. } => Ok(0),
            Shape::Time { .. } => {
                let at = tuple.i64(self.windows.field)?;
                let is_time = (-TIME_MAX..=TIME_MAX).contains(&at);
                is_time.then_some(at).ok_or_else(|| format!("{at} is no time in milliseconds").into())
            }
        }
    }

    fn process(&mut self, window: Complete, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        let Complete { n, span } = window;
        let tuples = &self.tuples.make_contiguous()[..n];
        let held = &mut self.held.make_contiguous()[..n];
        let processed = self.inner.process(&Window { tuples, span }, &mut WindowOutput { out, held });
        let n_over = self.panes.pass();
        match processed {
            Ok(()) => {
                self.tuples.drain(..n_over);
                self.held.drain(..n_over).for_each(|held| out.ack(held));
                Ok(())
            }
            Err(error) => {
                self.panes.forget(n - n_over);
                self.tuples.drain(..n);
                self.held.drain(..n).for_each(|held| out.fail(held));
                Err(error)
            }
        }
    }
}

impl<B: WindowBolt> Bolt for Windowed<B> {
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.late = Some(context.counter(LATE)?);
        self.inner.prepare(context)
    }

    fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        let at = self.time_of(tuple)?;
        if self.panes.len() >= self.windows.limit {
            let n = self.windows.limit;
            return Err(
                format!("{n} tuples wait for their windows, and no more are kept (Windows::limit)").into()
            );
        }
        let Some(position) = self.panes.add((tuple.task(), tuple.stream().clone()), at) else {
            if let Some(late) = &self.late {
                late.increment();
            }
            if let Some(stream) = self.windows.late {
                out.emit_to(stream, tuple.to_values())?;
            }
            return Ok(());
        };
        self.tuples.insert(position, tuple.to_owned_tuple());
        self.held.insert(position, out.hold().expect("a tuple that is being executed is held once"));
        while let Some(window) = self.panes.complete() {
            self.process(window, out)?;
        }
        Ok(())
    }

    fn renew(&mut self, out: &mut BoltOutput<'_>) {
        self.held.iter().for_each(|held| out.reset_timeout(held));
    }

    fn cleanup(&mut self) {
        self.inner.cleanup();
    }
}
