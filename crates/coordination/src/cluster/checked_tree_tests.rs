use super::*;
use crate::{
    cluster::{
        record::{self, UnknownFields},
        store::Store,
        tree_id::TreeIdentity,
    },
    tree::memory::MemoryTree,
};
use stormkeeper_model::{Term, TreeId, clock::Clock};
use stormkeeper_runtime::test_support::wait_until;

const WAIT_MAX: Duration = Duration::from_secs(30);

fn memory() -> TreeMemory {
    TreeMemory::of_process(Clock::new())
}

async fn create(server: &MemoryTree, path: &str, data: &str) {
    let path = path.parse().expect("valid path");
    server.connect().create(&path, data.as_bytes(), CreateMode::Persistent).await.expect("created");
}

async fn until_connected(tree: &CheckedTree) -> SessionId {
    wait_until("the layout is checked", WAIT_MAX, || async {
        let state = *tree.session().borrow();
        state.connected().ok_or(format!("{state:?}"))
    })
    .await
}

#[tokio::test]
async fn no_request_passes_before_the_layout_is_checked() {
    let (server, tasks) = (MemoryTree::new(), Tasks::default());
    create(&server, "/orders", "").await;
    let (tree, mut refusal) = CheckedTree::start(server.connect(), OnEmpty::Create, memory(), &tasks);
    let n_nodes = server.n_nodes();
    let storms = layout::storms();
    assert_eq!(tree.get(&storms).await, Err(Error::Disconnected));
    let refused = refusal.refused().await;
    assert!(refused.to_string().contains("/orders"), "{refused}");
    assert_eq!(tree.get(&storms).await, Err(Error::Disconnected));
    let written = tree.create(&storms, b"", CreateMode::Persistent).await;
    assert_eq!(written, Err(Error::Disconnected));
    assert_eq!(tree.multi(Vec::new()).await, Err(Error::Disconnected));
    assert_eq!(*tree.session().borrow(), SessionState::Connecting);
    assert_eq!(server.n_nodes(), n_nodes);
    assert!(tasks.cancelled().is_cancelled());
}

#[tokio::test]
async fn reader_waits_for_the_nimbus_that_creates_the_layout() {
    let (server, tasks) = (MemoryTree::new(), Tasks::default());
    let (reader, refusal) = CheckedTree::start(server.connect(), OnEmpty::Wait, memory(), &tasks);
    tokio::task::yield_now().await;
    assert_eq!(reader.children(&TreePath::root()).await, Err(Error::Disconnected));
    let (nimbus, _) = CheckedTree::start(server.connect(), OnEmpty::Create, memory(), &tasks);
    until_connected(&nimbus).await;
    until_connected(&reader).await;
    let names = reader.children(&TreePath::root()).await;
    assert_eq!(names, Ok(Some(vec!["layout".to_owned()])));
    assert_eq!(refusal.get(), None);
}

