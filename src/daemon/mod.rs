//! What every daemon needs: owned tasks, work that blocks, shared values, shutdown, logs.

pub mod blocking;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod usage;
pub mod watch;
