//! The leader tells in the tree which metas it has: count and digest, for followers to compare.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info};

use crate::{
    archive::{Archive, Fingerprint},
    cluster::{
        layout,
        record::{self, MetricMetas},
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    model::{Position, TopologyId},
    nimbus::measure::{Measure, is_of_daemons},
    tree::{self, CreateMode, Op},
};

/// The most records written in one round; the rest comes in the next. Each is a transaction.
const WRITES_MAX: usize = 200;

/// A fingerprint as it is stored.
pub(super) fn record_of(fingerprint: Fingerprint) -> MetricMetas {
    MetricMetas { count: fingerprint.count, digest: format!("{:016x}", fingerprint.digest) }
}

/// Writes what changed, for as long as the leadership lasts.
pub(super) async fn flush(measure: Measure, archive: Archive, writer: FencedWriter) {
    let mut flushed: Option<Position> = None;
    loop {
        tokio::time::sleep(measure.shared.options.pace.flush).await;
        let position = archive.position();
        // Metas change by entries of the log alone.
        if flushed == Some(position) {
            continue;
        }
        match measure.flush_once(&archive, &writer).await {
            Ok(true) => flushed = Some(position),
            Ok(false) => {}
            Err(WriteError::Deposed { .. }) => return,
            Err(error) => info!(%error, "could not write which metas there are; it is tried again"),
        }
    }
}

impl Measure {
    /// Answers whether everything is written.
    async fn flush_once(&self, archive: &Archive, writer: &FencedWriter) -> Result<bool, WriteError> {
        let (view, _) = self.view();
        let known = match archive.topologies().await {
            Ok(known) => known,
            Err(error) => {
                info!(%error, "the archive does not say which topologies it knows");
                return Ok(false);
            }
        };
        let mut own = BTreeMap::new();
        for topology in known.into_iter().filter(|id| is_of_daemons(id) || view.metrics.contains_key(id)) {
            match archive.fingerprint(&topology).await {
                Ok(fingerprint) => drop(own.insert(topology, record_of(fingerprint))),
                Err(error) => info!(%topology, %error, "the archive does not say which metas it knows"),
            }
        }
        let ops = changes(&own, &view);
        let is_all = ops.len() <= WRITES_MAX;
        let mut is_written = true;
        for (topology, op) in ops.into_iter().take(WRITES_MAX) {
            match writer.commit(vec![op]).await {
                Ok(_) => debug!(%topology, "wrote which metas there are"),
                // It was removed or made meanwhile: the view will show that.
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

/// What is to be written so that the tree says what `own` says.
fn changes(own: &BTreeMap<TopologyId, MetricMetas>, view: &ClusterView) -> Vec<(TopologyId, Op)> {
    let unreadable: BTreeSet<_> = view.unreadable.keys().collect();
    let op = |(id, metas): (&TopologyId, &MetricMetas)| {
        let (path, data) = (layout::metrics(id), record::encode(metas));
        let op = match view.metrics.get(id) {
            Some(told) if told.value == *metas => return None,
            Some(_) => Op::Set { path, data, version: None },
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
    use crate::{cluster::record::Stored, tree::Version};

    fn id(text: &str) -> TopologyId {
        text.parse().expect("valid")
    }

    #[test]
    fn only_what_differs_is_written() {
        let metas = |count, digest| record_of(Fingerprint { count, digest });
        let stored = |value| Stored { value, version: Version::FIRST };
        let mut view = ClusterView::default();
        view.metrics.insert(id("same-1-1"), stored(metas(2, 7)));
        view.metrics.insert(id("digest-1-1"), stored(metas(2, 7)));
        view.metrics.insert(id("new-1-1"), stored(MetricMetas::default()));
        view.unreadable.insert(layout::metrics(&id("__CLUSTER__")), "garbage".to_owned());
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