#[tokio::test]
async fn every_session_is_checked_and_a_later_refusal_is_like_a_lost_connection() {
    let (server, tasks) = (MemoryTree::new(), Tasks::default());
    let (tree, refusal) = CheckedTree::start(server.connect(), OnEmpty::Create, memory(), &tasks);
    let first = until_connected(&tree).await;
    // Without a new session nothing is checked: the daemon goes on.
    let other = server.connect();
    other.set(&layout::layout(), br#"{"v":1,"layout":3}"#, None).await.expect("written");
    assert!(tree.get(&layout::layout()).await.is_ok());
    server.expire(first);
    wait_until("the new session is refused", WAIT_MAX, || async {
        match (tree.get(&layout::layout()).await, *tree.session().borrow()) {
            (Err(Error::Disconnected), SessionState::Connecting) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    other.set(&layout::layout(), br#"{"v":1,"layout":2}"#, None).await.expect("written");
    assert_ne!(until_connected(&tree).await, first);
    assert_eq!(refusal.get(), None);
}

#[tokio::test]
async fn nimbus_creates_the_layout_of_a_tree_that_was_emptied() {
    let (server, tasks) = (MemoryTree::new(), Tasks::default());
    let (tree, _refusal) = CheckedTree::start(server.connect(), OnEmpty::Create, memory(), &tasks);
    until_connected(&tree).await;
    server.connect().delete_recursive(&TreePath::root()).await.expect("deleted");
    Store::new(Arc::clone(&tree) as _).ensure_layout().await.expect("created");
    assert!(matches!(tree.get(&layout::layout()).await, Ok(Some(_))));
}

#[tokio::test]
async fn disconnection_and_close_are_shown() {
    let (server, tasks) = (MemoryTree::new(), Tasks::default());
    let (tree, _refusal) = CheckedTree::start(server.connect(), OnEmpty::Create, memory(), &tasks);
    let session = until_connected(&tree).await;
    let shows = |expected: SessionState| {
        let tree = Arc::clone(&tree);
        async move {
            wait_until("the state is shown", WAIT_MAX, || async {
                let state = *tree.session().borrow();
                if state == expected { Ok(()) } else { Err(format!("{state:?}")) }
            })
            .await;
        }
    };
    server.disconnect(session);
    shows(SessionState::Disconnected(session)).await;
    server.reconnect(session);
    shows(SessionState::Connected(session)).await;
    tree.close().await;
    shows(SessionState::Closed).await;
}

fn identity(id: &str, term: i32, succeeds: &[&str]) -> Vec<u8> {
    let tree_id = |id: &str| TreeId(id.to_owned());
    record::encode(&TreeIdentity {
        id: tree_id(id),
        term: Term(term),
        succeeds: succeeds.iter().map(|id| tree_id(id)).collect(),
        unknown_fields: UnknownFields::new(),
    })
}

/// A tree with an id, and a daemon that has met it.
async fn with_identity(on_empty: OnEmpty, tasks: &Tasks) -> (MemoryTree, Arc<CheckedTree>, TreeMemory) {
    let (server, memory) = (MemoryTree::new(), memory());
    let other = server.connect();
    layout_version::establish(&*other).await.expect("created");
    other.create(&layout::tree_id(), &identity("a", 5, &[]), CreateMode::Persistent).await.expect("created");
    let (tree, _refusal) = CheckedTree::start(server.connect(), on_empty, memory.clone(), tasks);
    until_connected(&tree).await;
    assert_eq!(memory.mark().map(|mark| (mark.id.0, mark.term)), Some(("a".to_owned(), Term(5))));
    (server, tree, memory)
}

async fn until_foreign(tree: &CheckedTree, memory: &TreeMemory) {
    wait_until("the tree is refused", WAIT_MAX, || async {
        let refused = memory.foreign().borrow().clone();
        match (tree.get(&layout::storms()).await, *tree.session().borrow(), refused) {
            (Err(Error::Disconnected), SessionState::Connecting, Some(_)) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn emptied_tree_is_refused_and_not_begun_anew() {
    for on_empty in [OnEmpty::Create, OnEmpty::Wait] {
        let tasks = Tasks::default();
        let (server, tree, memory) = with_identity(on_empty, &tasks).await;
        server.connect().delete_recursive(&TreePath::root()).await.expect("deleted");
        // A nimbus would put its parents back.
        let _refused = Store::new(Arc::clone(&tree) as _).ensure_layout().await;
        until_foreign(&tree, &memory).await;
        assert_eq!(server.connect().children(&TreePath::root()).await, Ok(Some(Vec::new())));
        // The same in a new session.
        let session = server.connect();
        session.close().await;
        assert!(!tasks.cancelled().is_cancelled());
    }
}

#[tokio::test]
async fn other_tree_is_refused_until_it_succeeds_the_remembered_one() {
    let tasks = Tasks::default();
    let (server, tree, memory) = with_identity(OnEmpty::Create, &tasks).await;
    let other = server.connect();
    other.set(&layout::tree_id(), &identity("b", 9, &[]), None).await.expect("written");
    until_foreign(&tree, &memory).await;
    other.set(&layout::tree_id(), &identity("b", 9, &["a"]), None).await.expect("written");
    until_connected(&tree).await;
    assert_eq!(*memory.foreign().borrow(), None);
    assert_eq!(memory.mark().map(|mark| mark.id.0), Some("b".to_owned()));
}

#[tokio::test]
async fn older_copy_is_refused_at_the_start_and_within_a_session() {
    for is_restarted in [false, true] {
        let tasks = Tasks::default();
        let (server, tree, memory) = with_identity(OnEmpty::Wait, &tasks).await;
        let other = server.connect();
        other.set(&layout::tree_id(), &identity("a", 4, &[]), None).await.expect("written");
        let tree = match is_restarted {
            false => tree,
            true => CheckedTree::start(server.connect(), OnEmpty::Create, memory.clone(), &tasks).0,
        };
        until_foreign(&tree, &memory).await;
    }
}
