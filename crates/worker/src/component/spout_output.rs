//! Output of a spout.

use super::{EmitError, EmitValues, SpoutEmission, task::Sending};
use crate::{
    task::{Target, Tracking},
    tracking::{PENDING_MAX, PendingTuple, PendingTuples},
};
use stormkeeper_model::TaskId;
use stormkeeper_stream::{Anchor, Anchors};

/// Output of a spout during a call of [`next`](super::Spout::next).
#[derive(Debug)]
pub struct SpoutOutput<'a> {
    pub(super) sending: &'a mut Sending,
    pub(super) pending: &'a mut PendingTuples,
    /// Ids whose outcome is known already: they are acked after the call.
    pub(super) acked_at_once: &'a mut Vec<u64>,
    pub(super) n_emitted: usize,
}

impl<'a> SpoutOutput<'a> {
    /// Emits values to the default stream. The tuple is not tracked.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was emitted.
    pub fn emit(&mut self, values: impl EmitValues) -> Result<(), EmitError> {
        self.emission().emit(values).map(drop)
    }

    /// Emits values to the default stream, and tracks the tuple: `ack` or `fail` will be called with `id`.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was emitted.
    pub fn emit_with_id(&mut self, id: u64, values: impl EmitValues) -> Result<(), EmitError> {
        self.emission().id(id).emit(values).map(drop)
    }

    /// Begins an emit with options: stream, receiving task, id.
    pub fn emission<'o, 'h>(&'o mut self) -> SpoutEmission<'o, 'a, 'h> {
        SpoutEmission::new(self)
    }

    pub(super) fn send(
        &mut self,
        target: Target<'_>,
        id: Option<u64>,
        values: impl EmitValues,
    ) -> Result<&[TaskId], EmitError> {
        let Self { sending, pending, acked_at_once, n_emitted } = self;
        if id.is_some() && pending.len() >= PENDING_MAX {
            return Err(EmitError::TooManyPending);
        }
        let task = sending.task;
        let n_receivers = match (id, sending.tracking.clone()) {
            (Some(id), Some(Tracking { tracker, .. })) => {
                let clock = sending.clock.clone();
                let begin = |receivers: &[TaskId], stream| {
                    let acker = tracker.acker_for(task);
                    let anchor = Anchor { acker, root: fastrand::u64(..), edge: fastrand::u64(..) };
                    let emitted = clock.monotonic();
                    pending.add(anchor.root, PendingTuple { id: id.into(), emitted, stream });
                    tracker.begin(anchor, task, receivers);
                    Anchors::One(anchor)
                };
                sending.emit(target, values, 1, begin)?.len()
            }
            _ => sending.emit(target, values, 1, |_, _| Anchors::None)?.len(),
        };
        *n_emitted += 1;
        // Untracked, or received by nobody: there is nothing to wait for.
        if let Some(id) = id.filter(|_| n_receivers == 0 || sending.tracking.is_none()) {
            sending.counters.acked.add(1);
            sending.metrics.acked_at_once(target.stream);
            acked_at_once.push(id);
        }
        Ok(sending.receivers())
    }
}
