//! Metric store of this nimbus as the source of a response: its distance from the leader, and the
//! topology that a text names in it.

use std::collections::BTreeMap;

use super::filter::Filter;
use crate::{
    api::{
        Api,
        error::{ApiError, internal},
    },
    change::find,
};
use stormkeeper_api_types::message::{Code, MetricStoreView};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::{
    MetricId,
    protocol::{MetaPage, MetaQuery},
};
use stormkeeper_metrics_service::Lag;
use stormkeeper_model::{LogPosition, TopologyId, TopologyName};
use stormkeeper_runtime::error_chain;

/// Maximum number of history entries that are searched for the names of removed topologies.
pub(super) const HISTORY_MAX: usize = 5000;

/// Number of metas that are read at once, for a filter that matches few of them.
const SCANNED_AT_ONCE: usize = 5000;

/// Maximum number of metas that one page reads for such a filter.
const SCANNED_MAX: usize = 20_000;

/// Metric store, with its distance from the leader's.
pub(super) struct Source {
    pub(super) store: MetricStore,
    pub(super) view: MetricStoreView,
}

impl Source {
    /// Finds the topology that a text names: a live topology by id or name; a removed topology by
    /// id, or the latest one of that name.
    ///
    /// # Errors
    /// `unknown_topology` if neither the cluster view nor the metric store has such a topology.
    pub(super) async fn topology(&self, api: &Api, text: &str) -> Result<TopologyId, ApiError> {
        // A nimbus without a view, or with an unreadable record, still has its metric store.
        let live = api.nimbus.observation().and_then(|seen| find(&seen.view, text));
        if let Ok(id) = live {
            return Ok(id);
        }
        if let Ok(id) = text.parse::<TopologyId>() {
            let has_metas = self.store.fingerprint(&id).await.map_err(store_error)?.count > 0;
            let was_there = self.store.topology(&id).await.map_err(store_error)?.is_some();
            if has_metas
                || was_there
                || !self.store.track(&id, None, 1).await.map_err(store_error)?.is_empty()
            {
                return Ok(id);
            }
        }
        if let Ok(name) = text.parse::<TopologyName>()
            && let Some(last) = self.store.history(Some(&name), 1).await.map_err(store_error)?.pop()
        {
            return Ok(last.topology);
        }
        Err(ApiError::new(
            Code::UnknownTopology,
            format!("there is no topology {text:?}, and no metrics of a removed topology of that name or id"),
            Some("`stormkeeper metrics --topologies` lists all topologies with metrics"),
        ))
    }

    /// Returns at most `limit` metas that match the filter, after the id `after`. A page that has
    /// read `SCANNED_MAX` metas ends early, with a cursor.
    pub(super) async fn metas(
        &self,
        topology: &TopologyId,
        filter: &Filter,
        mut after: Option<MetricId>,
        limit: usize,
    ) -> Result<MetaPage, ApiError> {
        let (mut metas, mut scanned) = (Vec::new(), 0);
        let at_once = if filter.is_level_only() { limit } else { SCANNED_AT_ONCE };
        loop {
            let query = MetaQuery { topology: topology.clone(), meta: filter.level, after, limit: at_once };
            let page = self.store.metas(query).await.map_err(store_error)?;
            scanned += page.metas.len();
            let mut fit = page.metas.into_iter().filter(|meta| filter.matches(&meta.name));
            metas.extend(fit.by_ref().take(limit - metas.len()));
            if fit.next().is_some() {
                let next = metas.last().map(|meta| meta.id);
                return Ok(MetaPage { metas, next });
            }
            if page.next.is_none() || metas.len() == limit || scanned >= SCANNED_MAX {
                return Ok(MetaPage { metas, next: page.next });
            }
            after = page.next;
        }
    }
}

/// Converts an error of the metric store into a response.
pub(in crate::api) fn store_error(error: metric_store::Error) -> ApiError {
    match error {
        metric_store::Error::Invalid(reason) => ApiError::new(Code::InvalidRequest, reason, None),
        metric_store::Error::Busy | metric_store::Error::Stopped => {
            ApiError::new(Code::NoMetricStore, error_chain(&error), Some("try again in a moment"))
        }
        metric_store::Error::Unreadable { .. } => internal(&error),
        error => ApiError::new(
            Code::NoMetricStore,
            error_chain(&error),
            Some("ask another nimbus: --nimbus HOST:PORT"),
        ),
    }
}

/// Returns the live topologies in the view of this nimbus.
pub(super) fn live_topologies(api: &Api) -> BTreeMap<TopologyId, TopologyName> {
    let Ok(observation) = api.nimbus.observation() else { return BTreeMap::new() };
    observation
        .view
        .topologies
        .iter()
        .map(|(id, topology_record)| (id.clone(), topology_record.value.name.clone()))
        .collect()
}

/// Returns the metric store of this nimbus.
///
/// # Errors
/// `no_metric_store` with the reason, if the store is not open.
pub(super) fn of(api: &Api) -> Result<Source, ApiError> {
    let store = api.nimbus.metrics().map_err(|refusal| {
        let hint = "the other nimbuses have metric stores of their own: --nimbus HOST:PORT";
        ApiError::new(Code::NoMetricStore, error_chain(&refusal), Some(hint))
    })?;
    let LogPosition { term, index } = store.position();
    let Lag { leader, caught_up_at } = api.nimbus.metrics_lag();
    let now = api.nimbus.clock().now();
    let behind_ms = caught_up_at.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX));
    let view = MetricStoreView {
        nimbus: api.nimbus.id().clone(),
        term,
        index,
        entries_behind: leader.map(|leader| leader.index.saturating_sub(index)),
        behind_ms,
    };
    Ok(Source { store, view })
}
