//! What any nimbus reads.

use super::MetricStore;
use crate::{
    Error, Fingerprint, HistoryEntry, LatestPage, LatestQuery, Options, Status, TrackEntry, history,
    key::Table, leading, told,
};
use stormkeeper_metrics::{
    MetricId, Minute, Point, Window,
    protocol::{MetaPage, MetaQuery, MetricMeta},
};
use stormkeeper_model::{TaskId, TopologyId, TopologyName};

impl MetricStore {
    /// Metas of a topology, page by page.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn metas(&self, query: MetaQuery) -> Result<MetaPage, Error> {
        self.read(move |_, view| history::metas(view, &query)).await
    }

    /// The meta of one metric.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn meta(&self, id: MetricId) -> Result<Option<MetricMeta>, Error> {
        self.read(move |shared, view| {
            Ok(leading::name_of(shared, view, id)?.map(|name| MetricMeta { id, name }))
        })
        .await
    }

    /// Count and digest of a topology's metas; of none when it is not known.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn fingerprint(&self, topology: &TopologyId) -> Result<Fingerprint, Error> {
        Ok(self.shared.catalog().fingerprint(topology))
    }

    /// The history of one metric: the buckets of `window` that begin in `from..=to`, the oldest
    /// `limit` of them. Ask again from after the last one for more.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn points(
        &self,
        id: MetricId,
        window: Window,
        from: Minute,
        to: Minute,
        limit: usize,
    ) -> Result<Vec<(Minute, Point)>, Error> {
        self.read(move |shared, view| {
            let Options { clock, retention, .. } = &shared.options;
            let from = history::kept(from, window, clock.now(), retention.minutes(window));
            history::points(view, id, window, (from, to), limit)
        })
        .await
    }

    /// One metric over the `window` that ends with the minute `end`, to the minute.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn window(&self, id: MetricId, window: Window, end: Minute) -> Result<Option<Point>, Error> {
        self.read(move |_, view| history::window(&mut view.cursor(Table::Points), id, window, end)).await
    }

    /// Metrics of a topology as they were last, page by page.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn latest(&self, query: LatestQuery) -> Result<LatestPage, Error> {
        self.read(move |_, view| history::latest(view, &query)).await
    }

    /// Where the tasks of a topology ran, or one of them; by task, the first place first. With
    /// more than `limit` entries the first are left out.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn track(
        &self,
        topology: &TopologyId,
        task: Option<TaskId>,
        limit: usize,
    ) -> Result<Vec<TrackEntry>, Error> {
        let topology = topology.clone();
        self.read(move |_, view| history::track(view, &topology, task, limit)).await
    }

    /// The last topologies, those of `name` or all; the last first.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn history(
        &self,
        name: Option<&TopologyName>,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, Error> {
        let name = name.cloned();
        self.read(move |_, view| history::history(view, name.as_ref(), limit)).await
    }

    /// One topology, from its submission on; none that is not known, or is forgotten.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn topology(&self, id: &TopologyId) -> Result<Option<HistoryEntry>, Error> {
        let id = id.clone();
        self.read(move |_, view| told::history_of(view, &id)).await
    }

    /// Every topology that has metas, dead ones too.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn topologies(&self) -> Result<Vec<TopologyId>, Error> {
        let catalog = self.shared.catalog();
        let with_metas = catalog.topologies().filter(|of| of.fingerprint.count > 0);
        Ok(with_metas.map(|of| of.id.clone()).collect())
    }

    /// How the archive stands.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn status(&self) -> Result<Status, Error> {
        // Also while nothing can be read: then it says why.
        let bytes = self.read(|_, view| Ok(view.bytes())).await.unwrap_or_default();
        let aside = self.aside().await.unwrap_or_default();
        let (shape, position) = self.shared.log();
        let catalog = self.shared.catalog();
        let with_drops = catalog.topologies().filter(|of| !of.drops.is_empty());
        Ok(Status {
            bytes,
            position,
            log_from: shape.base.index + 1,
            log_bytes: shape.bytes(),
            metas: catalog.len() as u64,
            drops: with_drops.map(|of| (of.id.clone(), of.drops.clone())).collect(),
            failure: self.shared.failure().clone(),
            aside,
        })
    }
}
