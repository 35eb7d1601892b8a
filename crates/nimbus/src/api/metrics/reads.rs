//! Lists (topologies, metas, latest values, track, history) and the status of the metric store.

use axum::{Json, extract::State};

use super::{
    cursor::Cursor,
    parameter::{After, Limit, WindowName},
    params::{HistoryParams, LatestParams, MetaParams, PageParams, TrackParams},
    shape,
    source::{self, Source},
    status,
};
use crate::{
    api::{
        Api,
        error::{ApiError, PathPart},
    },
    change::find,
};
use stormkeeper_api_types::message::{
    LatestList, LatestValue, MeasuredTopology, MeasuredTopologyList, MetricControlRequest, MetricMetaList,
    MetricStoreStatus, TaskTrack, TopologyHistory,
};
use stormkeeper_metric_store::{LatestQuery, LatestRow};
use stormkeeper_metrics::{Minute, Window};
use stormkeeper_serving::query::ValidQuery;

pub(super) async fn topologies(
    State(api): State<Api>,
    ValidQuery(asked): ValidQuery<PageParams>,
) -> Result<Json<MeasuredTopologyList>, ApiError> {
    let PageParams { limit: Limit(limit), after } = asked;
    let Source { store, view } = source::of(&api)?;
    let mut ids = store.topologies().await.map_err(source::store_error)?;
    ids.sort();
    ids.retain(|id| after.as_ref().is_none_or(|after| id > after));
    let next = ids.get(limit).and_then(|_more| ids.get(limit - 1)).cloned();
    ids.truncate(limit);
    let history = store.history(None, source::HISTORY_MAX).await.map_err(source::store_error)?;
    let alive = source::live_topologies(&api);
    let mut topologies = Vec::with_capacity(ids.len());
    for id in ids {
        let known = history.iter().find(|entry| entry.topology == id).map(|entry| entry.name.clone());
        let name = alive.get(&id).cloned().or(known);
        let metas = store.fingerprint(&id).await.map_err(source::store_error)?.count;
        topologies.push(MeasuredTopology { name, alive: alive.contains_key(&id), metas, id });
    }
    Ok(Json(MeasuredTopologyList { topologies, next, store: view }))
}

pub(super) async fn metas(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    ValidQuery(asked): ValidQuery<MetaParams>,
) -> Result<Json<MetricMetaList>, ApiError> {
    let (filter, Limit(limit)) = (asked.filter(), asked.limit);
    let after = asked.after.map(|After(cursor)| cursor.id);
    let source = source::of(&api)?;
    let topology_id = source.topology(&api, &topology).await?;
    let page = source.metas(&topology_id, &filter, after, limit).await?;
    Ok(Json(MetricMetaList {
        topology_id,
        metas: page.metas.iter().map(shape::meta).collect(),
        next: page.next.map(|id| id.to_string()),
        store: source.view,
    }))
}

pub(super) async fn latest(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    ValidQuery(asked): ValidQuery<LatestParams>,
) -> Result<Json<LatestList>, ApiError> {
    let filter = asked.filter();
    let LatestParams { window: WindowName(window), limit: Limit(limit), after, .. } = asked;
    let after = after.map(|After(cursor)| cursor);
    let source = source::of(&api)?;
    let topology = source.topology(&api, &topology).await?;
    let query = LatestQuery {
        topology: topology.clone(),
        window,
        meta: filter.level,
        component: filter.component,
        task: filter.task,
        stream: filter.stream,
        name: filter.name,
        since: None,
        after: after.map(|cursor| cursor.id),
        limit,
    };
    let page = source.store.latest(query).await.map_err(source::store_error)?;
    // All windows of a list end with the same minute, the newest of the first page, so that their
    // values add up: a metric without recent points has less in its window.
    let newest = page.rows.iter().map(|row| row.minute).max();
    let end = after.and_then(|cursor| cursor.minute).or(newest);
    let mut values = Vec::with_capacity(page.rows.len());
    for row in page.rows {
        values.extend(value(&source, row, window, end).await?);
    }
    let next = page.next.map(|id| Cursor { id, minute: end }.to_string());
    Ok(Json(LatestList {
        topology_id: topology,
        window_secs: window.secs(),
        values,
        next,
        store: source.view,
    }))
}

/// Returns the value of a metric in the window that ends with the minute `end`, if the metric has
/// points in that window.
async fn value(
    source: &Source,
    LatestRow { meta, minute, point }: LatestRow,
    window: Window,
    end: Option<Minute>,
) -> Result<Option<LatestValue>, ApiError> {
    let end = end.unwrap_or(minute);
    let point = match minute == end {
        true => Some(point),
        false => source.store.window(meta.id, window, end).await.map_err(source::store_error)?,
    };
    let point = point.map(|mut point| {
        shape::until(&mut point, end);
        point
    });
    Ok(point.map(|point| LatestValue {
        value: shape::value(&meta.name, &point),
        meta: shape::meta(&meta),
        from_ms: end.minus(window.minutes() - 1).start(),
        to_ms: end.end(),
    }))
}

pub(super) async fn track(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    ValidQuery(asked): ValidQuery<TrackParams>,
) -> Result<Json<TaskTrack>, ApiError> {
    let TrackParams { task, limit: Limit(limit) } = asked;
    let source = source::of(&api)?;
    let topology_id = source.topology(&api, &topology).await?;
    let mut entries = source.store.track(&topology_id, task, limit + 1).await.map_err(source::store_error)?;
    let n_more = entries.len().saturating_sub(limit);
    let truncated = n_more > 0;
    let entries = entries.drain(n_more..).map(shape::task_place).collect();
    Ok(Json(TaskTrack { topology_id, entries, truncated, store: source.view }))
}

pub(super) async fn history(
    State(api): State<Api>,
    ValidQuery(asked): ValidQuery<HistoryParams>,
) -> Result<Json<TopologyHistory>, ApiError> {
    let HistoryParams { name, limit: Limit(limit) } = asked;
    let Source { store, view } = source::of(&api)?;
    let mut entries = store.history(name.as_ref(), limit + 1).await.map_err(source::store_error)?;
    let truncated = entries.len() > limit;
    entries.truncate(limit);
    let topologies = entries.into_iter().map(shape::past_topology).collect();
    Ok(Json(TopologyHistory { topologies, truncated, store: view }))
}

pub(super) async fn status(State(api): State<Api>) -> Result<Json<MetricStoreStatus>, ApiError> {
    Ok(Json(status::of(&api).await?))
}

pub(in crate::api) async fn control(
    State(api): State<Api>,
    PathPart(topology): PathPart,
) -> Result<Json<MetricControlRequest>, ApiError> {
    let view = api.nimbus.observation()?.view;
    let topology_record = view.topologies.get(&find(&view, &topology)?);
    let control =
        topology_record.and_then(|topology_record| topology_record.value.metrics.clone()).unwrap_or_default();
    Ok(Json(control.into()))
}
