//! Times of the ZooKeeper server alone: the floors of the other figures.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use stormkeeper_coordination::{
    cluster::layout,
    tree::{
        CreateMode, Op, READ_BATCH, ReadTree as _, Scope, Tree, TreePath, options::Options,
        zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::tasks::Tasks;

use crate::report::Samples;

/// Number of probes, enough for a stable median.
const N_PROBES: usize = 200;

/// Number of batches that a concurrent reader reads at once.
const N_READERS: usize = 8;

fn probe() -> TreePath {
    "/probe".parse().expect("a valid path")
}

/// Measures one transaction of two operations, and a watch: from before a write by one session
/// until another session was woken by it and has read.
pub(crate) async fn round_trips(options: Options, clock: &Clock) -> (Samples, Samples) {
    let tasks = Tasks::default();
    let connect = || ZooKeeperTree::connect(options.clone(), fastrand::Rng::new(), &tasks);
    let (writer, reader) = (connect(), connect());
    for tree in [&writer, &reader] {
        let mut session = tree.session();
        session.wait_for(|state| state.connected().is_some()).await.expect("connected");
    }
    writer.create(&probe(), b"", CreateMode::Persistent).await.expect("created");
    let write = || {
        let (path, data) = (probe(), vec![b'x'; 100]);
        let check = Op::Check { path: path.clone(), version: None };
        writer.multi(vec![check, Op::Set { path, data, version: None }])
    };
    let (mut multis, mut watches) = (Samples::default(), Samples::default());
    for _ in 0..N_PROBES {
        let began = clock.monotonic();
        write().await.expect("written");
        multis.add(clock.monotonic().since(began));
    }
    let mut watcher = reader.watch(&probe(), Scope::Node);
    watcher.changed().await;
    for _ in 0..N_PROBES {
        let began = clock.monotonic();
        let woken = async {
            watcher.changed().await;
            reader.get(&probe()).await
        };
        let (written, read) = tokio::join!(write(), woken);
        written.expect("written");
        read.expect("read");
        watches.add(clock.monotonic().since(began));
    }
    writer.delete(&probe(), None).await.expect("deleted");
    writer.close().await;
    reader.close().await;
    (multis, watches)
}

/// Paths of everything that a nimbus reads: the records, and the parents of heartbeats.
pub(crate) async fn record_paths(tree: &dyn Tree) -> Vec<TreePath> {
    let mut paths = layout::top_level();
    let families = tree.get_many(&paths).await.expect("read");
    let children: Vec<TreePath> = (paths.iter().zip(families))
        .flat_map(|(root, family)| {
            let names = family.expect("the layout is there").children;
            names.into_iter().map(move |name| root.child(&name).expect("a valid name"))
        })
        .collect();
    paths.extend(children);
    paths
}

/// Reads all of `paths`, batch after batch, and with several batches in flight.
pub(crate) async fn read_all(tree: &Arc<dyn Tree>, clock: &Clock, paths: &[TreePath]) -> (Samples, Samples) {
    const N_RUNS: usize = 5;
    let (mut one_by_one, mut at_once) = (Samples::default(), Samples::default());
    for _ in 0..N_RUNS {
        let began = clock.monotonic();
        tree.get_many(paths).await.expect("read");
        one_by_one.add(clock.monotonic().since(began));
        let began = clock.monotonic();
        let reads = paths.chunks(READ_BATCH).map(|batch| tree.get_many(batch));
        let mut reads = stream::iter(reads).buffer_unordered(N_READERS);
        while let Some(read) = reads.next().await {
            read.expect("read");
        }
        at_once.add(clock.monotonic().since(began));
    }
    (one_by_one, at_once)
}
