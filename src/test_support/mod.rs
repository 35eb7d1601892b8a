//! Waits, processes and builders for tests.

mod wait;

pub use wait::wait_until;
