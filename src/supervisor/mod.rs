//! The agent of one machine: makes the slots run what the leader ordered.

pub mod options;
pub mod process;

pub use options::Options;
