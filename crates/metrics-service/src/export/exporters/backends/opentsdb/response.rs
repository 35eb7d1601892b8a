//! Meaning of a response of `/api/put?details` for the points that were sent.

use serde::Deserialize;

use crate::export::exporters::backends::http::Answer;

/// Result of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PutResponse {
    /// The batch is stored, except points that will never be accepted.
    Stored {
        /// Number of points that will never be accepted.
        refused: u64,
        /// Server's text for the first of them.
        message: Option<String>,
    },
    /// A part of the batch is not stored, and may be later. The other part may be sent again.
    RetryLater {
        /// Number of points that are not stored.
        n: u64,
        /// Server's text for the first of them.
        message: String,
    },
    /// The batch is too long for the server: a smaller one must be sent.
    TooLong,
    /// Nothing is stored, because of bad points that the server does not name.
    RejectedUnnamed {
        /// Server's text.
        message: String,
    },
    /// Nothing is stored: the server does not accept the encoding of the body.
    EncodingRejected,
    /// The response is not that of a server that accepts points.
    Unexpected,
}

#[derive(Deserialize)]
struct Details {
    failed: u64,
    #[serde(default)]
    errors: Vec<PointError>,
}

#[derive(Deserialize)]
struct PointError {
    error: String,
}

/// Texts of OpenTSDB for points that it would accept later.
const FOR_LATER: [&str; 3] = ["Please throttle", "Storage exception", "Write timedout"];

/// Interprets `answer` for a batch.
pub(super) fn of(answer: &Answer) -> PutResponse {
    match answer.status {
        // VictoriaMetrics and others send no details.
        200..=299 => details(answer).unwrap_or(PutResponse::Stored { refused: 0, message: None }),
        400 => details(answer).unwrap_or_else(|| PutResponse::RejectedUnnamed { message: answer.message() }),
        413 => PutResponse::TooLong,
        415 => PutResponse::EncodingRejected,
        _ => PutResponse::Unexpected,
    }
}

fn details(answer: &Answer) -> Option<PutResponse> {
    let details: Details = serde_json::from_slice(&answer.body).ok()?;
    let for_later = |error: &&PointError| FOR_LATER.iter().any(|text| error.error.starts_with(text));
    let mut later = details.errors.iter().filter(for_later);
    if let Some(first) = later.next() {
        return Some(PutResponse::RetryLater { n: 1 + later.count() as u64, message: first.error.clone() });
    }
    let message = details.errors.first().map(|first| first.error.clone());
    Some(PutResponse::Stored { refused: details.failed, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: PutResponse) {
        let answer = Answer { status, body: body.as_bytes().to_vec() };
        assert_eq!(of(&answer), expected, "{status} {body}");
    }

    #[test]
    fn answers_are_interpreted() {
        let stored = |refused, message: Option<&str>| PutResponse::Stored {
            refused,
            message: message.map(str::to_owned),
        };
        check(204, "", stored(0, None));
        check(200, r#"{"errors":[],"success":3,"failed":0}"#, stored(0, None));
        check(
            400,
            r#"{"errors":[{"datapoint":{"metric":"a"},"error":"Unknown metric"}],"success":2,"failed":1}"#,
            stored(1, Some("Unknown metric")),
        );
        check(
            400,
            r#"{"errors":[{"error":"Unknown metric"},{"error":"Storage exception: full"},{"error":"Please throttle"}],
            "success":0,"failed":3}"#,
            PutResponse::RetryLater { n: 2, message: "Storage exception: full".to_owned() },
        );
        check(
            400,
            r#"{"error":{"code":400,"message":"Unable to parse the given JSON"}}"#,
            PutResponse::RejectedUnnamed {
                message: r#"{"error":{"code":400,"message":"Unable to parse the given JSON"}}"#.to_owned(),
            },
        );
        check(413, "", PutResponse::TooLong);
        check(415, "", PutResponse::EncodingRejected);
        check(404, "", PutResponse::Unexpected);
        check(302, "", PutResponse::Unexpected);
    }
}
