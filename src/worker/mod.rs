//! Inside a worker: the tasks of one topology in one slot.

pub mod options;
pub mod transport;

pub use options::Options;
