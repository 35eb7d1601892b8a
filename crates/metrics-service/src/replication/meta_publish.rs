//! Publication of the leader's metas in ZooKeeper: count and digest, for followers to compare.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::{debug, info, warn};

use crate::replication::Replication;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, Defect, MetaFingerprint, UnknownFields},
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    tree::{self, CreateMode, Op, TreePath},
};
use stormkeeper_metric_store::{Fingerprint, MetricStore};
use stormkeeper_metrics::name::is_system_topology;
use stormkeeper_model::{LogPosition, TopologyId};
use stormkeeper_runtime::outage::Outage;

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
    let mut published: Option<(LogPosition, Arc<ClusterView>)> = None;
    let mut outage = Outage::default();
    loop {
        tokio::time::sleep(replication.intervals.publish_metas).await;
        let position = store.position();
        let (view, _) = replication.cluster.view();
        // Metas change by entries of the log alone; published records may be changed by hand.
        if published.as_ref().is_some_and(|(at, seen)| *at == position && has_same_records(seen, &view)) {
            continue;
        }
        match replication.publish_changed(&view, &store, &writer).await {
            Ok(is_complete) => {
                if let Some(lasted) = outage.ends() {
                    info!(?lasted, "published metric-meta fingerprints again");
                }
                // After a write the view changes, and the next round compares once more.
                if is_complete {
                    published = Some((position, view));
                }
            }
            Err(WriteError::Deposed { .. }) => return,
            Err(error) if outage.begins() => {
                info!(%error, "failed to publish metric-meta fingerprints; retrying");
            }
            Err(error) => debug!(%error, "cannot publish metric-meta fingerprints yet"),
        }
    }
}

impl Replication {
    /// Returns whether every changed fingerprint was written.
    async fn publish_changed(
        &self,
        view: &ClusterView,
        store: &MetricStore,
        writer: &FencedWriter,
    ) -> Result<bool, WriteError> {
        let known = match store.topologies().await {
            Ok(known) => known,
            Err(error) => {
                info!(%error, "cannot read the topologies of the metric store; retrying");
                return Ok(false);
            }
        };
        let damaged = damaged(view);
        for (topology, reason) in &damaged {
            warn!(%topology, %reason, "a published metric-meta fingerprint is unreadable; writing it again");
        }
        let is_published =
            |id: &TopologyId| is_system_topology(id) || view.metric_fingerprints.contains_key(id);
        let mut own = BTreeMap::new();
        // A damaged record may be of a topology that has no metas yet.
        for topology in
            known.into_iter().filter(is_published).chain(damaged.into_keys()).collect::<BTreeSet<_>>()
        {
            match store.fingerprint(&topology).await {
                Ok(fingerprint) => drop(own.insert(topology, fingerprint_record(fingerprint))),
                Err(error) => {
                    info!(%topology, %error, "cannot read the metas of a topology; not published now")
                }
            }
        }
        let ops = changes(&own, view);
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

fn has_same_records(seen: &Arc<ClusterView>, now: &Arc<ClusterView>) -> bool {
    Arc::ptr_eq(seen, now)
        || (seen.metric_fingerprints == now.metric_fingerprints && damaged(seen) == damaged(now))
}

/// Returns the topologies whose published records are damaged, with the reasons; without those of a
/// newer format, which must not be overwritten, and those of topologies that do not exist.
fn damaged(view: &ClusterView) -> BTreeMap<TopologyId, String> {
    let of_damage = |(path, defect): (&TreePath, &Defect)| {
        let is_ours = !defect.must_stay() && path.parent() == Some(layout::metrics_parent());
        let id: TopologyId = path.name().parse().ok().filter(|_| is_ours)?;
        let exists = is_system_topology(&id) || view.topologies.contains_key(&id);
        exists.then(|| (id, defect.reason.clone()))
    };
    view.unreadable.iter().filter_map(of_damage).collect()
}

/// Returns the writes that make ZooKeeper equal to `own`.
fn changes(own: &BTreeMap<TopologyId, MetaFingerprint>, view: &ClusterView) -> Vec<(TopologyId, Op)> {
    let op = |(id, metas): (&TopologyId, &MetaFingerprint)| {
        let (path, data) = (layout::metrics(id), record::encode(metas));
        let op = match view.metric_fingerprints.get(id) {
            Some(published) if published.value.is_same(metas) => return None,
            Some(published) => {
                let unknown_fields = published.value.unknown_fields.clone();
                let data = record::encode(&MetaFingerprint { unknown_fields, ..metas.clone() });
                Op::Set { path, data, version: None }
            }
            None if view.unreadable.get(&path).is_some_and(Defect::must_stay) => return None,
            None if view.is_unreadable(&path) => Op::Set { path, data, version: None },
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
        cluster::record::{Stored, TopologyRecord},
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
        view.unreadable.insert(layout::metrics(&id("garbled-1-1")), Defect::damage("garbage"));
        let newer = Defect::newer("it has format 9");
        view.unreadable.insert(layout::metrics(&id("newer-1-1")), newer);
        let own = BTreeMap::from([
            (id("same-1-1"), metas(2, 7)),
            (id("digest-1-1"), metas(2, 8)),
            (id("new-1-1"), metas(1, 1)),
            (id("__CLUSTER__"), metas(1, 1)),
            (id("__NIMBUS__"), metas(3, 3)),
            (id("garbled-1-1"), metas(4, 4)),
            (id("newer-1-1"), metas(5, 5)),
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
        let expected = [
            ("__CLUSTER__", "set"),
            ("__NIMBUS__", "create"),
            ("digest-1-1", "set"),
            ("garbled-1-1", "set"),
            ("new-1-1", "set"),
        ];
        assert_eq!(found, expected.map(|(id, kind)| (id.to_owned(), kind)));
        assert_eq!(metas(2, 7).digest, "0000000000000007");
    }

    #[test]
    fn damaged_records_of_existing_topologies_are_found_and_newer_ones_are_not() {
        let mut view = ClusterView::default();
        for topology in ["runs-1-1", "newer-1-1"] {
            let record = Stored { value: TopologyRecord::sample("wc"), version: Version::FIRST };
            view.topologies.insert(id(topology), record);
        }
        for topology in ["runs-1-1", "gone-1-1", "__NIMBUS__"] {
            view.unreadable.insert(layout::metrics(&id(topology)), Defect::damage("garbage"));
        }
        let newer = Defect::newer("it has format 9");
        view.unreadable.insert(layout::metrics(&id("newer-1-1")), newer);
        view.unreadable.insert(layout::tasks(&id("runs-1-1")), Defect::damage("garbage"));
        let found: Vec<TopologyId> = damaged(&view).into_keys().collect();
        assert_eq!(found, [id("__NIMBUS__"), id("runs-1-1")]);
    }
}
