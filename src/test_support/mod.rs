//! Waits, processes and builders for tests.

mod generated;
pub mod topologies;
mod wait;

pub use generated::assert_generated;
pub use wait::wait_until;
