//! Paths of Storm for which there is nothing here, with the reason.

use crate::api::error::ApiError;
use stormkeeper_api_types::message::Code;

/// Returns the error for a path of Storm's API that has no meaning here; `None` for every other path.
pub(crate) fn absent(path: &str) -> Option<ApiError> {
    let mut parts = path.strip_prefix("/api/v1/topology/")?.split('/').skip(1);
    let (message, hint) = match (parts.next()?, parts.nth(1)) {
        ("debug", _) | ("component", Some("debug")) => (
            "tuples are not sampled: there are no event loggers",
            "`stormkeeper logs` prints what components log",
        ),
        ("profiling", _) => (
            "there is no JVM to profile",
            "profile the process of a component on its host, for example with perf or py-spy",
        ),
        ("logconfig", _) => (
            "the levels of loggers cannot be changed while workers run",
            "GET on this path answers without loggers",
        ),
        _ => return None,
    };
    Some(ApiError::new(Code::NoSuchRoute, message, Some(hint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_profiling_and_logger_levels_are_absent_with_a_reason_and_nothing_else_is() {
        let reason = |path: &str| absent(path).map(|error| error.into_body().message);
        for (path, word) in [
            ("wc-1-1/debug/enable/10", "event loggers"),
            ("wc-1-1/debug/disable/0", "event loggers"),
            ("wc-1-1/component/count/debug/enable/10", "event loggers"),
            ("wc-1-1/profiling/start/h:6700/10", "JVM"),
            ("wc-1-1/logconfig", "levels of loggers"),
        ] {
            let reason = reason(&format!("/api/v1/topology/{path}"));
            assert!(reason.as_ref().is_some_and(|reason| reason.contains(word)), "{path}: {reason:?}");
        }
        for path in ["/api/v1/topology/debug", "/api/v1/topology/wc/kill/1", "/api/v1/debug/x/y", "/debug"] {
            assert_eq!(reason(path), None, "{path}");
        }
    }
}
