//! Whole nimbuses on the memory tree, under paused time.

mod expired_certificate;
mod failed_writes;
mod interrupted;
mod leadership;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{change::Change, daemon::NimbusClients, handle::Submission, refusal::Refusal};
use stormkeeper_access::{locks::Locks, tls::client::ClientTls};
use stormkeeper_api_types::{
    blobs::BlobClient,
    message::{KillRequest, RebalanceRequest},
};
use stormkeeper_coordination::{
    cluster::{
        event::Event,
        layout,
        record::{self, Resources, SupervisorRecord},
        store::Store,
    },
    tree::{
        CreateMode, SessionId, Tree,
        faulty::{FaultPlan, FaultyTree, TreeFault},
        memory::MemoryTree,
    },
};
use stormkeeper_model::{
    BlobKey, Port, Timestamp, TopologyId, clock::Clock, event::EventKind, status::TopologyStatus,
    test_support::lines_and_count, topology::ComponentKind,
};
use stormkeeper_runtime::{
    fs::locked_dir,
    tasks::{OnExit, Tasks},
    test_support::wait_until,
};
use stormkeeper_topology_package::package::{self, TopologyPackage};

const LONG: Duration = Duration::from_secs(600);

fn clients() -> NimbusClients {
    NimbusClients {
        blobs: Arc::new(BlobClient::new(&ClientTls::off()).expect("made")),
        metrics: None,
        time: None,
        proof: None,
    }
}

/// Step of the cluster's clock.
const TICK: Duration = Duration::from_millis(20);

/// A cluster whose wall clock advances with the paused time of the runtime.
struct Cluster {
    server: MemoryTree,
    /// Connection of the test itself.
    tree: Arc<dyn Tree>,
    clock: Clock,
    _tasks: Tasks,
    dir: tempfile::TempDir,
}

struct Running {
    nimbus: Nimbus,
    session: SessionId,
    stop: CancellationToken,
}

impl Cluster {
    fn new() -> Self {
        Self::at(Timestamp::from_millis(1_000_000))
    }

    /// A cluster whose clocks begin at `now`.
    fn at(now: Timestamp) -> Self {
        let (server, clock, tasks) = (MemoryTree::new(), Clock::manual(now), Tasks::default());
        let manual_clock = clock.clone();
        tasks.start("clock", OnExit::StopOwner, async move {
            loop {
                tokio::time::sleep(TICK).await;
                manual_clock.advance(TICK);
            }
        });
        let tree: Arc<dyn Tree> = server.connect();
        Self { server, tree, clock, _tasks: tasks, dir: tempfile::tempdir().expect("a directory") }
    }

    async fn nimbus(&self, host: &str) -> Running {
        self.nimbus_on(host, self.server.connect()).await
    }

    async fn nimbus_on(&self, host: &str, tree: Arc<dyn Tree>) -> Running {
        self.nimbus_with(host, tree, Locks::open()).await
    }

    async fn nimbus_with(&self, host: &str, tree: Arc<dyn Tree>, locks: Locks) -> Running {
        let options = Options {
            locks,
            host: host.to_owned(),
            // Their APIs are not served, so no nimbus can fetch a blob from another.
            candidate_grace: Duration::ZERO,
            max_blob_bytes: 1 << 20,
            ..Options::of_test(self.dir.path().join(host))
        };
        let stop = CancellationToken::new();
        let session = tree.session().borrow().connected().expect("connected");
        let started = start(options, clients(), tree, self.clock.clone(), stop.clone());
        let (nimbus, _listener) = started.await.expect("started");
        Running { nimbus, session, stop }
    }

    async fn leading(&self, running: &Running) -> Handle {
        let handle = running.nimbus.handle().clone();
        wait_until("a nimbus leads", LONG, || {
            let seen = handle.leader().map(|leader| leader.nimbus);
            let leads = handle.takes_writes() && seen.as_ref() == Some(handle.id());
            async move { if leads { Ok(()) } else { Err(format!("it sees {seen:?}")) } }
        })
        .await;
        handle
    }

