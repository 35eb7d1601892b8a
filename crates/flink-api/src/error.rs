//! Errors, with Flink's status and body.

use serde_json::{Value, json};

/// Maximum number of characters of a rejected text that an error repeats.
const QUOTED_MAX: usize = 100;

/// Error of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A part of the path that is not what it must be.
    #[error("Cannot resolve path parameter ({parameter}) from value \"{value}\"")]
    Path {
        /// Flink's name of the part.
        parameter: &'static str,
        /// The rejected text.
        value: String,
    },
    /// A query parameter that is not what it must be.
    #[error("Cannot resolve query parameter ({parameter}) from value \"{value}\"")]
    Query {
        /// Name of the parameter.
        parameter: String,
        /// The rejected text.
        value: String,
    },
    /// An id that nothing has.
    #[error("{what} {id} not found")]
    Unknown {
        /// Flink's word for the kind of thing.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// A job that has ended already.
    #[error("Job {id} has ended")]
    Ended {
        /// The id.
        id: String,
    },
    /// A path, or a method, that is not served.
    #[error("Not found: {path}")]
    NotFound {
        /// The path.
        path: String,
    },
    /// A nimbus that cannot answer now.
    #[error("{reason}")]
    Unavailable {
        /// The reason.
        reason: String,
    },
}

/// Shortens a rejected text.
fn quoted(text: &str) -> String {
    let mut short: String =
        text.chars().take(QUOTED_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(QUOTED_MAX).is_some() {
        short.push('…');
    }
    short
}

impl Error {
    /// Error of a part of the path.
    pub fn path(parameter: &'static str, value: &str) -> Self {
        Self::Path { parameter, value: quoted(value) }
    }

    /// Error of a query parameter.
    pub fn query(parameter: &str, value: &str) -> Self {
        Self::Query { parameter: quoted(parameter), value: quoted(value) }
    }

    /// Error of an id that nothing has.
    pub fn unknown(what: &'static str, id: &str) -> Self {
        Self::Unknown { what, id: quoted(id) }
    }

    /// Error of a change of a job that has ended.
    pub fn ended(id: &str) -> Self {
        Self::Ended { id: quoted(id) }
    }

    /// Error of a path that is not served.
    pub fn not_found(path: &str) -> Self {
        Self::NotFound { path: quoted(path) }
    }

    /// HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Path { .. } | Self::Query { .. } => 400,
            Self::Unknown { .. } | Self::NotFound { .. } => 404,
            Self::Ended { .. } => 409,
            Self::Unavailable { .. } => 503,
        }
    }

    /// Word for programs, as in the project's own API.
    const fn code(&self) -> &'static str {
        match self {
            Self::Path { .. } | Self::Query { .. } => "invalid_request",
            Self::Unknown { .. } => "not_found",
            Self::NotFound { .. } => "no_such_route",
            Self::Ended { .. } => "illegal_transition",
            Self::Unavailable { .. } => "not_ready",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Path { parameter, .. } => format!("{}: docs/flink-api.md", expected(parameter)),
            Self::Query { parameter, .. } => format!("{}: docs/flink-api.md", expected(parameter)),
            Self::Unknown { .. } => "GET /jobs and GET /taskmanagers list what exists".to_owned(),
            Self::NotFound { .. } => "docs/flink-api.md lists the paths and methods".to_owned(),
            Self::Ended { .. } => "GET /jobs lists the states of all jobs".to_owned(),
            Self::Unavailable { .. } => "try again in a moment, or ask another nimbus".to_owned(),
        }
    }

    /// Body: Flink's list of errors, and `code`, `message` and `hint` as in the project's own API.
    pub fn body(&self) -> Value {
        let message = self.to_string();
        json!({ "errors": [message], "code": self.code(), "message": message, "hint": self.hint() })
    }
}

/// Returns the form of a parameter.
fn expected(parameter: &str) -> &'static str {
    match parameter {
        "jobid" | "vertexid" | "jobs" => "an id is 32 lower-case hex digits",
        "mode" => "the only mode is cancel",
        "agg" => "an aggregate is min, max, avg, sum or skew",
        "subtasks" => "subtasks are numbers or ranges, such as 0,2 or 0-3",
        "subtaskindex" | "attempt" | "checkpointid" | "maxExceptions" => "a whole number",
        _ => "text in UTF-8, percent-encoded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_the_message_in_both_dialects() {
        let error = Error::unknown("Job", "0f");
        let hint = "GET /jobs and GET /taskmanagers list what exists";
        let body = json!({
            "errors": ["Job 0f not found"], "code": "not_found", "message": "Job 0f not found", "hint": hint,
        });
        assert_eq!((error.status(), error.body()), (404, body));
        assert_eq!(Error::query("agg", "median").status(), 400);
    }

    #[test]
    fn long_text_is_cut_and_control_characters_are_replaced() {
        let text = Error::path("jobid", &format!("\n{}", "x".repeat(5000))).to_string();
        assert!(text.chars().count() < 160, "{text}");
        assert!(text.ends_with("…\"") && !text.contains('\n'), "{text}");
    }
}
