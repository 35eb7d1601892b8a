//! What an answer of `/api/put?details` means for the points that were sent.

use serde::Deserialize;

use crate::plugin::uploader::http::Answer;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of it, but for so many that will never be taken, is stored.
    Stored {
        /// How many will never be taken.
        refused: u64,
        /// What the server said of the first of those.
        said: Option<String>,
    },
    /// A part of it is not stored and may be later. The rest may come again.
    NotNow {
        /// How many.
        n: u64,
        /// What the server said of the first of those.
        said: String,
    },
    /// It is too long for the server: send less at once.
    TooLong,
    /// None of it is stored, as some of it is bad; which, the server does not say.
    Mixed {
        /// What it said.
        said: String,
    },
    /// This is no answer of a server that takes points there.
    Fault,
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

/// What OpenTSDB says of points that it would take at another time.
const FOR_LATER: [&str; 3] = ["Please throttle", "Storage exception", "Write timedout"];

/// What `answer` means for a batch.
pub(super) fn of(answer: &Answer) -> Verdict {
    match answer.status {
        // VictoriaMetrics and others answer no details.
        200..=299 => details(answer).unwrap_or(Verdict::Stored { refused: 0, said: None }),
        400 => details(answer).unwrap_or_else(|| Verdict::Mixed { said: answer.said() }),
        413 => Verdict::TooLong,
        _ => Verdict::Fault,
    }
}

fn details(answer: &Answer) -> Option<Verdict> {
    let details: Details = serde_json::from_slice(&answer.body).ok()?;
    let for_later = |error: &&PointError| FOR_LATER.iter().any(|text| error.error.starts_with(text));
    let mut later = details.errors.iter().filter(for_later);
    if let Some(first) = later.next() {
        return Some(Verdict::NotNow { n: 1 + later.count() as u64, said: first.error.clone() });
    }
    let said = details.errors.first().map(|first| first.error.clone());
    Some(Verdict::Stored { refused: details.failed, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: Verdict) {
        let answer = Answer { status, body: body.as_bytes().to_vec() };
        assert_eq!(of(&answer), expected, "{status} {body}");
    }

    #[test]
    fn answers_are_understood() {
        let stored = |refused, said: Option<&str>| Verdict::Stored { refused, said: said.map(str::to_owned) };
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
            Verdict::NotNow { n: 2, said: "Storage exception: full".to_owned() },
        );
        check(
            400,
            r#"{"error":{"code":400,"message":"Unable to parse the given JSON"}}"#,
            Verdict::Mixed {
                said: r#"{"error":{"code":400,"message":"Unable to parse the given JSON"}}"#.to_owned(),
            },
        );
        check(413, "", Verdict::TooLong);
        check(404, "", Verdict::Fault);
        check(302, "", Verdict::Fault);
    }
}
