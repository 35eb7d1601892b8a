//! Query parameters, each with an error that says what is wrong and which values are valid.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{cursor::Cursor, filter::Filter};
use crate::api::error::ApiError;
use stormkeeper_api_types::message::Code;
use stormkeeper_metrics::{MetaType, Minute, Window, name::MAX_PART_BYTES};
use stormkeeper_model::{InvalidId, TaskId, Timestamp};

/// Default number of entries of a page.
const LIMIT: usize = 500;

/// Maximum number of entries of a page: a page of histograms stays below some megabytes.
pub(super) const LIMIT_MAX: usize = 5000;

/// Default length of a span of time, in buckets before its end.
const BUCKETS: u32 = 60;

pub(super) fn bad(message: impl Into<String>, hint: Option<&str>) -> ApiError {
    ApiError::new(Code::InvalidRequest, message, hint)
}

/// Parameters of the lists of metas and of latest values.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// Window in seconds, 60, 600, 7200 or 86400, or as `1m`, `10m`, `2h` or `1d`.
    pub(super) window: Option<String>,
    /// Level of the metrics, such as `component`.
    pub(super) level: Option<String>,
    /// Component of the metrics.
    pub(super) component: Option<String>,
    /// Task of the metrics, a number.
    pub(super) task: Option<String>,
    /// Stream of the metrics.
    pub(super) stream: Option<String>,
    /// Pattern for the last part of names: `*` is any text, `?` any character.
    pub(super) name: Option<String>,
    /// Length of a page: 500, at most 5000.
    pub(super) limit: Option<String>,
    /// `next` of the page before.
    pub(super) after: Option<String>,
}

impl ListParams {
    pub(super) fn filter(&self) -> Result<Filter, ApiError> {
        filter(&self.level, &self.component, &self.task, &self.stream, ("name", &self.name))
    }
}

/// Parameters of points over time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DataParams {
    /// Id of one metric.
    pub(super) id: Option<String>,
    /// Full name of one metric.
    pub(super) name: Option<String>,
    /// Topology of the metrics, by id or name.
    pub(super) topology: Option<String>,
    /// Pattern for the last part of names: `*` is any text, `?` any character.
    pub(super) pattern: Option<String>,
    /// Level of the metrics, such as `component`.
    pub(super) level: Option<String>,
    /// Component of the metrics.
    pub(super) component: Option<String>,
    /// Task of the metrics, a number.
    pub(super) task: Option<String>,
    /// Stream of the metrics.
    pub(super) stream: Option<String>,
    /// Window in seconds, 60, 600, 7200 or 86400, or as `1m`, `10m`, `2h` or `1d`.
    pub(super) window: Option<String>,
    /// Begin, in milliseconds since 1970, or as `-90s`, `-1h` or `-2d` before now.
    pub(super) from: Option<String>,
    /// End, in the same form.
    pub(super) to: Option<String>,
    /// Length of a page: 500, at most 5000.
    pub(super) limit: Option<String>,
    /// `next` of the page before.
    pub(super) after: Option<String>,
}

impl DataParams {
    pub(super) fn filter(&self) -> Result<Filter, ApiError> {
        filter(&self.level, &self.component, &self.task, &self.stream, ("pattern", &self.pattern))
    }
}

/// Parameters of the list of topologies.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParams {
    /// Length of a page: 500, at most 5000.
    pub(super) limit: Option<String>,
    /// `next` of the page before.
    pub(super) after: Option<String>,
}

/// Parameters of the track.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TrackParams {
    /// Task of the metrics, a number.
    pub(super) task: Option<String>,
    /// Length of a page: 500, at most 5000.
    pub(super) limit: Option<String>,
}

/// Parameters of the history.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryParams {
    /// Name of topologies.
    pub(super) name: Option<String>,
    /// Length of a page: 500, at most 5000.
    pub(super) limit: Option<String>,
}

fn filter(
    level: &Option<String>,
    component: &Option<String>,
    task: &Option<String>,
    stream: &Option<String>,
    (key, pattern): (&str, &Option<String>),
) -> Result<Filter, ApiError> {
    Ok(Filter {
        level: level.as_deref().map(self::level).transpose()?,
        component: id("component", component)?,
        task: self::task(task)?,
        stream: id("stream", stream)?,
        name: pattern.as_deref().map(|text| self::pattern(key, text)).transpose()?,
    })
}

fn level(text: &str) -> Result<MetaType, ApiError> {
    let found = MetaType::ALL.into_iter().find(|level| level.word() == text);
    found.ok_or_else(|| {
        let known = format!("the levels are {}", MetaType::ALL.map(MetaType::word).join(", "));
        bad(format!("level={text}: unknown level"), Some(&known))
    })
}

fn id<T: FromStr<Err = InvalidId>>(key: &str, text: &Option<String>) -> Result<Option<T>, ApiError> {
    let read = text.as_deref().map(str::parse).transpose();
    read.map_err(|error: InvalidId| bad(format!("{key}: {error}"), None))
}

