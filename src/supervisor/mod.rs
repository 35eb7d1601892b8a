//! The agent of one machine: makes the slots run what the leader ordered.

pub mod logs;
pub mod options;
pub mod process;
pub mod slot;

pub use options::Options;
