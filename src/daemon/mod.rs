//! What every daemon needs: owned tasks, shutdown, logs.

pub mod shutdown;
pub mod tasks;
pub mod telemetry;
