//! Runtime of every daemon: owned tasks, blocking work, shared values, shutdown, logging.

pub mod blocking;
pub mod cgroup;
pub mod descendants;
mod error_chain;
pub mod fs;
pub mod inherited;
#[cfg(feature = "injected-bugs")]
pub mod injected_bugs;
pub mod log_scope;
pub mod lossy_log;
pub mod net;
pub mod one_line_log;
pub mod oom;
pub mod outage;
pub mod places;
pub mod proc;
pub mod process;
pub mod refreshed;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
pub mod threads;
pub mod watch;

pub use error_chain::error_chain;
