//! Output of a bolt, and settlement of the tuples that it holds.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{BoltEmission, EmitError, EmitValues, emission::Anchoring, task::Sending};
use crate::{
    metrics::StreamIndex,
    task::Target,
    tracking::{Delivery, Settled, Settlement},
};
use stormkeeper_model::{TaskId, clock::Monotonic};
use stormkeeper_stream::{Anchor, Anchors};

/// Output of a bolt during a call of [`execute`](super::Bolt::execute) or [`tick`](super::Bolt::tick).
#[derive(Debug)]
pub struct BoltOutput<'a> {
    pub(super) sending: &'a mut Sending,
    pub(super) settling: &'a mut Settling,
    /// The tuple at hand, unless it is held.
    pub(super) given: &'a mut Option<Given>,
}

/// A tuple in the hands of a bolt.
#[derive(Debug)]
pub(super) struct Given {
    /// Input stream whose metrics count the tuple.
    pub(super) source: StreamIndex,
    /// Time of the begin of its execution.
    pub(super) at: Monotonic,
    /// Trees that it belongs to.
    pub(super) delivery: Delivery,
}

/// A tuple that a bolt keeps beyond the call of `execute`, to ack or fail it later. If it is dropped, the
/// tuple fails.
#[derive(Debug)]
#[must_use = "a held tuple that is dropped fails"]
pub struct Held {
    // `None` once it is settled.
    given: Option<Given>,
    of: Arc<HeldOfTask>,
}

/// Held tuples of one task. Whoever has one of them may settle or drop it: another thread, or another task.
#[derive(Debug, Default)]
struct HeldOfTask {
    n: AtomicU64,
    dropped: Mutex<Vec<Given>>,
}

impl Held {
    /// Takes the tuple out, to be settled.
    fn take(&mut self) -> Option<Given> {
        let given = self.given.take()?;
        self.of.n.fetch_sub(1, Ordering::Relaxed);
        Some(given)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(given) = self.given.take() {
            self.of.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(given);
        }
    }
}

/// Settlements that the ackers were not told yet. Shared with the watch on the calls of the bolt, which tells
/// them while a call lasts.
#[derive(Debug, Clone, Default)]
pub(super) struct Untold(Arc<Mutex<Vec<Settled>>>);

