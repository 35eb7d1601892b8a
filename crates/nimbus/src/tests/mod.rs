//! Whole nimbuses on the memory tree, under paused time.

mod failed_writes;
mod interrupted;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::join_all, stream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{change::Change, daemon::NimbusClients, handle::Submission, refusal::Refusal};
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
    NimbusClients { blobs: Arc::new(BlobClient::new().expect("made")), metrics: None }
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
        let (server, clock, tasks) =
            (MemoryTree::new(), Clock::manual(Timestamp::from_millis(1_000_000)), Tasks::default());
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
        let options = Options {
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
            problems: Vec::new(),
            failures: Vec::new(),
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
        package::pack(&lines_and_count(name), Vec::new(), 1 << 20).expect("packed");
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
    let TopologyPackage { key, bytes } = package::pack(&bad, Vec::new(), 1 << 20).expect("packed");
    handle.blobs().put(&key, stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))])).await.expect("put");
    let refused = handle.submit(submission(key)).await.expect_err("no spout");
    assert!(matches!(&refused, Refusal::InvalidTopology { problems } if problems.len() >= 2), "{refused}");
    let refused = handle.change("wc", Change::Activate, None).await.expect_err("unknown");
    assert!(matches!(refused, Refusal::UnknownTopology { .. }), "{refused}");
    // Two blobs, each with its announcement.
    assert_eq!(cluster.server.n_nodes(), n_nodes + 4);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_leader_resigns_so_that_another_leads_at_once() {
    let cluster = Cluster::new();
    let first = cluster.nimbus("a").await;
    cluster.leading(&first).await;
    let second = cluster.nimbus("b").await;
    let stopped = cluster.clock.monotonic();
    first.stop.cancel();
    first.nimbus.stopped().await.expect("stopped on request");
    let handle = cluster.leading(&second).await;
    assert!(cluster.clock.monotonic().since(stopped) < Duration::from_millis(200));
    assert_eq!(handle.leader().expect("a leader").nimbus, *handle.id());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_api_accepts_nothing_resigns_if_another_nimbus_can_lead() {
    let cluster = Cluster::new();
    let first = cluster.nimbus("a").await;
    let handle = cluster.leading(&first).await;
    first.nimbus.api_accepts().send_replace(false);
    // Nobody else could lead: time passes, and it still leads.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((handle.takes_writes(), handle.term()), (true, Some(stormkeeper_model::Term(1))));
    let second = cluster.nimbus("b").await;
    cluster.leading(&second).await;
    assert!(!handle.takes_writes());
    // It leads although it accepts nothing when nobody else does, after a while.
    let stopped = cluster.clock.monotonic();
    second.stop.cancel();
    second.nimbus.stopped().await.expect("stopped on request");
    cluster.leading(&first).await;
    let leaderless = cluster.clock.monotonic().since(stopped);
    assert!(leaderless >= Duration::from_secs(30), "{leaderless:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_leader_takes_over_its_own_leadership() {
    let cluster = Cluster::new();
    let tree = FaultyTree::new(cluster.server.connect(), FaultPlan::none());
    let first = cluster.nimbus_on("a", Arc::clone(&tree) as _).await;
    let id = cluster.leading(&first).await.id().clone();
    let second = cluster.nimbus("b").await;
    // Its session stays alive for a while, as after `kill -9`.
    tree.kill();
    first.stop.cancel();
    first.nimbus.stopped().await.expect("stopped on request");
    let again = cluster.nimbus("a").await;
    let handle = cluster.leading(&again).await;
    assert_eq!(*handle.id(), id);
    assert!(!second.nimbus.handle().takes_writes(), "the other nimbus took over a live leadership");
    assert_eq!(handle.term(), Some(stormkeeper_model::Term(2)));
}

#[tokio::test(start_paused = true)]
async fn a_nimbus_pauses_before_it_leads_again_after_its_leader_task_failed() {
    let cluster = Cluster::new();
    let running = cluster.nimbus("a").await;
    let millis = Duration::from_millis;
    // Time that it led before the failure, and bounds of the time until it leads again.
    let rounds = [
        (millis(100), millis(500)..millis(1100)),
        (millis(100), millis(1000)..millis(2100)),
        (millis(100), millis(2000)..millis(4100)),
        (millis(61_000), millis(500)..millis(1100)),
    ];
    for (led, pause) in rounds {
        let handle = cluster.leading(&running).await;
        tokio::time::sleep(led).await;
        let commands = handle.commands.borrow().clone().expect("it leads");
        commands.try_send(leader::Command::Panic).expect("accepted");
        let broken = tokio::time::Instant::now();
        commands.closed().await;
        wait_until("it has stopped leading", LONG, || async {
            if handle.takes_writes() { Err("it has not".to_owned()) } else { Ok(()) }
        })
        .await;
        cluster.leading(&running).await;
        assert!(pause.contains(&broken.elapsed()), "{:?} is not in {pause:?}", broken.elapsed());
    }
    // A stop does not wait for the pause.
    let commands = running.nimbus.handle().commands.borrow().clone().expect("it leads");
    commands.try_send(leader::Command::Panic).expect("accepted");
    commands.closed().await;
    running.stop.cancel();
    running.nimbus.stopped().await.expect("stopped on request");
}

#[tokio::test(start_paused = true)]
async fn deadlines_survive_a_failover() {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let first = cluster.nimbus("a").await;
    let handle = cluster.leading(&first).await;
    let (killed, moved) =
        (submit(&handle, "killed").await.expect("accepted"), submit(&handle, "moved").await.expect("taken"));
    cluster.placed(&killed).await;
    cluster.placed(&moved).await;
    cluster.create_heartbeats(&moved).await;
    let second = cluster.nimbus("b").await;
    let asked = cluster.clock.now();
    let parallelism = [("count".parse().expect("valid"), 5)].into();
    let rebalance = RebalanceRequest { wait_secs: Some(40), workers: Some(1), parallelism };
    handle.change("killed", kill(30), None).await.expect("killed");
    handle.change("moved", Change::Rebalance(rebalance), None).await.expect("rebalance accepted");
    tokio::time::sleep(Duration::from_secs(10)).await;

    // The first nimbus is cut off and its session ends, which it does not notice.
    cluster.server.disconnect(first.session);
    cluster.server.expire(first.session);
    let handle = cluster.leading(&second).await;
    let elapsed = |now: Timestamp| now.since(asked);
    wait_until("the killed topology is removed", LONG, || cluster.is_gone(&killed)).await;
    let took = elapsed(cluster.clock.now());
    assert!((Duration::from_secs(30)..Duration::from_secs(31)).contains(&took), "{took:?}");
    let store = Store::new(Arc::clone(&cluster.tree));
    let tasks = wait_until("the rebalance is done", LONG, || async {
        let topology_record = store.topology_record(&moved).await.expect("read").expect("there");
        let tasks = store.tasks(&moved).await.expect("read").expect("there");
        if topology_record.value.pending.is_none() {
            Ok(tasks.value)
        } else {
            Err(format!("{:?}", topology_record.value))
        }
    })
    .await;
    let took = elapsed(cluster.clock.now());
    assert!((Duration::from_secs(40)..Duration::from_secs(41)).contains(&took), "{took:?}");
    assert_eq!(tasks.n_tasks(), 7);
    assert_eq!(cluster.placed(&moved).await.value.workers.len(), 1);

    // Reconnected, the first nimbus becomes a follower, and none of its writes take effect.
    cluster.server.reconnect(first.session);
    let former = first.nimbus.handle();
    wait_until("the former leader follows", LONG, || async {
        if former.takes_writes() { Err("it leads".to_owned()) } else { Ok(()) }
    })
    .await;
    let refused = former.change("moved", Change::Deactivate, None).await.expect_err("it follows");
    assert!(matches!(refused, Refusal::NotLeading { leader: Some(leader) } if leader.nimbus == *handle.id()));
}

#[tokio::test(start_paused = true)]
async fn a_failover_with_healthy_workers_changes_no_assignment() {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let first = cluster.nimbus("a").await;
    let handle = cluster.leading(&first).await;
    let id = submit(&handle, "wc").await.expect("accepted");
    let before = cluster.placed(&id).await;
    cluster.create_heartbeats(&id).await;
    let second = cluster.nimbus("b").await;
    cluster.server.disconnect(first.session);
    cluster.server.expire(first.session);
    cluster.leading(&second).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(cluster.placed(&id).await, before);
}

/// Submits, rebalances and kills a topology while `plan` is in force, and returns the number
/// of writes.
async fn life_with(plan: FaultPlan) -> u64 {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let tree = FaultyTree::new(cluster.server.connect(), FaultPlan::none());
    let running = cluster.nimbus_on("a", Arc::clone(&tree) as _).await;
    let handle = cluster.leading(&running).await;
    put(&handle, "wc").await;
    let what = format!("{plan:?}");
    tree.set_plan(plan);
    let id = submit(&handle, "wc").await.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    cluster.placed(&id).await;
    let parallelism = [("count".parse().expect("valid"), 5)].into();
    let rebalance = RebalanceRequest { wait_secs: Some(1), workers: None, parallelism };
    let changed = handle.change("wc", Change::Rebalance(rebalance), None).await;
    changed.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    let store = Store::new(Arc::clone(&cluster.tree));
    wait_until("the rebalance is done", LONG, || async {
        let tasks = store.tasks(&id).await.expect("read").expect("there");
        if tasks.value.n_tasks() == 7 { Ok(()) } else { Err(what.clone()) }
    })
    .await;
    handle.change("wc", kill(1), None).await.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    wait_until("nothing is left", LONG, || cluster.is_gone(&id)).await;
    wait_until("the supervisor assignments are empty", LONG, || async {
        let assignments =
            store.supervisor_assignments(&"s0".parse().expect("valid")).await.expect("read").expect("there");
        if assignments.value.topologies.is_empty() { Ok(()) } else { Err(format!("{assignments:?}")) }
    })
    .await;
    tree.n_writes()
}

#[tokio::test(start_paused = true)]
async fn whichever_write_fails_every_change_is_made_once() {
    let n_writes = life_with(FaultPlan::none()).await;
    assert!(n_writes >= 9, "{n_writes}");
    for n in 1..=n_writes {
        for fault in [TreeFault::LostResponse, TreeFault::LostRequest] {
            life_with(FaultPlan::none().fail_nth_write(n, fault)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_reported_and_other_topologies_are_placed() {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let running = cluster.nimbus("a").await;
    let handle = cluster.leading(&running).await;
    let bad = submit(&handle, "bad").await.expect("accepted");
    cluster.placed(&bad).await;
    cluster.tree.set(&layout::storm(&bad), b"garbage", None).await.expect("written");
    let good = submit(&handle, "good").await.expect("accepted");
    cluster.placed(&good).await;
    wait_until("it is reported", LONG, || async {
        let findings = handle.status().findings;
        if findings.iter().any(|finding| finding.topology.as_ref() == Some(&bad)) {
            Ok(())
        } else {
            Err(format!("{findings:?}"))
        }
    })
    .await;
    let refused = submit(&handle, "bad").await.expect_err("the name may be in use");
    assert!(matches!(refused, Refusal::NameUnclear { .. }), "{refused}");
    let refused = handle.change(bad.as_str(), kill(0), None).await.expect_err("unreadable");
    assert!(matches!(refused, Refusal::Unreadable { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_second_nimbus_in_the_same_directory_cannot_start() {
    let cluster = Cluster::new();
    let running = cluster.nimbus("a").await;
    let options = running.nimbus.handle().options().clone();
    let (tree, stop) = (cluster.server.connect(), CancellationToken::new());
    let refused = start(options, clients(), tree, cluster.clock.clone(), stop).await;
    assert!(matches!(refused, Err(Error::Identity(locked_dir::Error::InUse { .. }))));
    // Keeps the directory up to this line.
    drop(cluster);
}