    async fn supervisor(&self, id: &str, ports: u16) {
        let supervisor = SupervisorRecord {
            host: format!("host-{id}"),
            ports: (0..ports).map(|n| Port(6700 + n)).collect(),
            resources: Resources { cpu_percent: 400, memory_mb: 4096 },
            capacity: Default::default(),
            memory_limits_unenforced: None,
            version: "0".to_owned(),
            start: Timestamp::EPOCH,
            announces_stop: false,
            tracks_tuples: true,
            platform: None,
            problems: Vec::new(),
            clock_ahead_ms: None,
            agent: None,
            failures: Vec::new(),
            exposed: None,
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: Default::default(),
        };
        let path = layout::supervisor(&id.parse().expect("valid"));
        Store::new(Arc::clone(&self.tree)).ensure_layout().await.expect("made");
        self.tree.create(&path, &record::encode(&supervisor), CreateMode::Ephemeral).await.expect("created");
    }

    /// Creates the heartbeats of a topology's assigned tasks, as its workers would.
    async fn create_heartbeats(&self, id: &TopologyId) {
        let assignment =
            Store::new(Arc::clone(&self.tree)).assignment(id).await.expect("read").expect("placed");
        for task in assignment.value.tasks().iter() {
            let path = layout::taskbeat(id, task);
            self.tree.create(&path, b"{}", CreateMode::Ephemeral).await.expect("created");
        }
    }

    async fn delete_heartbeats(&self, id: &TopologyId) {
        let tasks = self.tree.children(&layout::taskbeats(id)).await.expect("read").unwrap_or_default();
        for task in tasks {
            let path = layout::taskbeat(id, task.parse().expect("a task"));
            self.tree.delete(&path, None).await.expect("deleted");
        }
    }

    /// The events of a topology, in order.
    async fn events_of(&self, id: &TopologyId) -> Vec<EventKind> {
        let names = self.tree.children(&layout::events()).await.expect("read").unwrap_or_default();
        let mut events = Vec::new();
        for name in names {
            let path = layout::events().child(&name).expect("valid");
            let data = self.tree.get(&path).await.expect("read").expect("there").data;
            let event: Event = record::decode(&path, &data).expect("readable");
            events.extend((event.topology.as_ref() == Some(id)).then_some(event.event));
        }
        events
    }

    async fn is_gone(&self, id: &TopologyId) -> Result<(), String> {
        let paths = [
            layout::storm(id),
            layout::tasks(id),
            layout::assignment(id),
            layout::taskbeats(id),
            layout::taskerrors(id),
            layout::metrics(id),
        ];
        for path in paths {
            if self.tree.get(&path).await.expect("read").is_some() {
                return Err(format!("{path} is there"));
            }
        }
        Ok(())
    }

    async fn placed(&self, id: &TopologyId) -> record::Stored<stormkeeper_model::assignment::Assignment> {
        let store = Store::new(Arc::clone(&self.tree));
        wait_until("the topology is placed", LONG, || async {
            store.assignment(id).await.expect("read").ok_or("there is no assignment".to_owned())
        })
        .await
    }
}

async fn put(handle: &Handle, name: &str) -> BlobKey {
    let TopologyPackage { key, bytes } =
        package::pack(&lines_and_count(name), None, Vec::new(), 1 << 20).expect("packed");
    let body = stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))]);
    handle.blobs().put(&key, body).await.expect("stored");
    key
}

async fn submit(handle: &Handle, name: &str) -> Result<TopologyId, Refusal> {
    let blob = put(handle, name).await;
    submit_stored(handle, blob).await
}

async fn submit_stored(handle: &Handle, blob: BlobKey) -> Result<TopologyId, Refusal> {
    let submission =
        Submission { name: None, blob, owner: "me".to_owned(), by: None, status: TopologyStatus::Active };
    handle.submit(submission).await.map(|(id, _)| id)
}

