//! The contract of all trees, and the end of either process.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::tree::{
    CreateMode, Error, ReadTree as _, SessionState, Tree, TreePath,
    contract::{Sessions, run_all},
    memory::MemoryTree,
};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    test_support::wait_until,
};
use tokio::net::UnixListener;

const WAIT_MAX: Duration = Duration::from_secs(20);

/// A served memory tree.
struct Served {
    tree: MemoryTree,
    socket: std::path::PathBuf,
    serving: Tasks,
    tasks: Arc<Tasks>,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("tree");
        let (tree, serving, tasks) = (MemoryTree::new(), Tasks::default(), Arc::new(Tasks::default()));
        let listener = UnixListener::bind(&socket).expect("bound");
        serving.start("serve", OnExit::Ignore, serve(tree.clone(), listener, serving.child()));
        Self { tree, socket, serving, tasks, _dir: dir }
    }

    async fn connect(&self) -> Arc<SharedTree> {
        SharedTree::connect(&self.socket, &self.tasks).await.expect("connected")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_tree_keeps_the_contract() {
    run_all(|_name| async {
        let served = Arc::new(Served::new());
        Sessions::new(move || {
            let served = Arc::clone(&served);
            async move { served.connect().await as Arc<dyn Tree> }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_ends_with_its_connection() {
    let served = Served::new();
    let (own, path) = (served.tree.connect(), "/a".parse::<TreePath>().expect("valid"));
    let tasks = Tasks::default();
    let other = SharedTree::connect(&served.socket, &tasks).await.expect("connected");
    other.create(&path, b"x", CreateMode::Ephemeral).await.expect("created");
    assert!(own.get(&path).await.expect("read").is_some());
    drop(tasks);
    wait_until("the ephemeral is gone", WAIT_MAX, || async {
        match own.get(&path).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_is_lost_when_the_serving_process_ends() {
    let served = Served::new();
    let tree = served.connect().await;
    assert!(served.serving.stop(WAIT_MAX).await);
    tokio::time::timeout(WAIT_MAX, tree.lost()).await.expect("seen");
    assert!(matches!(*tree.session().borrow(), SessionState::Disconnected(_)));
    assert_eq!(tree.get(&TreePath::root()).await, Err(Error::Disconnected));
    tree.close().await;
    assert_eq!(tree.get(&TreePath::root()).await, Err(Error::Closed));
}
