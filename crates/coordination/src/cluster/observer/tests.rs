use super::*;
use crate::{
    cluster::record::{self, Leader, Resources, SupervisorRecord},
    tree::{
        CreateMode, Tree,
        faulty::{FaultPlan, FaultRates, FaultyTree},
        memory::MemoryTree,
    },
};
use stormkeeper_model::{Port, SupervisorId, TaskId, Term, Timestamp, TopologyId};
use stormkeeper_runtime::test_support::wait_until;

const WAIT_MAX: Duration = Duration::from_secs(20);

struct Fixture {
    server: MemoryTree,
    tree: Arc<dyn Tree>,
    /// Connection of the observer to the tree.
    faulty: Arc<FaultyTree>,
    observer: Observer,
    _tasks: Tasks,
}

async fn fixture() -> Fixture {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    store::Store::new(Arc::clone(&tree)).ensure_layout().await.expect("made");
    let tasks = Tasks::default();
    let faulty = FaultyTree::new(server.connect(), FaultPlan::none());
    let observer = Observer::start(Arc::clone(&faulty) as _, Clock::new(), &tasks);
    Fixture { server, tree, faulty, observer, _tasks: tasks }
}

impl Fixture {
    async fn put(&self, path: &TreePath, data: &[u8]) {
        self.tree.create(path, data, CreateMode::Persistent).await.expect("created");
    }

