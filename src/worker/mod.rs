//! Inside a worker: the tasks of one topology in one slot.

pub mod multilang;
pub mod options;

pub use options::Options;