impl Untold {
    pub(super) fn add(&self, settled: impl Iterator<Item = Settled>) {
        self.lock().extend(settled);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Settled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settlements of a bolt's tuples.
#[derive(Debug)]
pub(super) struct Settling {
    /// Settlements that the ackers were not told yet.
    pub(super) settled: Untold,
    held: Arc<HeldOfTask>,
}

impl Settling {
    /// Nothing is held yet; settlements go to `settled`.
    pub(super) fn new(settled: Untold) -> Self {
        Self { settled, held: Arc::default() }
    }

    /// Counts and acks a tuple whose execution has just returned; its metrics are counted with the call.
    pub(super) fn ack_returned(&mut self, given: &Given, sending: &mut Sending) {
        sending.counters.acked.add(1);
        if given.delivery.n_trees() > 0 {
            self.settled.add(given.delivery.acked());
        }
    }

    /// Counts and acks a tuple.
    pub(super) fn ack(&mut self, given: &Given, sending: &mut Sending, now: Monotonic) {
        sending.metrics.acked(given.source, given.at, now);
        self.ack_returned(given, sending);
    }

    /// Counts and fails a tuple.
    pub(super) fn fail(&mut self, given: &Given, sending: &mut Sending) {
        sending.counters.failed.add(1);
        sending.metrics.failed(given.source);
        self.settled.add(given.delivery.settled(Settlement::Failed));
    }

    /// Number of held tuples.
    pub(super) fn n_held(&self) -> u64 {
        self.held.n.load(Ordering::Relaxed)
    }

    /// Fails the held tuples that were dropped.
    pub(super) fn fail_dropped(&mut self, sending: &mut Sending) {
        if self.n_held() == 0 {
            return;
        }
        let dropped = std::mem::take(&mut *self.held.dropped.lock().unwrap_or_else(PoisonError::into_inner));
        self.held.n.fetch_sub(dropped.len() as u64, Ordering::Relaxed);
        dropped.iter().for_each(|given| self.fail(given, sending));
    }
}

impl<'a> BoltOutput<'a> {
    /// Emits values to the default stream. The tuple is derived from the one at hand, so that a spout is told
    /// once both are processed.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was emitted.
    pub fn emit(&mut self, values: impl EmitValues) -> Result<(), EmitError> {
        self.emission().emit(values).map(drop)
    }

    /// As [`emit`](Self::emit), to another stream.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was emitted.
    pub fn emit_to(&mut self, stream: &str, values: impl EmitValues) -> Result<(), EmitError> {
        self.emission().stream(stream).emit(values).map(drop)
    }

    /// Begins an emit with options: stream, receiving task, and the tuples from which it is derived.
    pub fn emission<'o, 'h>(&'o mut self) -> BoltEmission<'o, 'a, 'h> {
        BoltEmission::new(self)
    }

    /// Keeps the tuple at hand beyond this call. `None` if there is none: it is held already, or the call is
    /// a tick.
    pub fn hold(&mut self) -> Option<Held> {
        let mut given = self.given.take()?;
        if let Some(began) = self.sending.metrics.call_began(&self.sending.clock) {
            given.at = began;
        }
        let of = Arc::clone(&self.settling.held);
        of.n.fetch_add(1, Ordering::Relaxed);
        Some(Held { given: Some(given), of })
    }

    /// Acks a held tuple.
    pub fn ack(&mut self, mut held: Held) {
        if let Some(given) = held.take() {
            let now = self.sending.clock.monotonic();
            self.settling.ack(&given, self.sending, now);
        }
    }

    /// Fails a held tuple.
    pub fn fail(&mut self, mut held: Held) {
        if let Some(given) = held.take() {
            self.settling.fail(&given, self.sending);
        }
    }

    /// Starts the message timeout of a held tuple again.
    pub fn reset_timeout(&mut self, held: &Held) {
        if let Some(given) = &held.given {
            self.settling.settled.add(given.delivery.settled(Settlement::TimeoutReset));
        }
    }

    pub(super) fn send(
        &mut self,
        target: Target<'_>,
        anchors: Anchoring<'_>,
        values: impl EmitValues,
    ) -> Result<&[TaskId], EmitError> {
        let mut of_input = self.given.as_mut().map(|given| &mut given.delivery);
        let mut deliveries: Vec<&mut Delivery> = match anchors {
            // The common case, without a list.
            Anchoring::Input => {
                let n_trees = of_input.as_ref().map_or(0, |delivery| delivery.n_trees());
                let anchor = |receivers: &[TaskId], _| match &mut of_input {
                    Some(delivery) if n_trees > 0 => anchor([&mut **delivery], receivers),
                    Some(_) | None => Anchors::None,
                };
                return self.sending.emit(target, values, n_trees, anchor);
            }
            Anchoring::Nothing => Vec::new(),
            Anchoring::Held(held) => {
                held.iter_mut().filter_map(|held| Some(&mut held.given.as_mut()?.delivery)).collect()
            }
        };
        let n_trees = deliveries.iter().map(|delivery| delivery.n_trees()).sum();
        self.sending.emit(target, values, n_trees, |receivers, _| {
            anchor(deliveries.iter_mut().map(|delivery| &mut **delivery), receivers)
        })
    }
}

/// Anchors an emission to `receivers` in the trees of these deliveries, in each tree once.
fn anchor<'d>(deliveries: impl IntoIterator<Item = &'d mut Delivery>, receivers: &[TaskId]) -> Anchors {
    let mut anchors: Vec<Anchor> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for delivery in deliveries {
        delivery.anchor(receivers, |root| seen.insert(root), || fastrand::u64(..), &mut anchors);
    }
    anchors.into_iter().collect()
}
