//! Reads, on any nimbus.

use super::MetricStore;
use crate::{
    Error, Fingerprint, HistoryEntry, LatestPage, LatestQuery, Options, SUMS_MAX, StoreStatus, SumQuery,
    Total, TrackEntry, history, history_record, key::Table, leader_ops, span, totals,
};
use stormkeeper_metrics::{
    MetricId, MetricName, Minute, Point, Window,
    protocol::{MetaPage, MetaQuery, MetricMeta, PointsQuery},
};
use stormkeeper_model::{TaskId, Timestamp, TopologyId, TopologyName};

impl MetricStore {
    /// Returns a page of the metas of a topology.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn metas(&self, query: MetaQuery) -> Result<MetaPage, Error> {
        self.read(move |_, view| history::metas(view, &query)).await
    }

    /// Returns the meta of one metric.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn meta(&self, id: MetricId) -> Result<Option<MetricMeta>, Error> {
        self.read(move |shared, view| {
            Ok(leader_ops::name_of(shared, view, id)?.map(|name| MetricMeta { id, name }))
        })
        .await
    }

    /// Returns count and digest of a topology's metas; zeros for an unknown topology.
    ///
    /// # Errors
    /// None so far; reserved for a closed store.
    pub async fn fingerprint(&self, topology: &TopologyId) -> Result<Fingerprint, Error> {
        Ok(self.shared.catalog().fingerprint(topology))
    }

    /// Returns points of one metric: the buckets that begin in `query.from..=query.to`, at most the
    /// oldest `query.limit`. For more, call again from after the last one.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn points(&self, mut query: PointsQuery) -> Result<Vec<(Minute, Point)>, Error> {
        self.read(move |shared, view| {
            let Options { clock, retention, .. } = &shared.options;
            let kept = retention.minutes(query.window);
            query.from = history::kept(query.from, query.window, clock.now(), kept);
            history::points(view, &query)
        })
        .await
    }

    /// Returns one metric over the `window` that ends with the minute `end`, exact to the minute.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn window(&self, id: MetricId, window: Window, end: Minute) -> Result<Option<Point>, Error> {
        self.read(move |_, view| history::window(&mut view.cursor(Table::Points), id, window, end)).await
    }

    /// Returns the sums of metrics over spans of time that end now: for each query, one point for each
    /// of its spans. A metric without points in a span, and one that is not registered, has none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`SUMS_MAX`] metrics, [`Error::Read`].
    pub async fn sums(&self, queries: Vec<SumQuery>) -> Result<Vec<Vec<Option<Point>>>, Error> {
        if queries.len() > SUMS_MAX {
            return Err(Error::Invalid(format!("{} metrics, and the limit is {SUMS_MAX}", queries.len())));
        }
        self.read(move |shared, view| {
            let (now, mut cursor) = (shared.options.clock.now(), view.cursor(Table::Points));
            queries.iter().map(|query| span::sums(shared, view, &mut cursor, query, now)).collect()
        })
        .await
    }

    /// Returns the times between `from` and `to` in which a metric has no point; `None` if it is not
    /// registered. Long times are looked at by points of ten minutes or more.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn holes(
        &self,
        name: MetricName,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Option<Vec<(Timestamp, Timestamp)>>, Error> {
        self.read(move |shared, view| {
            span::holes(shared, view, (&name, from, to), shared.options.clock.now())
        })
        .await
    }

    /// Returns a page of a topology's metrics in their last minute.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn latest(&self, query: LatestQuery) -> Result<LatestPage, Error> {
        self.read(move |_, view| history::latest(view, &query)).await
    }

    /// Returns the totals of metrics, in the order of `metrics`, at most the first
    /// [`TOTALS_MAX`](crate::TOTALS_MAX): each is the sum of all points of the day at its minute and of
    /// later days, divided before the day that begins at `open_from`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn totals(
        &self,
        metrics: Vec<(MetricId, Minute)>,
        open_from: Minute,
    ) -> Result<Vec<Total>, Error> {
        self.read(move |_, view| totals::totals(view, &metrics, open_from)).await
    }

    /// Returns the point of the last minute of each metric, in the order of `ids`, at most the first
    /// [`TOTALS_MAX`](crate::TOTALS_MAX); none for metrics without a point since `since`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn readings(
        &self,
        topology: TopologyId,
        ids: Vec<MetricId>,
        since: Minute,
    ) -> Result<Vec<Option<Point>>, Error> {
        self.read(move |_, view| totals::readings(view, &topology, &ids, since)).await
    }

    /// Returns the placements of a topology's tasks or of one task, by task, the earliest first. If
    /// there are more than `limit`, the first are omitted.
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

    /// Returns the latest topologies, all or those with this name, the latest first.
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

    /// Returns the history of one topology; `None` if it is unknown or was removed.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn topology(&self, id: &TopologyId) -> Result<Option<HistoryEntry>, Error> {
        let id = id.clone();
        self.read(move |_, view| history_record::history_of(view, &id)).await
    }

    /// Returns all topologies that have metas, killed ones included.
    ///
    /// # Errors
    /// None so far; reserved for a closed store.
    pub async fn topologies(&self) -> Result<Vec<TopologyId>, Error> {
        let catalog = self.shared.catalog();
        let with_metas = catalog.topologies().filter(|of| of.fingerprint.count > 0);
        Ok(with_metas.map(|of| of.id.clone()).collect())
    }

    /// Returns the status of the store.
    ///
    /// # Errors
    /// None so far; reserved for a closed store.
    pub async fn status(&self) -> Result<StoreStatus, Error> {
        // Returned also while reads fail: `failure` has the reason.
        let bytes = self.read(|_, view| Ok(view.bytes())).await.unwrap_or_default();
        let quarantined = self.quarantined().await.unwrap_or_default();
        let (extent, position) = self.shared.log();
        let catalog = self.shared.catalog();
        let with_drops = catalog.topologies().filter(|of| !of.drops.is_empty());
        Ok(StoreStatus {
            bytes,
            position,
            log_from: extent.base.index + 1,
            log_bytes: extent.bytes(),
            metas: catalog.len() as u64,
            drops: with_drops.map(|of| (of.id.clone(), of.drops.clone())).collect(),
            failure: self.shared.failure().clone(),
            quarantined,
        })
    }
}