    async fn sees(&self, what: &str, condition: impl Fn(&ClusterView) -> bool) {
        let seen = self.observer.observe();
        wait_until(what, WAIT_MAX, async || {
            let now = seen.borrow().clone();
            if now.fresh && condition(&now.view) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
}

fn supervisor() -> SupervisorRecord {
    SupervisorRecord {
        host: "h".to_owned(),
        ports: vec![Port(6700)],
        resources: Resources { cpu_percent: 100, memory_mb: 1024 },
        capacity: Default::default(),
        memory_limits_unenforced: None,
        version: "1".to_owned(),
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
    }
}

fn topology() -> TopologyId {
    "wc-1-100".parse().expect("valid id")
}

fn supervisor_id() -> SupervisorId {
    "s1".parse().expect("valid id")
}

#[tokio::test]
async fn changes_are_folded_into_the_view() {
    let f = fixture().await;
    f.sees("an empty cluster", |view| *view == ClusterView::default()).await;
    let path = layout::supervisor(&supervisor_id());
    f.put(&path, &record::encode(&supervisor())).await;
    f.sees("the supervisor", |view| view.supervisors.get(&supervisor_id()) == Some(&supervisor())).await;
    f.tree.delete(&path, None).await.expect("deleted");
    f.sees("the removal of the supervisor", |view| view.supervisors.is_empty()).await;
    let path = layout::stopped_supervisor(&supervisor_id());
    f.put(&path, br#"{"v":1,"host":"h","stopped_ms":5}"#).await;
    f.sees("the stop of the supervisor", |view| view.stopped_supervisors.contains_key(&supervisor_id()))
        .await;
    f.tree.delete(&path, None).await.expect("deleted");
    f.sees("its withdrawal", |view| view.stopped_supervisors.is_empty()).await;
}

#[tokio::test]
async fn heartbeats_and_blob_replicas_are_the_names_of_children() {
    let f = fixture().await;
    f.put(&layout::taskbeats(&topology()), b"").await;
    for task in [3, 4] {
        f.put(&layout::taskbeat(&topology(), TaskId(task)), b"{}").await;
    }
    f.sees("two heartbeats", |view| {
        view.heartbeats.get(&topology()).is_some_and(|tasks| tasks.to_string() == "3-4")
    })
    .await;
    f.tree.delete(&layout::taskbeat(&topology(), TaskId(3)), None).await.expect("deleted");
    f.sees("one heartbeat", |view| {
        view.heartbeats.get(&topology()).is_some_and(|tasks| tasks.to_string() == "4")
    })
    .await;
    let key = stormkeeper_model::BlobKey::of(b"x");
    let nimbus = "n1".parse().expect("valid id");
    f.put(&layout::blob(&key), b"").await;
    f.put(&layout::blob_replica(&key, &nimbus), b"").await;
    f.sees("the nimbus that has the blob", |view| {
        view.blobs.get(&key).is_some_and(|holders| holders.contains(&nimbus))
    })
    .await;
}

#[tokio::test]
async fn changes_made_while_disconnected_are_seen_after_the_reconnect() {
    let f = fixture().await;
    f.sees("a fresh view", |_| true).await;
    let observing = f.server.sessions()[1];
    f.server.disconnect(observing);
    let seen = f.observer.observe();
    wait_until(
        "a stale view",
        WAIT_MAX,
        async || {
            if seen.borrow().fresh { Err("fresh".to_owned()) } else { Ok(()) }
        },
    )
    .await;
    f.put(&layout::supervisor(&supervisor_id()), &record::encode(&supervisor())).await;
    f.server.reconnect(observing);
    f.sees("the supervisor", |view| view.supervisors.contains_key(&supervisor_id())).await;
    assert_eq!(seen.borrow().n_interruptions, 1);
}

#[tokio::test]
async fn unreadable_znode_is_reported_and_does_not_block_other_records() {
    let f = fixture().await;
    let path = layout::storm(&topology());
    f.put(&path, b"written by hand").await;
    f.put(&layout::supervisor(&supervisor_id()), &record::encode(&supervisor())).await;
    f.sees("both", |view| view.is_unreadable(&path) && view.supervisors.len() == 1).await;
    f.tree.delete(&path, None).await.expect("deleted");
    f.sees("the repaired znode", |view| view.unreadable.is_empty()).await;
}

#[tokio::test]
async fn read_now_sees_the_latest_write() {
    let f = fixture().await;
    let leader = Leader {
        nimbus: "n1".parse().expect("valid id"),
        api: "h:1".to_owned(),
        term: Term(1),
        unknown_fields: Default::default(),
    };
    f.put(&layout::leader(), &record::encode(&leader)).await;
    let view = f.observer.read_all().await.expect("readable");
    assert_eq!(view.leader, Some(leader));
}

#[tokio::test]
async fn read_again_reads_written_records_and_the_lists_of_records() {
    let f = fixture().await;
    f.sees("an empty cluster", |view| *view == ClusterView::default()).await;
    f.faulty.set_plan(FaultPlan::seeded(1, FaultRates { lost_event: 1.0, ..FaultRates::default() }));
    let path = layout::supervisor(&supervisor_id());
    f.put(&path, &record::encode(&supervisor())).await;
    let view = f.observer.read_written(Vec::new()).await.expect("readable");
    assert_eq!(view.supervisors.get(&supervisor_id()), Some(&supervisor()), "the new supervisor is found");
    let moved = SupervisorRecord { host: "elsewhere".to_owned(), ..supervisor() };
    f.tree.set(&path, &record::encode(&moved), None).await.expect("written");
    let view = f.observer.read_written(Vec::new()).await.expect("readable");
    assert_eq!(
        view.supervisors.get(&supervisor_id()),
        Some(&supervisor()),
        "a change that no watch reported is not read"
    );
    let view = f.observer.read_written(vec![path]).await.expect("readable");
    assert_eq!(view.supervisors.get(&supervisor_id()), Some(&moved));
}

/// The records found by the first requests of a read must not be lost if a later request fails.
#[tokio::test]
async fn records_of_a_failed_read_are_published_by_the_next_read() {
    let f = fixture().await;
    for n in 0..2 * READ_BATCH {
        let id: SupervisorId = format!("z{n:03}").parse().expect("valid id");
        f.put(&layout::supervisor(&id), &record::encode(&supervisor())).await;
    }
    f.observer.read_all().await.expect("readable");
    for seed in 0..20 {
        let plan = FaultRates { lost_request: 0.4, lost_event: 1.0, ..FaultRates::default() };
        f.faulty.set_plan(FaultPlan::seeded(seed, plan));
        let id: SupervisorId = format!("a{seed:03}").parse().expect("valid id");
        f.put(&layout::supervisor(&id), &record::encode(&supervisor())).await;
        // Most of these reads fail, at different requests.
        let _failed_or_not = f.observer.read_all().await;
        f.faulty.set_plan(FaultPlan::none());
        let view = f.observer.read_all().await.expect("readable");
        assert!(view.supervisors.contains_key(&id), "{id} is missing in the view, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn successive_changes_are_read_together() {
    let f = fixture().await;
    f.put(&layout::taskbeats(&topology()), b"").await;
    f.sees("the parent of the heartbeats", |view| view.heartbeats.contains_key(&topology())).await;
    let seen = f.observer.observe();
    let (mut n_views, mut last) = (0, Arc::clone(&seen.borrow().view));
    for task in 1..=500 {
        f.put(&layout::taskbeat(&topology(), TaskId(task)), b"{}").await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = Arc::clone(&seen.borrow().view);
        n_views += usize::from(!Arc::ptr_eq(&now, &last));
        last = now;
    }
    assert!((2..=30).contains(&n_views), "500 changes in 500 ms caused {n_views} views");
    f.sees("all heartbeats", |view| view.heartbeats.get(&topology()).is_some_and(|tasks| tasks.len() == 500))
        .await;
}

#[test]
fn denied_record_is_unreadable_and_denied_lists_and_heartbeats_are_errors() {
    let mut view = ClusterView::default();
    view.supervisors.insert(supervisor_id(), supervisor());
    let path = layout::supervisor(&supervisor_id());
    let folded = fold::deny(&mut view, &path).expect("a record");
    assert!(folded.changed && folded.newly_unreadable.is_some_and(|reason| reason.contains("setAcl")));
    assert!(view.supervisors.is_empty() && view.unreadable[&path].must_stay(), "it is not overwritten");
    assert_eq!(fold::deny(&mut view, &path), Some(fold::Folded::default()), "it is reported once");
    let vital = [
        layout::leader(),
        layout::storms(),
        layout::taskbeats(&topology()),
        layout::taskerrors(&topology()),
        layout::blob(&stormkeeper_model::BlobKey::of(b"x")),
    ];
    for path in vital {
        assert_eq!(fold::deny(&mut view, &path), None, "{path}");
    }
    assert_eq!(view.unreadable.len(), 1);
}

/// A change of an access control list causes no event.
#[tokio::test(start_paused = true)]
async fn denied_record_is_named_within_ten_seconds_and_read_again_within_ten_seconds() {
    let f = fixture().await;
    let paths: Vec<TreePath> = (0..3 * READ_BATCH)
        .map(|n| layout::supervisor(&format!("s{n:04}").parse().expect("valid id")))
        .collect();
    for path in &paths {
        f.put(path, &record::encode(&supervisor())).await;
    }
    f.sees("all supervisors", |view| view.supervisors.len() == paths.len()).await;
    let seen = f.observer.observe();
    let ten_seconds = Duration::from_secs(10);
    // One record, every second record, all records.
    for every in [paths.len(), 2, 1] {
        let denied: Vec<TreePath> = paths.iter().step_by(every).cloned().collect();
        f.faulty.set_plan(FaultPlan::none().deny(denied.clone()));
        tokio::time::sleep(ten_seconds).await;
        let now = seen.borrow().clone();
        assert!(now.fresh && now.view.unreadable.keys().eq(&denied), "{:?}", now.view.unreadable);
        assert_eq!(now.view.supervisors.len(), paths.len() - denied.len());
        f.faulty.set_plan(FaultPlan::none());
        tokio::time::sleep(ten_seconds).await;
        let now = seen.borrow().clone();
        assert_eq!((now.view.unreadable.len(), now.view.supervisors.len()), (0, paths.len()));
    }
}

#[tokio::test(start_paused = true)]
async fn denied_list_of_records_is_a_fault_until_it_can_be_read() {
    let f = fixture().await;
    f.sees("an empty cluster", |view| *view == ClusterView::default()).await;
    let seen = f.observer.observe();
    for path in [layout::storms(), layout::leader()] {
        f.faulty.set_plan(FaultPlan::none().deny([path.clone()]));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let now = seen.borrow().clone();
        assert!(!now.fresh && now.fault.is_some_and(|fault| fault.contains(path.as_str())), "{path}");
        f.faulty.set_plan(FaultPlan::none());
        tokio::time::sleep(Duration::from_secs(10)).await;
        let now = seen.borrow().clone();
        assert!(now.fresh && now.fault.is_none(), "{path}: {:?}", now.fault);
    }
}

#[tokio::test(start_paused = true)]
async fn change_after_a_quiet_time_is_read_at_once_although_records_are_read_again_every_second() {
    let f = fixture().await;
    f.put(&layout::supervisor(&supervisor_id()), &record::encode(&supervisor())).await;
    f.sees("the supervisor", |view| view.supervisors.len() == 1).await;
    let seen = f.observer.observe();
    let mut latest = Duration::ZERO;
    for n in 0..100 {
        tokio::time::sleep(Duration::from_millis(990 + n % 20)).await;
        let path = layout::supervisor(&format!("t{n:03}").parse().expect("valid id"));
        let began = tokio::time::Instant::now();
        f.put(&path, &record::encode(&supervisor())).await;
        while seen.borrow().view.supervisors.len() < 2 + n as usize {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        latest = latest.max(began.elapsed());
    }
    assert!(latest < PAUSE_MIN, "a change was read after {latest:?}");
}