fn kill(wait_secs: u64) -> Change {
    Change::Kill(KillRequest { wait_secs: Some(wait_secs) })
}

#[tokio::test(start_paused = true)]
async fn a_submitted_topology_is_placed_at_once_and_a_killed_one_leaves_nothing() {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let running = cluster.nimbus("a").await;
    let handle = cluster.leading(&running).await;
    let n_nodes = cluster.server.n_nodes();
    let submitted = cluster.clock.monotonic();
    let id = submit(&handle, "wc").await.expect("accepted");
    cluster.placed(&id).await;
    assert!(cluster.clock.monotonic().since(submitted) < Duration::from_secs(1));
    cluster.create_heartbeats(&id).await;

    let refused = submit(&handle, "wc").await.expect_err("the name is in use");
    assert!(matches!(&refused, Refusal::NameInUse { is_killed: false, .. }), "{refused}");
    handle.change("wc", kill(0), None).await.expect("killed");
    let refused = submit(&handle, "wc").await.expect_err("the name is in use until it is gone");
    assert!(matches!(&refused, Refusal::NameInUse { is_killed: true, .. }), "{refused}");
    cluster.delete_heartbeats(&id).await;
    wait_until("nothing is left", LONG, || cluster.is_gone(&id)).await;
    let happened = cluster.events_of(&id).await;
    use EventKind::{Killed, Placed, Removed, Submitted, Unassigned};
    assert_eq!(happened, [Submitted, Placed, Killed, Unassigned, Removed]);
    // The blob with its announcement, the supervisor's empty assignments, and the events.
    assert_eq!(cluster.server.n_nodes(), n_nodes + 3 + happened.len());
    assert_ne!(submit(&handle, "wc").await.expect("the name is free"), id);
}

#[tokio::test(start_paused = true)]
async fn of_many_submits_under_one_name_one_is_accepted() {
    let cluster = Cluster::new();
    let running = cluster.nimbus("a").await;
    let handle = cluster.leading(&running).await;
    let results = join_all((0..8).map(|_| submit(&handle, "wc"))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_request_leaves_nothing() {
    let cluster = Cluster::new();
    let running = cluster.nimbus("a").await;
    let handle = cluster.leading(&running).await;
    let n_nodes = cluster.server.n_nodes();
    let blob = BlobKey::of(b"not there");
    let submission = |blob| Submission {
        name: None,
        blob,
        owner: "me".to_owned(),
        by: None,
        status: TopologyStatus::Active,
    };
    let refused = handle.submit(submission(blob)).await.expect_err("missing");
    assert!(matches!(refused, Refusal::BlobMissing { .. }), "{refused}");
    let key = BlobKey::of(b"garbage");
    handle
        .blobs()
        .put(&key, stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"garbage"))]))
        .await
        .expect("put");
    let refused = handle.submit(submission(key)).await.expect_err("garbage");
    assert!(matches!(refused, Refusal::InvalidPackage { .. }), "{refused}");
    let mut bad = lines_and_count("wc");
    bad.components.retain(|_, component| component.kind == ComponentKind::Bolt);
    let TopologyPackage { key, bytes } = package::pack(&bad, None, Vec::new(), 1 << 20).expect("packed");
    handle.blobs().put(&key, stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))])).await.expect("put");
    let refused = handle.submit(submission(key)).await.expect_err("no spout");
    assert!(matches!(&refused, Refusal::InvalidTopology { problems } if problems.len() >= 2), "{refused}");
    let refused = handle.change("wc", Change::Activate, None).await.expect_err("unknown");
    assert!(matches!(refused, Refusal::UnknownTopology { .. }), "{refused}");
    // Two blobs, each with its announcement.
    assert_eq!(cluster.server.n_nodes(), n_nodes + 4);
}
