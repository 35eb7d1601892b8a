//! Waits, processes and builders for tests.

pub mod topologies;
mod wait;

pub use wait::wait_until;
