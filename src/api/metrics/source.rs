//! The archive that answers: how it is come by, how old it is, and which topology a text names
//! in it.

use std::collections::BTreeMap;

use super::filter::Filter;
use crate::{
    api::{
        Api,
        error::{ApiError, internal},
    },
    archive::{self, Archive},
    metrics::MetricId,
    model::{Position, TopologyId, TopologyName},
    nimbus::{change::find, measure::Lag},
    rpc::{
        client::chain,
        message::{ArchiveView, Code},
        metrics::{MetaPage, MetaQuery},
    },
};

/// How far back names of gone topologies are looked up for a list.
pub(super) const HISTORY_MAX: usize = 5000;

/// How many metas the archive is asked for at once, when a filter lets few of them through.
const SCANNED_AT_ONCE: usize = 5000;

/// The most metas that one page looks at then.
const SCANNED_MAX: usize = 20_000;

/// An archive, and how much of the leader's it is.
pub(super) struct Source {
    pub(super) archive: Archive,
    pub(super) view: ArchiveView,
}

impl Source {
    /// The topology that a text names: a live one by id or name; a gone one by id, or the last
    /// of that name.
    ///
    /// # Errors
    /// `unknown_topology` when nothing is known of any.
    pub(super) async fn topology(&self, api: &Api, text: &str) -> Result<TopologyId, ApiError> {
        // One that has not read the cluster, or cannot read that record, still has its archive.
        let live = api.nimbus.observation().and_then(|seen| find(&seen.view, text));
        if let Ok(id) = live {
            return Ok(id);
        }
        if let Ok(id) = text.parse::<TopologyId>() {
            let has_metas = self.archive.fingerprint(&id).await.map_err(failed)?.count > 0;
            let was_there = self.archive.topology(&id).await.map_err(failed)?.is_some();
            if has_metas || was_there || !self.archive.track(&id, None, 1).await.map_err(failed)?.is_empty() {
                return Ok(id);
            }
        }
        if let Ok(name) = text.parse::<TopologyName>()
            && let Some(last) = self.archive.history(Some(&name), 1).await.map_err(failed)?.pop()
        {
            return Ok(last.topology);
        }
        Err(ApiError::new(
            Code::UnknownTopology,
            format!("there is no topology {text:?}, and no metrics of one that is gone"),
            Some("`stormkeeper metrics --topologies` shows the ones there were"),
        ))
    }

    /// At most `limit` metas that the filter lets through, after the id `after`. A page that
    /// has looked at enough ends before, and says where to go on.
    pub(super) async fn metas(
        &self,
        topology: &TopologyId,
        filter: &Filter,
        mut after: Option<MetricId>,
        limit: usize,
    ) -> Result<MetaPage, ApiError> {
        let (mut metas, mut scanned) = (Vec::new(), 0);
        let at_once = if filter.is_of_level_alone() { limit } else { SCANNED_AT_ONCE };
        loop {
            let query = MetaQuery { topology: topology.clone(), meta: filter.level, after, limit: at_once };
            let page = self.archive.metas(query).await.map_err(failed)?;
            scanned += page.metas.len();
            let mut fit = page.metas.into_iter().filter(|meta| filter.lets_through(&meta.name));
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

/// What a failure of the archive is to the one who asked.
pub(super) fn failed(error: archive::Error) -> ApiError {
    match error {
        archive::Error::Invalid(reason) => ApiError::new(Code::InvalidRequest, reason, None),
        archive::Error::Busy | archive::Error::Stopped => {
            ApiError::new(Code::NoArchive, chain(&error), Some("try again in a moment"))
        }
        archive::Error::Unreadable { .. } => internal(&error),
        error => ApiError::new(
            Code::NoArchive,
            chain(&error),
            Some("another nimbus may have it: --nimbus HOST:PORT"),
        ),
    }
}

/// The live topologies, as far as this nimbus sees.
pub(super) fn alive(api: &Api) -> BTreeMap<TopologyId, TopologyName> {
    let Ok(observation) = api.nimbus.observation() else { return BTreeMap::new() };
    observation.view.storms.iter().map(|(id, storm)| (id.clone(), storm.value.name.clone())).collect()
}

/// The archive of this nimbus.
///
/// # Errors
/// `no_archive` when there is none now, with the reason.
pub(super) fn of(api: &Api) -> Result<Source, ApiError> {
    let archive = api.nimbus.metrics().map_err(|refusal| {
        let hint = "the other nimbuses have archives of their own: --nimbus HOST:PORT";
        ApiError::new(Code::NoArchive, chain(&refusal), Some(hint))
    })?;
    let Position { term, seq } = archive.position();
    let Lag { leader, level_at } = api.nimbus.metrics_lag();
    let now = api.nimbus.clock().now();
    let behind_ms = level_at.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX));
    let view = ArchiveView {
        nimbus: api.nimbus.id().clone(),
        term,
        seq,
        entries_behind: leader.map(|leader| leader.seq.saturating_sub(seq)),
        behind_ms,
    };
    Ok(Source { archive, view })
}
