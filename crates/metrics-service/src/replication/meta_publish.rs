//! Publication of the leader's metas in ZooKeeper: count and digest, for followers to compare.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::{debug, info};

use crate::replication::Replication;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, MetaFingerprint, UnknownFields},
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    tree::{self, CreateMode, Op},
};
use stormkeeper_metric_store::{Fingerprint, MetricStore};
use stormkeeper_metrics::name::is_system_topology;
use stormkeeper_model::{LogPosition, TopologyId};

/// Maximum number of records written in one round; the others follow in the next round. Each is a
/// transaction.
const WRITES_MAX: usize = 200;

/// Returns a fingerprint as the record that is stored in ZooKeeper.
pub(crate) fn fingerprint_record(fingerprint: Fingerprint) -> MetaFingerprint {
    let digest = format!("{:016x}", fingerprint.digest);
    MetaFingerprint { count: fingerprint.count, digest, unknown_fields: UnknownFields::new() }
}

/// Publishes changed fingerprints for as long as the leadership lasts.
pub(crate) async fn publish_metas(replication: Arc<Replication>, store: MetricStore, writer: FencedWriter) {
    let mut published: Option<LogPosition> = None;
    loop {
        tokio::time::sleep(replication.intervals.publish_metas).await;
        let position = store.position();
        // Metas change by entries of the log alone.
        if published == Some(position) {
            continue;
        }
        match replication.publish_changed(&store, &writer).await {
            Ok(true) => published = Some(position),
            Ok(false) => {}
            Err(WriteError::Deposed { .. }) => return,
            Err(error) => info!(%error, "failed to publish metric-meta fingerprints; retrying"),
        }
    }
}

impl Replication {
    /// Returns whether every changed fingerprint was written.
    async fn publish_changed(&self, store: &MetricStore, writer: &FencedWriter) -> Result<bool, WriteError> {
        let (view, _) = self.cluster.view();
        let known = match store.topologies().await {
            Ok(known) => known,
            Err(error) => {
                info!(%error, "cannot read the topologies of the metric store; retrying");
                return Ok(false);
            }
        };
        let mut own = BTreeMap::new();
        for topology in
            known.into_iter().filter(|id| is_system_topology(id) || view.metric_fingerprints.contains_key(id))
        {
            match store.fingerprint(&topology).await {
                Ok(fingerprint) => drop(own.insert(topology, fingerprint_record(fingerprint))),
                Err(error) => {
                    info!(%topology, %error, "cannot read the metas of a topology; not published now")
                }
            }
        }
        let ops = changes(&own, &view);
        let is_all = ops.len() <= WRITES_MAX;
        let mut is_written = true;
        for (topology, op) in ops.into_iter().take(WRITES_MAX) {
            match writer.commit(vec![op]).await {
                Ok(_) => debug!(%topology, "published a metric-meta fingerprint"),
                // The znode was created or deleted meanwhile; the next view shows that.
                Err(WriteError::Op {
                    source: tree::Error::NoNode { .. } | tree::Error::NodeExists { .. },
                    ..
                }) => is_written = false,
                Err(error) => return Err(error),
            }
        }
        Ok(is_all && is_written)
    }
}

/// Returns the writes that make ZooKeeper equal to `own`.
fn changes(own: &BTreeMap<TopologyId, MetaFingerprint>, view: &ClusterView) -> Vec<(TopologyId, Op)> {
    let unreadable: BTreeSet<_> = view.unreadable.keys().collect();
    let op = |(id, metas): (&TopologyId, &MetaFingerprint)| {
        let (path, data) = (layout::metrics(id), record::encode(metas));
        let op = match view.metric_fingerprints.get(id) {
            Some(published) if published.value.is_same(metas) => return None,
            Some(published) => {
                let unknown_fields = published.value.unknown_fields.clone();
                let data = record::encode(&MetaFingerprint { unknown_fields, ..metas.clone() });
                Op::Set { path, data, version: None }
            }
            None if unreadable.contains(&path) => Op::Set { path, data, version: None },
            None => Op::Create { path, data, mode: CreateMode::Persistent },
        };
        Some((id.clone(), op))
    };
    own.iter().filter_map(op).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::{
        cluster::record::{Defect, Stored},
        tree::Version,
    };

    fn id(text: &str) -> TopologyId {
        text.parse().expect("valid")
    }

    #[test]
    fn only_changed_fingerprints_are_written() {
        let metas = |count, digest| fingerprint_record(Fingerprint { count, digest });
        let stored = |value| Stored { value, version: Version::FIRST };
        let mut view = ClusterView::default();
        view.metric_fingerprints.insert(id("same-1-1"), stored(metas(2, 7)));
        view.metric_fingerprints.insert(id("digest-1-1"), stored(metas(2, 7)));
        view.metric_fingerprints.insert(id("new-1-1"), stored(MetaFingerprint::default()));
        view.unreadable.insert(layout::metrics(&id("__CLUSTER__")), Defect::damage("garbage"));
        let own = BTreeMap::from([
            (id("same-1-1"), metas(2, 7)),
            (id("digest-1-1"), metas(2, 8)),
            (id("new-1-1"), metas(1, 1)),
            (id("__CLUSTER__"), metas(1, 1)),
            (id("__NIMBUS__"), metas(3, 3)),
        ]);
        let found: Vec<(String, &str)> = changes(&own, &view)
            .into_iter()
            .map(|(id, op)| {
                let kind = match op {
                    Op::Set { version: None, .. } => "set",
                    Op::Create { mode: CreateMode::Persistent, .. } => "create",
                    op => panic!("{op:?}"),
                };
                (id.to_string(), kind)
            })
            .collect();
        let expected =
            [("__CLUSTER__", "set"), ("__NIMBUS__", "create"), ("digest-1-1", "set"), ("new-1-1", "set")];
        assert_eq!(found, expected.map(|(id, kind)| (id.to_owned(), kind)));
        assert_eq!(metas(2, 7).digest, "0000000000000007");
    }
}
