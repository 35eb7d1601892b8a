//! Pure streaming: values, tuples, and the selection of receivers.
//!
//! Nothing here does I/O or is async. A [`Tuple`] is one emission of [`Value`]s in the trees of its
//! [`Anchors`], a [`Router`](crate::grouping::Router) selects its receivers, and [`hash`] is the fixed
//! hash function of fields grouping.

mod anchor;
mod batch;
mod encoded;
pub mod grouping;
pub mod hash;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
mod value;

use std::sync::Arc;

pub use anchor::{Anchor, Anchors};
pub use batch::{AnchorList, Batch, Row, TaskList};
pub use encoded::{Encoded, Malformed, ValueRef, ValueWriter, write_list_head};
pub use value::Value;

use stormkeeper_model::{ComponentId, StreamId, TaskId, clock::Monotonic};

/// Origin of tuples, shared by all tuples that one task emits to one stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The emitting task.
    pub task: TaskId,
    /// Its component.
    pub component: ComponentId,
    /// The stream.
    pub stream: StreamId,
}

/// One emission: an origin and its values.
///
/// A clone shares both, so that a tuple can go to many receivers without a copy.
#[derive(Debug, Clone)]
pub struct Tuple {
    origin: Arc<Origin>,
    values: Arc<[Value]>,
    anchors: Anchors,
    emitted_at: Option<Monotonic>,
}

impl PartialEq for Tuple {
    /// The time of the emission is not compared.
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin && self.values == other.values && self.anchors == other.anchors
    }
}

impl Tuple {
    /// A tuple of `values` from `origin`.
    pub fn new(origin: Arc<Origin>, values: impl Into<Arc<[Value]>>) -> Self {
        Self { origin, values: values.into(), anchors: Anchors::None, emitted_at: None }
    }

    /// The same tuple with the time of its emission, by the clock of this process.
    pub fn at(self, at: Option<Monotonic>) -> Self {
        Self { emitted_at: at, ..self }
    }

    /// The same tuple as a part of the trees of `anchors`.
    pub fn in_trees(self, anchors: Anchors) -> Self {
        Self { anchors, ..self }
    }

    /// Its anchors.
    pub fn anchors(&self) -> &[Anchor] {
        self.anchors.as_slice()
    }

    /// Time of its emission by the clock of this process, if known.
    pub fn emitted_at(&self) -> Option<Monotonic> {
        self.emitted_at
    }

    /// The emitting task.
    pub fn source(&self) -> TaskId {
        self.origin.task
    }

    /// The emitting component.
    pub fn component(&self) -> &ComponentId {
        &self.origin.component
    }

    /// The stream to which it was emitted.
    pub fn stream(&self) -> &StreamId {
        &self.origin.stream
    }

    /// The values in the order of the stream's declared fields.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The origin, to share with another tuple or to compare origins.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Returns whether both are copies of one emission.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.values, &other.values) && Arc::ptr_eq(&self.origin, &other.origin)
    }
}
