//! Logging: one line per event, to standard error or to a writer of the caller.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Filter that applies if `STORMKEEPER_LOG` is not set. The ZooKeeper client crate logs every
/// request at debug level, so its level is set separately.
const DEFAULT_FILTER: &str = "info,zookeeper_client=warn";

/// Starts logging to standard error, filtered by `filter` (the syntax of `RUST_LOG`).
pub fn log_to_stderr(filter: Option<&str>) {
    let filter = EnvFilter::new(filter.unwrap_or(DEFAULT_FILTER));
    let colours = io::stderr().is_terminal();
    let logger =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).finish();
    // Fails only if logging has been started before, as by several tests in one process.
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
    // Fails only if logging has been started before, as by several tests in one process.
    let _already_started = tracing::subscriber::set_global_default(logger);
}
