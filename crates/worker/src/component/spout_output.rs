//! Output of a spout.

use super::{EmitError, EmitValues, SpoutEmission, task::Sending};
use crate::{
    task::Emitted,
    tracking::{PENDING_MAX, PendingTuple, PendingTuples},
};
use stormkeeper_model::{StreamId, TaskId};
use stormkeeper_stream::{Anchor, Anchors, Value};

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
        stream: Option<StreamId>,
        direct: Option<TaskId>,
        id: Option<u64>,
        values: Vec<Value>,
    ) -> Result<&[TaskId], EmitError> {
        let Self { sending, pending, acked_at_once, n_emitted } = self;
        if id.is_some() && pending.len() >= PENDING_MAX {
            return Err(EmitError::TooManyPending);
        }
        let to = stream.clone();
        let (tracking, clock, task) = (sending.tracking.clone(), sending.clock.clone(), sending.task);
        let begin = |receivers: &[TaskId], stream| {
            let Some((id, tracking)) = id.zip(tracking.as_ref()) else { return Anchors::None };
            let acker = tracking.tracker.acker_for(task);
            let anchor = Anchor { acker, root: fastrand::u64(..), edge: fastrand::u64(..) };
            pending.add(anchor.root, PendingTuple { id: id.into(), emitted: clock.monotonic(), stream });
            tracking.tracker.begin(anchor, task, receivers);
            Anchors::One(anchor)
        };
        let n_receivers = sending.emit(Emitted { stream, direct, values }, 1, begin)?.len();
        *n_emitted += 1;
        // Untracked, or received by nobody: there is nothing to wait for.
        if let Some(id) = id.filter(|_| n_receivers == 0 || sending.tracking.is_none()) {
            sending.counters.acked.add(1);
            sending.metrics.acked_at_once(to.as_ref());
            acked_at_once.push(id);
        }
        Ok(sending.receivers())
    }
}
