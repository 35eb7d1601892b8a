//! Errors of the API, each as `{ code, message, hint }` with its HTTP status.

use std::error::Error as _;

use axum::{
    Json,
    extract::{FromRequestParts, Path, rejection::JsonRejection},
    http::{Method, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use tracing::error;

use crate::{blobs, refusal::Refusal};
use stormkeeper_api_types::message::{Code, ErrorBody};
use stormkeeper_coordination::cluster::store;
use stormkeeper_runtime::error_chain;
use stormkeeper_serving::error::{Rejection, bounded};

/// Error response to a request.
#[derive(Debug)]
pub(super) struct ApiError(ErrorBody);

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self(ErrorBody { code, message: message.into(), hint: hint.map(str::to_owned) })
    }

    pub(super) fn no_such_route(path: &str) -> Self {
        Self::new(
            Code::NoSuchRoute,
            format!("there is nothing at {path}"),
            Some("GET /api/openapi.json describes every path"),
        )
    }

    pub(super) fn wrong_method(method: &Method, path: &str) -> Self {
        let hint = Some("the header `Allow` has the methods of the path");
        Self::new(Code::WrongMethod, format!("{path} does not take {method}"), hint)
    }

    /// Returns the body, for an answer in another form.
    pub(super) fn into_body(self) -> ErrorBody {
        bounded(self.0)
    }

    /// Returns the HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        stormkeeper_serving::error::status(self.0.code)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Rejection(self.0).into_response()
    }
}

impl From<Rejection> for ApiError {
    fn from(Rejection(body): Rejection) -> Self {
        Self(body)
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        Self(body)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (code, hint) = (refusal.code(), refusal.hint());
        if code == Code::Internal {
            return internal(&refusal);
        }
        Self(ErrorBody { code, message: error_chain(&refusal), hint })
    }
}

impl From<blobs::Error> for ApiError {
    fn from(error: blobs::Error) -> Self {
        Refusal::Blob(error).into()
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        Refusal::from(error).into()
    }
}

/// Reports an internal error: the caller gets an error id, the log has the details.
pub(super) fn internal(cause: &dyn std::error::Error) -> ApiError {
    let id = fastrand::u32(..);
    error!(
        error_id = format!("{id:08x}"),
        error = error_chain(cause),
        "a request failed with an internal error"
    );
    ApiError::new(
        Code::Internal,
        format!("internal error of nimbus, error id {id:08x}"),
        Some("the log of this nimbus has the details under this error id"),
    )
}

/// Parses a body that is a JSON object.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Serde would also take an array as a list of the fields.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::new(Code::InvalidRequest, "the body must be a JSON object".to_owned(), None));
    }
    parse_json(bytes)
}

/// Parses a JSON body.
pub(super) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    match Json::<T>::from_bytes(bytes) {
        Ok(Json(value)) => Ok(value),
        Err(rejection) => {
            // The source says what is wrong and where; the rejection around it repeats that.
            let cause = match &rejection {
                JsonRejection::JsonSyntaxError(error) => error.source(),
                JsonRejection::JsonDataError(error) => error.source(),
                _ => None,
            };
            let text = cause.map_or_else(|| rejection.body_text(), ToString::to_string);
            Err(ApiError::new(
                Code::InvalidRequest,
                format!("the body is not the JSON expected: {}", without_rust_types(&text)),
                None,
            ))
        }
    }
}

/// Replaces the names of Rust types in a message of serde.
fn without_rust_types(text: &str) -> String {
    let Some((before, expected)) = text.split_once("expected ") else { return text.to_owned() };
    let (word, after) = expected.split_once(' ').unwrap_or((expected, ""));
    match word {
        "struct" => {
            let after = after.split_once(' ').map_or(String::new(), |(_, after)| format!(" {after}"));
            format!("{before}expected an object{after}")
        }
        "u8" | "u16" | "u32" | "u64" | "usize" => format!("{before}expected a whole number {after}"),
        "f64" => format!("{before}expected a number {after}"),
        _ => text.to_owned(),
    }
}

/// Variable part of a path.
pub(super) struct PathPart(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathPart {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(part)) => Ok(Self(part)),
            Err(rejection) => Err(ApiError::new(Code::InvalidRequest, rejection.body_text(), None)),
        }
    }
}

/// Returns the error for a body that did not arrive in time.
pub(super) fn too_slow() -> ApiError {
    ApiError::new(Code::InvalidRequest, "the body did not arrive in time", Some("send it without pauses"))
}

/// Returns the error for a body that is too large.
pub(super) fn too_large() -> ApiError {
    let limit = super::JSON_BYTES_MAX;
    ApiError::new(Code::TooLarge, format!("the body is larger than {limit} bytes"), None)
}

/// Returns the error for a body that could not be read: its sender has gone, or its chunks are malformed.
pub(super) fn broken_body(error: &axum::Error) -> ApiError {
    // The errors around the first cause say the same as this message.
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    ApiError::new(Code::InvalidRequest, format!("the body could not be read: {cause}"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_body_error_says_once_what_is_wrong_and_where() {
        let message = |bytes: &[u8]| match parse::<stormkeeper_api_types::message::KillRequest>(bytes) {
            Err(error) => error.0.message,
            Ok(request) => panic!("{request:?}"),
        };
        let begin = "the body is not the JSON expected: ";
        for no_object in [&b""[..], b"[]", b" [0]", b"7", b"null"] {
            assert_eq!(message(no_object), "the body must be a JSON object");
        }
        let wrong = message(br#"{"waitSecs":-1}"#);
        assert_eq!(
            wrong,
            format!(
                "{begin}waitSecs: invalid value: integer `-1`, expected a whole number at line 1 column 14"
            )
        );
        let wrong = message(br#"{"waitSecs":"soon"}"#);
        assert!(wrong.starts_with(&format!("{begin}waitSecs: invalid type: string \"soon\"")), "{wrong}");
        assert_eq!(wrong.matches("invalid type").count(), 1, "{wrong}");
    }
}
