//! Options of one emit.

use super::{BoltOutput, EmitError, EmitValues, Held, SpoutOutput};
use crate::task::Target;
use stormkeeper_model::{StreamId, TaskId};

/// An emit of a bolt under construction: [`BoltOutput::emission`].
#[derive(Debug)]
#[must_use = "nothing is emitted before `emit` is called"]
pub struct BoltEmission<'o, 'a, 'h> {
    output: &'o mut BoltOutput<'a>,
    stream: Option<&'h str>,
    direct: Option<TaskId>,
    anchors: Anchoring<'h>,
}

/// Tuples from which an emit is derived.
#[derive(Debug)]
pub(super) enum Anchoring<'h> {
    /// The tuple that is being executed.
    Input,
    /// None.
    Nothing,
    /// Held tuples.
    Held(&'h mut [Held]),
}

impl<'o, 'a, 'h> BoltEmission<'o, 'a, 'h> {
    pub(super) fn new(output: &'o mut BoltOutput<'a>) -> Self {
        Self { output, stream: None, direct: None, anchors: Anchoring::Input }
    }

    /// Emits to another stream than the default one.
    pub fn stream(self, stream: &'h str) -> Self {
        Self { stream: Some(stream), ..self }
    }

    /// Emits to this task, which receives the stream by direct grouping.
    pub fn direct(self, task: TaskId) -> Self {
        Self { direct: Some(task), ..self }
    }

    /// Derives the tuple from these held tuples, and not from the one at hand.
    pub fn anchored_to(self, held: &'h mut [Held]) -> Self {
        Self { anchors: Anchoring::Held(held), ..self }
    }

    /// Derives the tuple from none: whether it is processed does not matter to any spout.
    pub fn unanchored(self) -> Self {
        Self { anchors: Anchoring::Nothing, ..self }
    }

    /// Emits the values, waiting while a receiver has no room. Returns the receiving tasks.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was emitted.
    pub fn emit(self, values: impl EmitValues) -> Result<&'o [TaskId], EmitError> {
        let Self { output, stream, direct, anchors } = self;
        let stream = stream.map(parse).transpose()?;
        output.send(Target { stream: stream.as_ref(), direct }, anchors, values)
    }
}

/// An emit of a spout under construction: [`SpoutOutput::emission`].
#[derive(Debug)]
#[must_use = "nothing is emitted before `emit` is called"]
pub struct SpoutEmission<'o, 'a, 'h> {
    output: &'o mut SpoutOutput<'a>,
    stream: Option<&'h str>,
    direct: Option<TaskId>,
    id: Option<u64>,
}

impl<'o, 'a, 'h> SpoutEmission<'o, 'a, 'h> {
    pub(super) fn new(output: &'o mut SpoutOutput<'a>) -> Self {
        Self { output, stream: None, direct: None, id: None }
    }

    /// Emits to another stream than the default one.
    pub fn stream(self, stream: &'h str) -> Self {
        Self { stream: Some(stream), ..self }
    }

    /// Emits to this task, which receives the stream by direct grouping.
    pub fn direct(self, task: TaskId) -> Self {
        Self { direct: Some(task), ..self }
    }

    /// Tracks the tuple: `ack` or `fail` of the spout will be called with `id`.
    pub fn id(self, id: u64) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Emits the values, waiting while a receiver has no room. Returns the receiving tasks.
    ///
    /// # Errors
    /// [`EmitError`]; nothing was emitted, and neither `ack` nor `fail` will be called.
    pub fn emit(self, values: impl EmitValues) -> Result<&'o [TaskId], EmitError> {
        let Self { output, stream, direct, id } = self;
        let stream = stream.map(parse).transpose()?;
        output.send(Target { stream: stream.as_ref(), direct }, id, values)
    }
}

fn parse(stream: &str) -> Result<StreamId, EmitError> {
    stream.parse().map_err(|error| EmitError::InvalidStream { stream: stream.to_owned(), error })
}
