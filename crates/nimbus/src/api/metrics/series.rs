//! Points over time, of one metric or of many. A page may end in the middle of a metric.

use axum::{Json, extract::State};

use super::{
    cursor::Cursor,
    parameter::{After, FullName, Id, Limit, WindowName},
    params::{self, DataParams, bad},
    shape,
    source::{self, Source},
};
use crate::api::{Api, error::ApiError};
use stormkeeper_api_types::message::{Code, PointList, Series, TimedValue};
use stormkeeper_metrics::{
    MetricId, MetricName, Minute, Window,
    protocol::{MetricMeta, PointsQuery},
};
use stormkeeper_model::TopologyId;
use stormkeeper_serving::query::ValidQuery;

/// Maximum number of metrics that one page reads, even if none of them has points: each metric
/// costs a read of the metric store.
const SERIES_MAX: usize = 200;

/// Requested metrics: one metric, or several of a topology.
enum Selection {
    One(MetricMeta),
    Some { topology: TopologyId, metas: Vec<MetricMeta>, next: Option<MetricId> },
}

pub(super) async fn data(
    State(api): State<Api>,
    ValidQuery(asked): ValidQuery<DataParams>,
) -> Result<Json<PointList>, ApiError> {
    check_single_selector(&asked)?;
    let filter = asked.filter();
    let DataParams { window: WindowName(window), limit: Limit(limit), .. } = asked;
    let after = asked.after.map(|After(cursor)| cursor);
    let span = (asked.from.as_ref(), asked.to.as_ref());
    let (from, to) = params::span(span, window, api.nimbus.clock().now())?;
    let source = source::of(&api)?;
    let selection = match (&asked.id, &asked.name, &asked.topology) {
        (Some(Id(id)), ..) => Selection::One(by_id(&source, *id).await?),
        (None, Some(FullName(name)), _) => Selection::One(by_name(&source, name).await?),
        (None, None, Some(topology)) => {
            let topology = source.topology(&api, topology).await?;
            // A cursor with a minute names a metric that is not complete yet.
            let passed = match after {
                Some(Cursor { id, minute: Some(_) }) => id.0.checked_sub(1).map(MetricId),
                Some(Cursor { id, minute: None }) => Some(id),
                None => None,
            };
            let page = source.metas(&topology, &filter, passed, SERIES_MAX).await?;
            Selection::Some { topology, metas: page.metas, next: page.next }
        }
        (None, None, None) => return Err(bad("the query does not say which metric", Some(WAYS))),
    };
    let (topology_id, metas, more) = match selection {
        Selection::One(meta) => (meta.name.topology().clone(), vec![meta], None),
        Selection::Some { topology, metas, next } => (topology, metas, next),
    };
    let (series, next) = read(&source, metas, (window, from, to), after, limit).await?;
    let next = next.or(more.map(|id| Cursor { id, minute: None }));
    Ok(Json(PointList {
        topology_id,
        window_secs: window.secs(),
        from_ms: from.start(),
        to_ms: to.start(),
        series,
        next: next.map(|cursor| cursor.to_string()),
        store: source.view,
    }))
}

const WAYS: &str = "give id=, the full name=, or topology= with pattern=, level=, component=, task=, stream=";

/// Rejects a query that names the metrics in more than one way.
fn check_single_selector(asked: &DataParams) -> Result<(), ApiError> {
    let DataParams { id, name, topology, pattern, level, component, task, stream, .. } = asked;
    let ways = [id.is_some(), name.is_some(), topology.is_some()].into_iter().filter(|given| *given).count();
    if ways > 1 {
        return Err(bad("give only one of id=, name= and topology=", Some(WAYS)));
    }
    let filters = [pattern.is_some(), level.is_some(), component.is_some(), task.is_some(), stream.is_some()];
    if topology.is_none() && filters.contains(&true) {
        return Err(bad("a filter needs topology=, the topology whose metrics it selects", Some(WAYS)));
    }
    Ok(())
}

/// Reads at most `limit` points, metric by metric, and returns the cursor of the next page. The
/// next page continues an incomplete metric at the cursor's minute.
async fn read(
    source: &Source,
    metas: Vec<MetricMeta>,
    (window, from, to): (Window, Minute, Minute),
    after: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<Series>, Option<Cursor>), ApiError> {
    let (mut left, mut series) = (limit, Vec::new());
    for meta in metas {
        let resumed = after.filter(|cursor| cursor.id == meta.id).and_then(|cursor| cursor.minute);
        let from = resumed.map_or(from, |minute| from.max(minute));
        if left == 0 {
            return Ok((series, Some(Cursor { id: meta.id, minute: Some(from) })));
        }
        // One point more than fits tells whether there are more.
        let read = source.store.points(PointsQuery { id: meta.id, window, from, to, limit: left + 1 }).await;
        let mut points = read.map_err(source::store_error)?;
        let more = points.get(left).map(|(minute, _)| Cursor { id: meta.id, minute: Some(*minute) });
        points.truncate(left);
        left -= points.len();
        let timed = |(minute, point): &(Minute, _)| TimedValue {
            from_ms: minute.start(),
            value: shape::value(&meta.name, point),
        };
        series.push(Series { meta: shape::meta(&meta), points: points.iter().map(timed).collect() });
        if more.is_some() {
            return Ok((series, more));
        }
    }
    Ok((series, None))
}

async fn by_id(source: &Source, id: MetricId) -> Result<MetricMeta, ApiError> {
    let meta = source.store.meta(id).await.map_err(source::store_error)?;
    meta.ok_or_else(|| unknown(format!("there is no metric with the id {id}")))
}

/// Number of ids that are probed for a name. More than one collision is already unlikely.
const PROBES: u32 = 4;

async fn by_name(source: &Source, name: &MetricName) -> Result<MetricMeta, ApiError> {
    let full = name.to_string();
    for probe in 0..PROBES {
        let found = source.store.meta(MetricId::of(&full, probe)).await.map_err(source::store_error)?;
        match found {
            Some(meta) if meta.name == *name => return Ok(meta),
            Some(_another) => {}
            None => break,
        }
    }
    Err(unknown(format!("there is no metric {full}")))
}

fn unknown(message: String) -> ApiError {
    ApiError::new(
        Code::UnknownMetric,
        message,
        Some("GET /api/stormkeeper/v1/metrics/topology/{id or name}/metas lists the metrics of a topology"),
    )
}
