//! Waits, processes and builders for tests.

mod wait;
pub mod zookeeper;

pub use wait::wait_until;
