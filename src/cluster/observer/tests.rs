use super::*;
use crate::{
    cluster::record::{self, Leader, Resources, Supervisor},
    model::{Port, SupervisorId, TaskId, Term, Timestamp, TopologyId},
    test_support::wait_until,
    tree::{
        CreateMode, Tree,
        faulty::{FaultPlan, FaultyTree, Rates},
        memory::MemoryTree,
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    server: MemoryTree,
    tree: Arc<dyn Tree>,
    /// What the observer sees.
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
        wait_until(what, PATIENCE, async || {
            let now = seen.borrow().clone();
            if now.fresh && condition(&now.view) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }
}

fn supervisor() -> Supervisor {
    Supervisor {
        host: "h".to_owned(),
        ports: vec![Port(6700)],
        resources: Resources { cpu_percent: 100, memory_mb: 1024 },
        version: "1".to_owned(),
        start: Timestamp::EPOCH,
    }
}

fn topology() -> TopologyId {
    "wc-1-100".parse().expect("valid id")
}

fn supervisor_id() -> SupervisorId {
    "s1".parse().expect("valid id")
}

#[tokio::test]
async fn changes_come_into_the_view() {
    let f = fixture().await;
    f.sees("an empty cluster", |view| *view == ClusterView::default()).await;
    let path = layout::supervisor(&supervisor_id());
    f.put(&path, &record::encode(&supervisor())).await;
    f.sees("the supervisor", |view| view.supervisors.get(&supervisor_id()) == Some(&supervisor())).await;
    f.tree.delete(&path, None).await.expect("deleted");
    f.sees("that it is gone", |view| view.supervisors.is_empty()).await;
}

#[tokio::test]
async fn beats_and_holders_are_the_names_of_children() {
    let f = fixture().await;
    f.put(&layout::taskbeats(&topology()), b"").await;
    for task in [3, 4] {
        f.put(&layout::taskbeat(&topology(), TaskId(task)), b"{}").await;
    }
    f.sees("two beats", |view| view.beats.get(&topology()).is_some_and(|tasks| tasks.to_string() == "3-4"))
        .await;
    f.tree.delete(&layout::taskbeat(&topology(), TaskId(3)), None).await.expect("deleted");
    f.sees("one beat", |view| view.beats.get(&topology()).is_some_and(|tasks| tasks.to_string() == "4"))
        .await;
    let key = crate::model::BlobKey::of(b"x");
    let nimbus = "n1".parse().expect("valid id");
    f.put(&layout::blob(&key), b"").await;
    f.put(&layout::blob_holder(&key, &nimbus), b"").await;
    f.sees("the holder", |view| view.blobs.get(&key).is_some_and(|holders| holders.contains(&nimbus))).await;
}

#[tokio::test]
async fn what_happened_while_disconnected_is_seen_afterwards() {
    let f = fixture().await;
    f.sees("a fresh view", |_| true).await;
    let observing = f.server.sessions()[1];
    f.server.disconnect(observing);
    let seen = f.observer.observe();
    wait_until("that the view is stale", PATIENCE, async || {
        if seen.borrow().fresh { Err("fresh".to_owned()) } else { Ok(()) }
    })
    .await;
    f.put(&layout::supervisor(&supervisor_id()), &record::encode(&supervisor())).await;
    f.server.reconnect(observing);
    f.sees("the supervisor", |view| view.supervisors.contains_key(&supervisor_id())).await;
}

#[tokio::test]
async fn an_unreadable_znode_is_reported_and_the_rest_goes_on() {
    let f = fixture().await;
    let path = layout::storm(&topology());
    f.put(&path, b"written by hand").await;
    f.put(&layout::supervisor(&supervisor_id()), &record::encode(&supervisor())).await;
    f.sees("both", |view| view.is_unreadable(&path) && view.supervisors.len() == 1).await;
    f.tree.delete(&path, None).await.expect("deleted");
    f.sees("that it is mended", |view| view.unreadable.is_empty()).await;
}

#[tokio::test]
async fn reading_now_sees_what_was_just_written() {
    let f = fixture().await;
    let leader = Leader { nimbus: "n1".parse().expect("valid id"), api: "h:1".to_owned(), term: Term(1) };
    f.put(&layout::leader(), &record::encode(&leader)).await;
    let view = f.observer.read_now().await.expect("readable");
    assert_eq!(view.leader, Some(leader));
}

#[tokio::test]
async fn reading_again_reads_what_was_written_and_which_records_there_are() {
    let f = fixture().await;
    f.sees("an empty cluster", |view| *view == ClusterView::default()).await;
    f.faulty.set_plan(FaultPlan::seeded(1, Rates { lost_event: 1.0, ..Rates::default() }));
    let path = layout::supervisor(&supervisor_id());
    f.put(&path, &record::encode(&supervisor())).await;
    let view = f.observer.read_again(Vec::new()).await.expect("readable");
    assert_eq!(view.supervisors.get(&supervisor_id()), Some(&supervisor()), "a new one is found");
    let moved = Supervisor { host: "elsewhere".to_owned(), ..supervisor() };
    f.tree.set(&path, &record::encode(&moved), None).await.expect("written");
    let view = f.observer.read_again(Vec::new()).await.expect("readable");
    assert_eq!(view.supervisors.get(&supervisor_id()), Some(&supervisor()), "nobody said that it changed");
    let view = f.observer.read_again(vec![path]).await.expect("readable");
    assert_eq!(view.supervisors.get(&supervisor_id()), Some(&moved));
}

/// What the first requests of a reading found was lost when a later one failed.
#[tokio::test]
async fn a_reading_that_fails_half_way_is_published_in_the_end() {
    let f = fixture().await;
    for n in 0..2 * READ_BATCH {
        let id: SupervisorId = format!("z{n:03}").parse().expect("valid id");
        f.put(&layout::supervisor(&id), &record::encode(&supervisor())).await;
    }
    f.observer.read_now().await.expect("readable");
    for seed in 0..20 {
        let plan = Rates { lost_request: 0.4, lost_event: 1.0, ..Rates::default() };
        f.faulty.set_plan(FaultPlan::seeded(seed, plan));
        let id: SupervisorId = format!("a{seed:03}").parse().expect("valid id");
        f.put(&layout::supervisor(&id), &record::encode(&supervisor())).await;
        // Most of these fail, at one request or another.
        let _failed_or_not = f.observer.read_now().await;
        f.faulty.set_plan(FaultPlan::none());
        let view = f.observer.read_now().await.expect("readable");
        assert!(view.supervisors.contains_key(&id), "{id} is there, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_in_a_row_are_read_together() {
    let f = fixture().await;
    f.put(&layout::taskbeats(&topology()), b"").await;
    f.sees("a place for beats", |view| view.beats.contains_key(&topology())).await;
    let seen = f.observer.observe();
    let (mut n_views, mut last) = (0, Arc::clone(&seen.borrow().view));
    for task in 1..=500 {
        f.put(&layout::taskbeat(&topology(), TaskId(task)), b"{}").await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = Arc::clone(&seen.borrow().view);
        n_views += usize::from(!Arc::ptr_eq(&now, &last));
        last = now;
    }
    assert!((2..=30).contains(&n_views), "500 changes in 500 ms made {n_views} views");
    f.sees("all beats", |view| view.beats.get(&topology()).is_some_and(|tasks| tasks.len() == 500)).await;
}
