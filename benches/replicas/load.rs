//! A cluster full of topologies: submitted through the API, placed by the leader, and run by
//! simulated hosts that only send heartbeats.

use std::time::Duration;

use stormkeeper_api_types::message::{InitialStatus, SubmitRequest};
use stormkeeper_coordination::{cluster::layout, tree::Tree};
use stormkeeper_model::{
    ComponentId, StreamId,
    topology::{Component, ComponentKind, Grouping, Input, Run, StreamDeclaration, Topology},
};
use stormkeeper_runtime::test_support::wait_until;
use stormkeeper_topology_package::package;

use crate::{cluster::Cluster, report::Samples, watching::WAIT_MAX};

/// Number and size of the topologies, which are all alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) n_topologies: usize,
    pub(crate) n_tasks_each: u32,
    pub(crate) n_workers_each: u32,
}

impl Load {
    pub(crate) fn n_tasks(self) -> usize {
        self.n_topologies * self.n_tasks_each as usize
    }

    /// Submits all topologies and returns the duration of each submit.
    pub(crate) async fn submit(self, cluster: &Cluster) -> Samples {
        let topology = self.topology();
        let bundle = package::pack(&topology, None, Vec::new(), 1 << 20).expect("a small package");
        let client = cluster.client().await;
        client.put_blob(&bundle.key, bundle.bytes.into()).await.expect("stored");
        let mut took = Samples::default();
        for n in 0..self.n_topologies {
            let request = SubmitRequest {
                name: Some(format!("load-{n:03}").parse().expect("a valid name")),
                blob: bundle.key.clone(),
                owner: "bench".to_owned(),
                status: InitialStatus::Active,
            };
            let began = cluster.clock.monotonic();
            client.submit(&request).await.expect("submitted");
            took.add(cluster.clock.monotonic().since(began));
        }
        took
    }

    /// Topology with one tenth of its tasks in a spout.
    fn topology(self) -> Topology {
        let id = |text: &str| text.parse::<ComponentId>().expect("a valid id");
        let component = |kind, parallelism, outputs, inputs| Component {
            kind,
            parallelism,
            run: Run::Command(vec!["true".to_owned()]),
            outputs,
            inputs,
            settings: Default::default(),
        };
        let n_spouts = (self.n_tasks_each / 10).max(1);
        let stream = StreamId::default_stream();
        let declared = StreamDeclaration { fields: vec!["line".to_owned()], direct: false };
        let outputs = [(stream.clone(), declared)].into();
        let spout = component(ComponentKind::Spout, n_spouts, outputs, Vec::new());
        let input = Input { from: id("lines"), stream, grouping: Grouping::Shuffle };
        let n_bolts = self.n_tasks_each - n_spouts;
        let bolt = component(ComponentKind::Bolt, n_bolts, Default::default(), vec![input]);
        Topology {
            name: "load".parse().expect("a valid name"),
            settings: [("topology.workers".to_owned(), self.n_workers_each.into())].into(),
            components: [(id("lines"), spout), (id("count"), bolt)].into(),
            program: None,
            given_at_submission: Default::default(),
        }
    }
}

/// Waits until `n` supervisors are registered.
pub(crate) async fn wait_for_hosts(cluster: &Cluster, n: usize) {
    wait_until("the hosts are registered", WAIT_MAX, async || {
        let names = cluster.tree.children(&layout::supervisors()).await.map_err(|error| error.to_string())?;
        let there = names.map_or(0, |names| names.len());
        if there == n { Ok(()) } else { Err(format!("{there} of {n}")) }
    })
    .await;
}

/// Waits until `n` tasks send heartbeats.
pub(crate) async fn wait_for_heartbeats(cluster: &Cluster, n: usize) {
    wait_until("every task sends heartbeats", WAIT_MAX, async || {
        let there = n_beats(&*cluster.tree).await;
        if there == n {
            return Ok(());
        }
        // Each check reads every name; the hosts need the server more.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Err(format!("{there} of {n}"))
    })
    .await;
}

async fn n_beats(tree: &dyn Tree) -> usize {
    let topologies = tree.children(&layout::taskbeats_parent()).await.expect("read").unwrap_or_default();
    let mut n = 0;
    for topology in topologies {
        let path = layout::taskbeats_parent().child(&topology).expect("a valid name");
        n += tree.get(&path).await.expect("read").map_or(0, |node| node.stat.n_children);
    }
    n
}
