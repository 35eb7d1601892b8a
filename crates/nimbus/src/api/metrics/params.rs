//! Query parameters of the paths for metrics.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    filter::Filter,
    parameter::{After, FullName, Id, Level, Limit, Pattern, Time, WindowName},
};
use crate::api::error::ApiError;
use stormkeeper_api_types::message::Code;
use stormkeeper_metrics::{Minute, Window};
use stormkeeper_model::{ComponentId, StreamId, TaskId, Timestamp, TopologyId, TopologyName};

/// Default length of a span of time, in buckets before its end.
const BUCKETS: u32 = 60;

pub(super) fn bad(message: impl Into<String>, hint: Option<&str>) -> ApiError {
    ApiError::new(Code::InvalidRequest, message, hint)
}

/// Parameters of the list of metas.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetaParams {
    /// Level of the metrics.
    level: Option<Level>,
    /// Component of the metrics.
    component: Option<ComponentId>,
    /// Task of the metrics.
    task: Option<TaskId>,
    /// Stream of the metrics.
    stream: Option<StreamId>,
    /// Pattern for the last part of names: `*` is any text, `?` any character.
    name: Option<Pattern>,
    /// Length of a page: 500, at most 5000.
    #[serde(default)]
    pub(super) limit: Limit,
    /// `next` of the page before.
    pub(super) after: Option<After>,
}

impl MetaParams {
    pub(super) fn filter(&self) -> Filter {
        let Self { level, component, task, stream, name, limit: _, after: _ } = self;
        filter(level, component, *task, stream, name)
    }
}

/// Parameters of the list of latest values.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LatestParams {
    /// Window in seconds, or as `1m`, `10m`, `2h` or `1d`: a minute if it is absent.
    #[serde(default)]
    pub(super) window: WindowName,
    /// Level of the metrics.
    level: Option<Level>,
    /// Component of the metrics.
    component: Option<ComponentId>,
    /// Task of the metrics.
    task: Option<TaskId>,
    /// Stream of the metrics.
    stream: Option<StreamId>,
    /// Pattern for the last part of names: `*` is any text, `?` any character.
    name: Option<Pattern>,
    /// Length of a page: 500, at most 5000.
    #[serde(default)]
    pub(super) limit: Limit,
    /// `next` of the page before.
    pub(super) after: Option<After>,
}

impl LatestParams {
    pub(super) fn filter(&self) -> Filter {
        let Self { window: _, level, component, task, stream, name, limit: _, after: _ } = self;
        filter(level, component, *task, stream, name)
    }
}

/// Parameters of points over time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DataParams {
    /// Id of one metric.
    pub(super) id: Option<Id>,
    /// Full name of one metric.
    pub(super) name: Option<FullName>,
    /// Topology of the metrics, by id or name.
    pub(super) topology: Option<String>,
    /// Pattern for the last part of names: `*` is any text, `?` any character.
    pub(super) pattern: Option<Pattern>,
    /// Level of the metrics.
    pub(super) level: Option<Level>,
    /// Component of the metrics.
    pub(super) component: Option<ComponentId>,
    /// Task of the metrics.
    pub(super) task: Option<TaskId>,
    /// Stream of the metrics.
    pub(super) stream: Option<StreamId>,
    /// Window in seconds, or as `1m`, `10m`, `2h` or `1d`: a minute if it is absent.
    #[serde(default)]
    pub(super) window: WindowName,
    /// Begin, in milliseconds since 1970, or as `-90s`, `-1h` or `-2d` before now.
    pub(super) from: Option<Time>,
    /// End, in the same form.
    pub(super) to: Option<Time>,
    /// Length of a page: 500, at most 5000.
    #[serde(default)]
    pub(super) limit: Limit,
    /// `next` of the page before.
    pub(super) after: Option<After>,
}

impl DataParams {
    pub(super) fn filter(&self) -> Filter {
        filter(&self.level, &self.component, self.task, &self.stream, &self.pattern)
    }
}

/// Parameters of the list of topologies.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParams {
    /// Length of a page: 500, at most 5000.
    #[serde(default)]
    pub(super) limit: Limit,
    /// `next` of the page before.
    pub(super) after: Option<TopologyId>,
}

/// Parameters of the track.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TrackParams {
    /// Task of the metrics.
    pub(super) task: Option<TaskId>,
    /// Length of a page: 500, at most 5000.
    #[serde(default)]
    pub(super) limit: Limit,
}

/// Parameters of the history.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryParams {
    /// Name of topologies.
    pub(super) name: Option<TopologyName>,
    /// Length of a page: 500, at most 5000.
    #[serde(default)]
    pub(super) limit: Limit,
}

fn filter(
    level: &Option<Level>,
    component: &Option<ComponentId>,
    task: Option<TaskId>,
    stream: &Option<StreamId>,
    pattern: &Option<Pattern>,
) -> Filter {
    Filter {
        level: level.as_ref().map(|Level(level)| *level),
        component: component.clone(),
        task,
        stream: stream.clone(),
        name: pattern.as_ref().map(|Pattern(text)| text.clone()),
    }
}

/// Returns the span of time from `from` to `to`, both included, in whole buckets: the first bucket
/// is the one that contains `from`.
pub(super) fn span(
    (from, to): (Option<&Time>, Option<&Time>),
    window: Window,
    now: Timestamp,
) -> Result<(Minute, Minute), ApiError> {
    let read = |time: Option<&Time>| time.map(|Time(moment)| Minute::of(moment.before(now)));
    let end = read(to).unwrap_or_else(|| Minute::of(now));
    let begin = read(from).unwrap_or_else(|| end.minus(window.minutes() * BUCKETS));
    match begin <= end {
        true => Ok((window.bucket(begin), end)),
        false => Err(bad(format!("from ({begin}) is later than to ({end})"), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000_000);

    #[test]
    fn span_without_parameters_is_sixty_buckets() {
        let now = Minute::of(NOW);
        let span = |from: Option<&str>, to: Option<&str>, window| {
            let time = |text: Option<&str>| text.map(|text| Time::try_from(text.to_owned()).expect("valid"));
            span((time(from).as_ref(), time(to).as_ref()), window, NOW).map_err(|_| ())
        };
        assert_eq!(span(None, None, Window::M1), Ok((now.minus(60), now)));
        // NOW is 2001-09-09T01:46: its ten minutes begin at :40, its day at 00:00.
        assert_eq!(span(None, Some("-1h"), Window::M10), Ok((now.minus(666), now.minus(60))));
        assert_eq!(span(Some("-1h"), Some("-1h"), Window::D1), Ok((now.minus(106), now.minus(60))));
        assert_eq!(span(Some("now"), Some("-1h"), Window::M1), Err(()));
    }
}
