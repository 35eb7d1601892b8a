//! Waits and generated documents for tests.

mod generated;
mod wait;

pub use generated::assert_generated;
pub use wait::wait_until;
