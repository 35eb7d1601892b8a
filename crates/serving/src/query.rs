//! Parameters in the query of a URL: an error names the parameter, its value, and what is wrong.

use axum::{
    extract::{FromRequestParts, Query, Request, rejection::QueryRejection},
    http::{Uri, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use serde::de::DeserializeOwned;

use crate::error::Rejection;
use stormkeeper_api_types::message::Code;
use stormkeeper_model::id::quoted;

/// Advice for a request with wrong parameters.
const HINT: &str = "GET /api/openapi.json describes the parameters of every path";

/// Query of a URL as `T`. Types that refuse unknown fields refuse unknown parameters.
#[derive(Debug)]
pub struct ValidQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ValidQuery<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let read: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        read.map(|Query(query)| Self(query)).map_err(|rejection| invalid(&rejection, &parts.uri))
    }
}

/// Refuses requests with parameters, for paths that take none.
pub async fn refuse_parameters(request: Request, next: Next) -> Response {
    match pairs(request.uri()).first() {
        Some((name, _)) => unknown_parameter(name, "the path takes no parameters").into_response(),
        None => next.run(request).await,
    }
}

/// Returns the error for a parameter with a value that it does not take.
pub fn invalid_parameter(name: &str, value: &str, reason: &str) -> Rejection {
    Rejection::new(Code::InvalidRequest, format!("{name}={}: {reason}", shortened(value)), Some(HINT))
}

fn unknown_parameter(name: &str, hint: &str) -> Rejection {
    Rejection::new(Code::InvalidRequest, format!("unknown parameter {}", quoted(name)), Some(hint))
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    // A query of pairs of texts is never invalid.
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}

fn invalid(rejection: &QueryRejection, uri: &Uri) -> Rejection {
    // The source says what is wrong; the rejection around it repeats that.
    let text =
        std::error::Error::source(rejection).map_or_else(|| rejection.body_text(), ToString::to_string);
    if let Some((name, known)) = unknown_field(&text) {
        return unknown_parameter(name, &format!("the path takes {known}"));
    }
    let of_parameter = text.split_once(": ").and_then(|(name, reason)| {
        let pairs = pairs(uri);
        let (_, value) = pairs.iter().find(|(given, _)| given == name)?;
        Some(invalid_parameter(name, value, plain(reason)))
    });
    of_parameter.unwrap_or_else(|| Rejection::new(Code::InvalidRequest, text, Some(HINT)))
}

/// Returns the name and the known names in the text of serde about an unknown field. The name may contain
/// the words around it.
fn unknown_field(text: &str) -> Option<(&str, String)> {
    let (_, rest) = text.split_once("unknown field `")?;
    let (name, known) = rest.rsplit_once("`, expected ")?;
    Some((name, known.trim_start_matches("one of ").replace('`', "")))
}

/// Replaces texts of the standard library, which speak of Rust.
fn plain(reason: &str) -> &str {
    match reason {
        "invalid digit found in string" => "expected a whole number",
        "cannot parse integer from empty string" => "expected a whole number, and it is empty",
        "number too large to fit in target type" | "number too small to fit in target type" => {
            "the number is out of range"
        }
        "provided string was not `true` or `false`" => "expected true or false",
        reason => reason,
    }
}

/// Returns a value without control characters, cut if it is long.
fn shortened(value: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    let shown: String = value.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
    match value.chars().count() > SHOWN_CHARS {
        true => format!("{shown}… ({} bytes)", value.len()),
        false => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read from queries")]
    struct Asked {
        port: Option<u16>,
        #[serde(default)]
        past: bool,
        text: Option<String>,
    }

    async fn read(query: &str) -> Result<Asked, (String, Option<String>)> {
        let uri = format!("http://h/logs?{query}");
        let request = Request::builder().uri(uri).body(axum::body::Body::empty()).expect("valid");
        let (mut parts, _body) = request.into_parts();
        let read = ValidQuery::<Asked>::from_request_parts(&mut parts, &()).await;
        read.map(|ValidQuery(asked)| asked).map_err(|Rejection(body)| {
            assert_eq!(body.code, Code::InvalidRequest);
            (body.message, body.hint)
        })
    }

    #[tokio::test]
    async fn error_of_a_query_names_the_parameter_its_value_and_what_is_wrong() {
        for (query, expected) in [
            ("port=70000", "port=70000: the number is out of range"),
            ("port=", "port=: expected a whole number, and it is empty"),
            ("port=-1", "port=-1: expected a whole number"),
            ("past=perhaps", "past=perhaps: expected true or false"),
            ("past=%0ayes", "past=yes: expected true or false"),
            ("text=a&text=b", "duplicate field `text`"),
        ] {
            let (message, hint) = read(query).await.expect_err(query);
            assert!(message.ends_with(expected) && message.len() < expected.len() + 10, "{query}: {message}");
            assert_eq!(hint.as_deref(), Some(HINT), "{query}");
        }
        let (message, _) = read(&format!("port={}", "9".repeat(10_000))).await.expect_err("too large");
        assert_eq!(message, format!("port={}… (10000 bytes): the number is out of range", "9".repeat(60)));
        read("port=6700&past=true&text=%ff").await.expect("valid");
    }

    #[tokio::test]
    async fn unknown_parameter_is_named_with_those_that_the_path_takes() {
        for (query, name) in
            [("path=x", "\"path\""), ("a%60,+expected+%60b=x", "\"a`, expected `b\""), ("=x", "\"\"")]
        {
            let (message, hint) = read(query).await.expect_err(query);
            assert_eq!(message, format!("unknown parameter {name}"));
            assert_eq!(hint.as_deref(), Some("the path takes port, past, text"));
        }
    }
}
