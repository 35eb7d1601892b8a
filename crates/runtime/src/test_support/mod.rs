//! Waits and generated documents for tests.

mod generated;
mod wait;

pub use generated::{assert_generated, assert_generated_file, assert_generated_form};
pub use wait::wait_until;
