//! Inside a worker: the tasks of one topology in one slot.

pub mod multilang;
pub mod options;
pub mod transport;

pub use options::Options;
