//! Logs: one line per event, to standard error or to a writer of the caller's.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// What is logged when `STORMKEEPER_LOG` says nothing. The client crate logs every request
/// at debug, so its level is held apart.
const DEFAULT_FILTER: &str = "info,zookeeper_client=warn";

/// Starts logging to standard error, filtered by `filter` (the syntax of `RUST_LOG`).
pub fn log_to_stderr(filter: Option<&str>) {
    let filter = EnvFilter::new(filter.unwrap_or(DEFAULT_FILTER));
    let colours = io::stderr().is_terminal();
    let logger =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).finish();
    // Fails only when logging was started before, as tests in one process do.
    let _already_started = tracing::subscriber::set_global_default(logger);
}

/// Starts logging to `writer` without colours.
pub fn log_to<W>(writer: W, filter: Option<&str>)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(filter.unwrap_or(DEFAULT_FILTER));
    let logger =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).finish();
    // Fails only when logging was started before, as tests in one process do.
    let _already_started = tracing::subscriber::set_global_default(logger);
}
