//! Logging: one line per event, to standard error or to a writer of the caller.

use std::io::{self, IsTerminal as _};

use tracing::warn;
use tracing_subscriber::{EnvFilter, Layer as _, fmt::MakeWriter, layer::SubscriberExt as _};

use crate::{log_scope::ScopedFilter, lossy_log::LossyLog, one_line_log::OneLineLog};

/// Filter that applies if `STORMKEEPER_LOG` is not set. The ZooKeeper client crate logs every
/// request at debug level, so its level is set separately.
const DEFAULT_FILTER: &str = "info,zookeeper_client=warn";

/// Starts logging to standard error, filtered by `filter` (the syntax of `RUST_LOG`). A line that
/// cannot be written is lost.
pub fn log_to_stderr(filter: Option<&str>) {
    start(io::stderr, io::stderr().is_terminal(), filter);
}

/// Starts logging to `writer` without colours.
pub fn log_to<W>(writer: W, filter: Option<&str>)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    start(writer, false, filter);
}

fn start<W>(writer: W, has_colours: bool, filter: Option<&str>)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, problem) = parse_filter(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(OneLineLog::new(LossyLog::new(writer), has_colours))
        .with_ansi(has_colours)
        .log_internal_errors(false)
        .with_filter(ScopedFilter(filter));
    let logger = tracing_subscriber::registry().with(lines);
    // Fails only if logging has been started before, as by several tests in one process.
    let _already_started = tracing::subscriber::set_global_default(logger);
    log_problem(problem);
}

/// Returns the filter to use, and the defect of the given filter if it is not used. A daemon with a
/// misspelt filter must not run without a log.
fn parse_filter(given: Option<&str>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(DEFAULT_FILTER);
    let Some(given) = given else { return (default(), None) };
    let is_level = |word: &str| word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    // `tracing` takes a misspelt level for the name of a module, and then logs nothing else.
    let is_module = |word: &str| word.starts_with("stormkeeper") || word.contains(['=', ':', '[', '{']);
    let odd = given.split(',').map(str::trim).find(|word| !is_level(word) && !is_module(word));
    match (odd, EnvFilter::builder().parse(given)) {
        (Some(odd), _) => (default(), Some(format!("{odd:?} is no level (error, warn, info, debug, trace)"))),
        (None, Err(error)) => (default(), Some(error.to_string())),
        (None, Ok(filter)) => (filter, None),
    }
}

fn log_problem(problem: Option<String>) {
    if let Some(problem) = problem {
        warn!("STORMKEEPER_LOG is not used, and {DEFAULT_FILTER:?} is used instead: {problem}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_that_is_misspelt_is_replaced_by_the_default() {
        for (given, defect) in [
            ("inof", "\"inof\" is no level"),
            ("info,wran", "\"wran\" is no level"),
            ("foo=bar=baz", "expected one of"),
            ("stormkeeper=inf", "expected one of"),
        ] {
            let (filter, problem) = parse_filter(Some(given));
            let problem = problem.unwrap_or_else(|| panic!("{given} is accepted"));
            assert!(problem.contains(defect), "{given}: {problem}");
            assert_eq!(filter.to_string(), EnvFilter::new(DEFAULT_FILTER).to_string());
        }
        for given in ["info", "DEBUG", "stormkeeper=debug,info", "stormkeeper_nimbus::leader=trace", "off"] {
            assert_eq!(parse_filter(Some(given)).1, None, "{given}");
        }
        assert_eq!(parse_filter(None).1, None);
    }
}
