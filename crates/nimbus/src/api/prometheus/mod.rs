//! `/metrics`: the page for Prometheus, on any nimbus.
//!
//! ```text
//!  view of the cluster ─▶ view ───┐
//!  own state, metrics status ─▶ own ├─▶ families, at most once in ten seconds ─▶ page in a format
//!  metric store ─▶ stored ────────┘
//! ```
//!
//! All computing is on threads that may block; no lock that another part of the nimbus needs is held.

mod own;
mod stored;
mod view;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use tokio::sync::Mutex;

use super::{Api, error::ApiError};
use crate::Handle;
use stored::StoredMetrics;
use stormkeeper_api_types::message::Code;
use stormkeeper_exposition::{Family, Format, measured::Level};
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::{blocking, refreshed::Refreshed, tasks::Tasks};

/// Shortest time between two snapshots, however many ask.
const SNAPSHOT_PERIOD: Duration = Duration::from_secs(10);

/// Maximum wait of a request for a snapshot; then it gets the one before.
const PATIENCE: Duration = Duration::from_secs(8);

/// Levels that are left out of a page that is too large, in this order.
const LEVELS: [Level; 3] = [Level::ComponentStream, Level::Component, Level::Topology];

/// Media types of the page, of which the client chooses one.
pub(super) const MEDIA_TYPES: &[&str] =
    &["text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"];

/// Families of the last snapshot, and what the next one needs of it.
#[derive(Debug)]
pub(super) struct Snapshots {
    families: Refreshed<Vec<Family>>,
    /// Held by the one task that makes a snapshot.
    stored: Arc<Mutex<StoredMetrics>>,
    tasks: Tasks,
}

pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, ApiError> {
    let families = api.prometheus.families(&api.nimbus).await?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::preferred(accept);
    let page = blocking::run(move || format.encode(&families)).await;
    let content_type = HeaderValue::from_static(format.content_type());
    Ok(([(header::CONTENT_TYPE, content_type), (header::VARY, HeaderValue::from_static("accept"))], page)
        .into_response())
}

impl Snapshots {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            families: Refreshed::new(SNAPSHOT_PERIOD, clock),
            stored: Arc::default(),
            tasks: Tasks::default(),
        }
    }

    /// Returns the families of the last snapshot, or of a new one if the last is too old.
    async fn families(&self, nimbus: &Handle) -> Result<Arc<Vec<Family>>, ApiError> {
        let (nimbus, stored) = (nimbus.clone(), Arc::clone(&self.stored));
        let make = |_before| async move { snapshot(&nimbus, &mut *stored.lock().await).await };
        let families = self.families.get(&self.tasks, PATIENCE, make).await;
        families.ok_or_else(|| {
            let hint = "Prometheus asks again by itself; if this lasts, the disk of this nimbus is too slow";
            ApiError::new(Code::NotReady, "the numbers for this page are still being read", Some(hint))
        })
    }
}

/// Makes a snapshot. Parts that cannot be read are left out: the page says which.
async fn snapshot(nimbus: &Handle, stored: &mut StoredMetrics) -> Vec<Family> {
    let status = nimbus.metrics_status().await;
    let observation = nimbus.observation().ok();
    let store = nimbus.metrics().ok();
    let max = nimbus.options().prometheus_series_max;
    let of_view = match observation.clone() {
        Some(observation) => {
            let nimbus = nimbus.clone();
            let drops = status.store.as_ref().map(|store| store.drops.clone()).unwrap_or_default();
            blocking::run(move || view::families(&nimbus, &observation, &drops)).await
        }
        None => view::Families::default(),
    };
    if let Some(store) = &store {
        stored.update(store, &stored::Wanted::new(nimbus, observation.as_ref(), max)).await;
    }
    let omitted = omitted(max, |level| of_view.n_series(level) + stored.n_series(level));
    let mut families = own::families(nimbus, observation.as_ref(), &status, &omitted);
    families.extend(of_view.without(&omitted));
    if let Some(store) = &store {
        let now = nimbus.clock().now();
        families.extend(
            stored.families(store, now, |level| !omitted.iter().any(|(left, _)| *left == level)).await,
        );
    }
    families
}

/// Returns the levels that are left out, each with the number of its series, so that the others have
/// at most `max` series.
fn omitted(max: usize, n_series: impl Fn(Level) -> usize) -> Vec<(Level, usize)> {
    let mut counts = LEVELS.map(|level| (level, n_series(level))).to_vec();
    let mut omitted = Vec::new();
    while !counts.is_empty() && counts.iter().fold(0_usize, |sum, (_, n)| sum.saturating_add(*n)) > max {
        omitted.push(counts.remove(0));
    }
    omitted.retain(|(_, n)| *n > 0);
    omitted
}
