//! Components whose code is in the worker program: spouts and bolts in Rust.
//!
//! ```text
//!  inbox ─▶ bolt's thread ─▶ emitter ─▶ outbox
//!           spout's thread ─▶ emitter ─▶ outbox
//! ```
//!
//! - Each task has a thread of its own, so a component may block: read a file, wait for an answer, compute
//!   for a long time. The thread waits while a receiver has no room.
//! - [`Spout`] and [`Bolt`] are what an author implements; [`Components`] has them under the ids that the
//!   topology names.
//! - An error that a component returns is a task error and fails the tuple at hand. A panic also ends the
//!   instance: its open tuples fail, and a new one is made after a delay. The other tasks go on.
//! - A call that does not return is reported, and cannot be ended without its worker.

mod bolt;
mod bolt_output;
mod context;
mod emission;
mod pace;
mod registry;
mod spout;
mod spout_output;
mod task;
mod traits;
mod tuple;
mod values;

#[cfg(test)]
mod tests;

pub use bolt_output::{BoltOutput, Held};
pub use context::TopologyContext;
pub use emission::{BoltEmission, SpoutEmission};
pub use registry::Components;
pub use spout_output::SpoutOutput;
pub use traits::{Bolt, Error, Spout};
pub use tuple::{Field, FieldError, OwnedTuple, Tuple};
pub use values::{EmitValue, EmitValues, Values};

pub use crate::task::EmitError;
pub(crate) use registry::Source;
pub(crate) use task::{Parts, run};
