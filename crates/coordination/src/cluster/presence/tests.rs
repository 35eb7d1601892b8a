use super::*;
use crate::tree::{
    faulty::{FaultPlan, FaultyTree},
    memory::MemoryTree,
};
use stormkeeper_runtime::test_support::wait_until;

const WAIT_MAX: Duration = Duration::from_secs(20);

fn path(text: &str) -> TreePath {
    text.parse().expect("valid path")
}

fn session_of(tree: &Arc<dyn Tree>) -> SessionId {
    tree.session().borrow().connected().expect("connected")
}

async fn data(tree: &Arc<dyn Tree>, at: &str) -> Option<(Vec<u8>, Option<SessionId>)> {
    let node = tree.get(&path(at)).await.expect("the tree responds");
    node.map(|node| (node.data.to_vec(), node.stat.owner))
}

#[tokio::test]
async fn kept_ephemeral_is_created_updated_and_withdrawn() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    presence.keep_at([(path("/a"), b"1".to_vec())]);
    presence.settled().await;
    let session = tree.session().borrow().connected();
    assert_eq!(data(&tree, "/a").await, Some((b"1".to_vec(), session)));
    presence.keep_at([(path("/a"), b"2".to_vec())]);
    presence.settled().await;
    assert_eq!(data(&tree, "/a").await, Some((b"2".to_vec(), session)));
    presence.withdraw_at(&path("/a"));
    presence.settled().await;
    assert_eq!(data(&tree, "/a").await, None);
}

#[tokio::test]
async fn all_ephemerals_are_created_again_in_a_new_session() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    tree.ensure(&path("/beats")).await.expect("created");
    presence.keep_at((0..250).map(|i| (path(&format!("/beats/{i}")), b"x".to_vec())));
    presence.settled().await;
    server.expire(session_of(&tree));
    wait_until("all ephemerals are back", WAIT_MAX, async || {
        let names = tree.children(&path("/beats")).await;
        match names.as_ref().map(|names| names.as_ref().map(Vec::len)) {
            Ok(Some(250)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn node_of_a_former_session_is_replaced_and_not_overwritten() {
    let server = MemoryTree::new();
    let (former, tree): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    former.create(&path("/a"), b"old", CreateMode::Ephemeral).await.expect("created");
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    presence.keep_at([(path("/a"), b"new".to_vec())]);
    presence.settled().await;
    server.expire(session_of(&former));
    let session = tree.session().borrow().connected();
    assert_eq!(data(&tree, "/a").await, Some((b"new".to_vec(), session)));
}

#[tokio::test]
async fn ephemeral_without_a_parent_does_not_hold_back_the_others() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    presence.keep_at([(path("/gone/a"), b"1".to_vec()), (path("/b"), b"2".to_vec())]);
    presence.settled().await;
    assert!(data(&tree, "/b").await.is_some());
    assert!(data(&tree, "/gone/a").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn ephemerals_that_zookeeper_denies_do_not_hold_back_the_others_and_come_later() {
    let server = MemoryTree::new();
    let others: Arc<dyn Tree> = server.connect();
    others.ensure(&path("/locked")).await.expect("created");
    others.create(&path("/taken"), b"mine", CreateMode::Persistent).await.expect("created");
    let locked = FaultPlan::none().deny([path("/locked"), path("/taken")]);
    let tree = FaultyTree::new(server.connect(), locked);
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::<FaultyTree>::clone(&tree), &tasks);
    let kept = ["/a", "/locked/a", "/taken", "/z"];
    presence.keep_at(kept.iter().map(|at| (path(at), b"1".to_vec())));
    tokio::time::timeout(WAIT_MAX, presence.settled()).await.expect("the denied ones do not hold it up");
    for (at, is_written) in kept.into_iter().zip([true, false, false, true]) {
        let written = data(&others, at).await.is_some_and(|(data, _)| data == b"1");
        assert_eq!((at, written), (at, is_written));
        let desired = presence.lock();
        assert_eq!(
            (desired.owned.contains(&path(at)), desired.denied.contains_key(&path(at))),
            (is_written, !is_written)
        );
    }
    // A withdrawal waits for nobody either.
    tree.set_plan(FaultPlan::none().deny([path("/locked"), path("/taken"), path("/a")]));
    presence.withdraw_at(&path("/a"));
    presence.withdraw_at(&path("/z"));
    tokio::time::timeout(WAIT_MAX, presence.settled()).await.expect("the denied one does not hold it up");
    assert_eq!((data(&others, "/z").await, data(&others, "/a").await.is_some()), (None, true));
    tree.set_plan(FaultPlan::none());
    wait_until("all are written or deleted", 2 * REVIEW_PERIOD, async || {
        let found = [data(&others, "/locked/a").await, data(&others, "/taken").await];
        let are_written = found.iter().all(|found| found.as_ref().is_some_and(|(data, _)| data == b"1"));
        match are_written && data(&others, "/a").await.is_none() {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    })
    .await;
    assert!(presence.lock().denied.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ephemeral_is_created_soon_after_its_parent() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    presence.keep_at([(path("/late/a"), b"1".to_vec())]);
    presence.settled().await;
    let began = tokio::time::Instant::now();
    tree.ensure(&path("/late")).await.expect("made");
    wait_until("the ephemeral exists", REVIEW_PERIOD, async || {
        data(&tree, "/late/a").await.map(drop).ok_or_else(|| "it is missing".to_owned())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn process_with_the_same_id_is_noticed_and_a_former_session_is_not() {
    let server = MemoryTree::new();
    let tasks = Tasks::default();
    let (tree, twin): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    tree.create(&path("/a"), b"left over", CreateMode::Ephemeral).await.expect("created");
    let presence = Presence::start(Arc::clone(&twin), &tasks);
    presence.keep_at([(path("/a"), b"1".to_vec())]);
    presence.settled().await;
    assert_eq!(presence.lock().n_replaced, 0, "it replaced what was there before");
    let node = tree.get(&path("/a")).await.expect("read").expect("there");
    tree.delete(&path("/a"), Some(node.stat.version)).await.expect("deleted");
    tree.create(&path("/a"), b"2", CreateMode::Ephemeral).await.expect("created");
    wait_until("the ephemeral is replaced again", 2 * REVIEW_PERIOD, async || {
        match data(&tree, "/a").await {
            Some((data, _)) if data == b"1" => Ok(()),
            data => Err(format!("{data:?}")),
        }
    })
    .await;
    assert_eq!(presence.lock().n_replaced, 1);
}

#[tokio::test]
async fn keeping_an_ephemeral_again_retries_its_missing_parent() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    presence.keep_at([(path("/late/a"), b"1".to_vec())]);
    presence.settled().await;
    tree.ensure(&path("/late")).await.expect("made");
    presence.keep_at([(path("/late/a"), b"1".to_vec())]);
    presence.settled().await;
    assert!(data(&tree, "/late/a").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn denial_is_over_with_a_registration_and_not_with_the_withdrawal_of_everything() {
    let mut denied = Outage::default();
    assert_eq!(end_of_denial(&mut denied, true), None, "nothing was denied");
    assert!(denied.begins());
    assert_eq!(end_of_denial(&mut denied, false), None, "it stops without ever having been registered");
    assert!(end_of_denial(&mut denied, true).is_some());
    assert_eq!(end_of_denial(&mut denied, true), None, "it is said once");
}
