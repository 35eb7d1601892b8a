//! Runtime of every daemon: owned tasks, blocking work, shared values, shutdown, logging.

pub mod blocking;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod usage;
pub mod watch;
