//! Error responses: `{ code, message, hint }` with the HTTP status of the code.

use axum::{
    Json,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};

use stormkeeper_api_types::message::{Code, ErrorBody};

/// Maximum bytes of a message; the rest is cut off. A message repeats parts of a request, which may be long.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Response to a request that is rejected or fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection(pub ErrorBody);

impl Rejection {
    /// Creates the response with a code, a message and advice for the user.
    pub fn new(code: Code, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self(ErrorBody { code, message: message.into(), hint: hint.map(str::to_owned) })
    }

    /// Response to a method that a path does not take.
    pub fn wrong_method(method: &Method, path: &str) -> Self {
        Self::new(Code::WrongMethod, format!("{path} does not take {method}"), None)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        (status(self.0.code), Json(bounded(self.0))).into_response()
    }
}

/// Returns the body of an error with at most 8 KiB of its message.
pub fn bounded(mut body: ErrorBody) -> ErrorBody {
    let length = body.message.len();
    if length > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rfind(|at| body.message.is_char_boundary(*at));
        body.message.truncate(end.unwrap_or_default());
        body.message.push_str(&format!("… ({length} bytes)"));
    }
    body
}

/// Returns the HTTP status of a code.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest | Code::BlobMismatch => StatusCode::BAD_REQUEST,
        Code::InvalidTopology => StatusCode::UNPROCESSABLE_ENTITY,
        Code::UnknownTopology
        | Code::UnknownHost
        | Code::UnknownLog
        | Code::UnknownMetric
        | Code::UnknownZnode
        | Code::BlobMissing
        | Code::NoSuchRoute => StatusCode::NOT_FOUND,
        Code::NameInUse | Code::IllegalTransition | Code::Conflict | Code::NotRecoverable => {
            StatusCode::CONFLICT
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        Code::ForeignRequest | Code::Forbidden | Code::SwitchedOff | Code::QuotaExceeded => {
            StatusCode::FORBIDDEN
        }
        Code::WrongContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::InsufficientStorage => StatusCode::INSUFFICIENT_STORAGE,
        Code::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        Code::AgentUnavailable => StatusCode::BAD_GATEWAY,
        Code::NoLeader
        | Code::TreeUnavailable
        | Code::NotReady
        | Code::AnotherTree
        | Code::NotReplicated
        | Code::NoMetricStore => StatusCode::SERVICE_UNAVAILABLE,
        Code::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
        Code::UnreadableRecord | Code::Internal | Code::Other => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_message_is_cut_at_a_character_and_says_its_length() {
        let body = |message: String| bounded(ErrorBody { code: Code::Internal, message, hint: None }).message;
        assert_eq!(body("ü".repeat(4096)), "ü".repeat(4096), "as long as allowed");
        let cut = body(format!("a{}", "ü".repeat(5000)));
        assert_eq!(cut, format!("a{}… (10001 bytes)", "ü".repeat(4095)));
    }
}