pub(super) fn task(text: &Option<String>) -> Result<Option<TaskId>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let task = text.parse().map(TaskId);
    task.map(Some).map_err(|_| bad(format!("task={text}: a task is a whole number, such as 3"), None))
}

/// Checks a name pattern. Names contain no `@`: a full name selects one metric with `name=`.
fn pattern(key: &str, text: &str) -> Result<String, ApiError> {
    let wrong = |reason: &str| {
        let hint = "a pattern for the last part of a name, such as Emit*; * is any text, ? any character";
        bad(format!("{key}={text}: {reason}"), Some(hint))
    };
    match () {
        () if text.is_empty() => Err(wrong("it is empty")),
        () if text.len() > MAX_PART_BYTES => Err(wrong("it is longer than 200 bytes")),
        () if text.contains(['@', ' ']) => {
            Err(wrong("the last part of a name contains no @ and no white space"))
        }
        () => Ok(text.to_owned()),
    }
}

pub(super) fn window(text: &Option<String>) -> Result<Window, ApiError> {
    match text.as_deref() {
        None | Some("60" | "1m") => Ok(Window::M1),
        Some("600" | "10m") => Ok(Window::M10),
        Some("7200" | "2h") => Ok(Window::H2),
        Some("86400" | "1d") => Ok(Window::D1),
        Some(text) => Err(bad(
            format!("window={text}: unknown window"),
            Some("the windows are 60, 600, 7200 and 86400 seconds, or 1m, 10m, 2h and 1d"),
        )),
    }
}

pub(super) fn limit(text: &Option<String>) -> Result<usize, ApiError> {
    let Some(text) = text else { return Ok(LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        let hint = format!("a whole number from 1 to {LIMIT_MAX}; default {LIMIT}");
        bad(format!("limit={text}: not a valid page length"), Some(&hint))
    })
}

pub(super) fn after(text: &Option<String>) -> Result<Option<Cursor>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let hint = "pass the next of the previous page unchanged; without after=, the first page is returned";
    text.parse().map(Some).map_err(|_| bad(format!("after={text}: not a next of any page"), Some(hint)))
}

/// Returns the span of time from `from` to `to`, both included, in whole buckets: the first bucket
/// is the one that contains `from`.
pub(super) fn span(
    (from, to): (&Option<String>, &Option<String>),
    window: Window,
    now: Timestamp,
) -> Result<(Minute, Minute), ApiError> {
    let read = |key: &str, text: &Option<String>| match text {
        Some(text) => time(text, now).map(|time| Some(Minute::of(time))).ok_or_else(|| {
            let hint = "milliseconds since 1970, or relative to now: now, -90s, -15m, -6h, -2d";
            bad(format!("{key}={text}: not a valid time"), Some(hint))
        }),
        None => Ok(None),
    };
    let end = read("to", to)?.unwrap_or_else(|| Minute::of(now));
    let begin = read("from", from)?.unwrap_or_else(|| end.minus(window.minutes() * BUCKETS));
    match begin <= end {
        true => Ok((window.bucket(begin), end)),
        false => Err(bad(format!("from ({begin}) is later than to ({end})"), None)),
    }
}

/// Parses an absolute or relative time.
fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text == "now" {
        return Some(now);
    }
    let Some(ago) = text.strip_prefix('-') else { return text.parse().ok().map(Timestamp::from_millis) };
    let unit_at = ago.find(|c: char| !c.is_ascii_digit())?;
    let (n, unit) = ago.split_at(unit_at);
    let millis: u64 = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ago = n.parse::<u64>().ok()?.checked_mul(millis)?;
    Some(Timestamp::from_millis(now.as_millis().saturating_sub(ago)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000_000);

    #[test]
    fn time_is_milliseconds_or_relative_to_now() {
        let check = |text, millis| assert_eq!(time(text, NOW).map(Timestamp::as_millis), millis, "{text}");
        check("now", Some(1_000_000_000_000));
        check("17", Some(17));
        check("-90s", Some(999_999_910_000));
        check("-1h", Some(999_996_400_000));
        check("-2d", Some(999_827_200_000));
        check("-99999999d", Some(0));
        for bad in ["", "-", "-h", "-1", "-1w", "1h", "yesterday", "--1h", "-99999999999999999999s"] {
            check(bad, None);
        }
    }

    #[test]
    fn span_without_parameters_is_sixty_buckets() {
        let now = Minute::of(NOW);
        let span = |from: Option<&str>, to: Option<&str>, window| {
            span((&from.map(str::to_owned), &to.map(str::to_owned)), window, NOW).map_err(|_| ())
        };
        assert_eq!(span(None, None, Window::M1), Ok((now.minus(60), now)));
        // NOW is 2001-09-09T01:46: its ten minutes begin at :40, its day at 00:00.
        assert_eq!(span(None, Some("-1h"), Window::M10), Ok((now.minus(666), now.minus(60))));
        assert_eq!(span(Some("-1h"), Some("-1h"), Window::D1), Ok((now.minus(106), now.minus(60))));
        assert_eq!(span(Some("now"), Some("-1h"), Window::M1), Err(()));
    }
}
