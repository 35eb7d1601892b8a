use super::*;
use crate::tree::{
    WriteOutcome,
    contract::{Sessions, run_all},
    memory::MemoryTree,
};

fn path(text: &str) -> TreePath {
    text.parse().expect("valid path")
}

fn faulty(plan: FaultPlan) -> (MemoryTree, Arc<FaultyTree>) {
    let server = MemoryTree::new();
    let tree = FaultyTree::new(server.connect(), plan);
    (server, tree)
}

#[tokio::test]
async fn tree_without_faults_satisfies_the_contract() {
    run_all(async |_| {
        let server = MemoryTree::new();
        Sessions::new(move || {
            let tree: Arc<dyn Tree> = FaultyTree::new(server.connect(), FaultPlan::none());
            async move { tree }
        })
    })
    .await;
}

#[tokio::test]
async fn nth_write_fails_as_planned() {
    let plan = FaultPlan::none()
        .fail_nth_write(2, TreeFault::LostResponse)
        .fail_nth_write(3, TreeFault::LostRequest)
        .fail_nth_write(4, TreeFault::Refused(Error::Disconnected));
    let (_server, tree) = faulty(plan);
    let mut seen = Vec::new();
    for name in ["/a", "/b", "/c", "/d", "/e"] {
        let created = tree.create(&path(name), b"", CreateMode::Persistent).await;
        let is_there = tree.get(&path(name)).await.expect("reads are not writes").is_some();
        seen.push((created.map_err(|error| error.outcome()).err(), is_there));
    }
    let unknown = Some(WriteOutcome::Unknown);
    let wanted = [
        (None, true),
        (unknown, true),
        (unknown, false),
        (Some(WriteOutcome::NotApplied), false),
        (None, true),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(tree.n_writes(), 5);
}

/// Returns for each of 300 writes whether it was acknowledged and whether it took effect.
async fn outcomes(seed: u64) -> Vec<(bool, bool)> {
    let rates = FaultRates { lost_response: 0.2, lost_request: 0.2, ..FaultRates::default() };
    let (server, tree) = faulty(FaultPlan::seeded(seed, rates));
    let direct = server.connect();
    let mut outcomes = Vec::new();
    for i in 0..300 {
        let at = path(&format!("/{i}"));
        let answered = tree.create(&at, b"", CreateMode::Persistent).await.is_ok();
        outcomes.push((answered, direct.get(&at).await.expect("read").is_some()));
    }
    outcomes
}

#[tokio::test]
async fn same_seed_gives_the_same_faults() {
    let outcomes_of_seven = outcomes(7).await;
    assert_eq!(outcomes_of_seven, outcomes(7).await);
    assert_ne!(outcomes_of_seven, outcomes(8).await);
    for kind in [(true, true), (false, true), (false, false)] {
        let n = outcomes_of_seven.iter().filter(|seen| **seen == kind).count();
        assert!(n > 20, "{n} of 300 were {kind:?}");
    }
    assert!(!outcomes_of_seven.contains(&(true, false)), "a write without effect was acknowledged");
}

#[tokio::test(start_paused = true)]
async fn delays_are_bounded_and_end_with_an_empty_plan() {
    let delay_max = Duration::from_secs(3);
    let rates = FaultRates { delay: 1.0, delay_max, ..FaultRates::default() };
    let (_server, tree) = faulty(FaultPlan::seeded(1, rates));
    let clock = stormkeeper_model::clock::Clock::new();
    let start = clock.monotonic();
    for _ in 0..10 {
        tree.get(&TreePath::root()).await.expect("late, but read");
    }
    let waited = clock.monotonic().since(start);
    assert!(waited > Duration::from_secs(1) && waited <= 10 * delay_max, "{waited:?}");
    tree.set_plan(FaultPlan::none());
    let healed = clock.monotonic();
    tree.get(&TreePath::root()).await.expect("read");
    assert_eq!(clock.monotonic().since(healed), Duration::ZERO);
}

#[tokio::test]
async fn lost_events_are_not_reported_but_everything_is() {
    let rates = FaultRates { lost_event: 1.0, ..FaultRates::default() };
    let (server, tree) = faulty(FaultPlan::seeded(1, rates));
    let mut watcher = tree.watch(&TreePath::root(), Scope::Subtree);
    assert_eq!(watcher.changed().await, Changes::Everything);
    tree.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");
    let session = tree.session().borrow().connected().expect("connected");
    server.expire(session);
    assert_eq!(watcher.changed().await, Changes::Everything, "the creation should have been lost");
}

#[tokio::test(start_paused = true)]
async fn held_tree_passes_nothing_while_the_server_continues() {
    let (server, tree) = faulty(FaultPlan::none());
    let other = server.connect();
    let mut watcher = tree.watch(&path("/a"), Scope::Node);
    assert_eq!(watcher.changed().await, Changes::Everything);
    let pause = Duration::from_secs(60);
    tree.freeze();
    other.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");
    let held = tokio::time::timeout(pause, tree.create(&path("/b"), b"", CreateMode::Persistent)).await;
    assert!(held.is_err() && watcher.take().is_none(), "something passed");
    tree.thaw();
    assert_eq!(watcher.changed().await, Changes::Paths([path("/a")].into()));
    tree.create(&path("/b"), b"", CreateMode::Persistent).await.expect("created");

    // A request made before the end of the session must not run in the next session.
    tree.freeze();
    let old = tree.session().borrow().connected().expect("connected");
    let at = path("/c");
    let late = tree.create(&at, b"", CreateMode::Ephemeral);
    let thaw = async {
        tokio::time::sleep(pause).await;
        server.expire(old);
        assert_eq!(tree.session().borrow().connected(), Some(old), "a held tree saw a new session");
        tree.thaw();
    };
    assert_eq!(tokio::join!(late, thaw).0, Err(Error::SessionExpired));
    assert_eq!(other.get(&at).await, Ok(None));
    let renewed = tree.session().wait_for(|state| state.connected() != Some(old)).await;
    renewed.expect("the new session is seen");

    tree.kill();
    tree.thaw();
    assert!(tokio::time::timeout(pause, tree.get(&path("/b"))).await.is_err(), "a killed tree responded");
    assert_eq!(server.sessions().len(), 2, "the server ended the session of a killed tree");
}

#[tokio::test]
async fn dropped_watcher_ends_its_relay() {
    let (_server, tree) = faulty(FaultPlan::none());
    for _ in 0..100 {
        tree.watch(&path("/a"), Scope::Node).changed().await;
    }
    stormkeeper_runtime::test_support::wait_until("no relay is left", Duration::from_secs(10), async || {
        // Each relay holds a reference to the plan.
        match Arc::strong_count(&tree.plan_state) {
            1 => Ok(()),
            n => Err(format!("{} relays", n - 1)),
        }
    })
    .await;
}
