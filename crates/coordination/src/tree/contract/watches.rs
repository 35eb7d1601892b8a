//! Changes that watchers report.
//!
//! To show that a change is not reported, a case makes a later change and waits for its report:
//! watchers report changes in order.

use super::*;
use crate::tree::{Op, Scope};

/// Returns a watcher that has made its first report.
async fn watching(tree: &Arc<dyn Tree>, at: &str, scope: Scope) -> Watcher {
    let mut watcher = tree.watch(&path(at), scope);
    assert_eq!(changed(&mut watcher).await, Changes::Everything);
    watcher
}

pub(super) async fn first_report_is_everything(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    for scope in [Scope::Node, Scope::Subtree] {
        for at in ["/", "/a", "/none", "/none/below"] {
            watching(&tree, at, scope).await;
        }
    }
}

pub(super) async fn node_watch_reports_its_node_only(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    create(&writer, "/a").await;
    let mut watcher = watching(&tree, "/a", Scope::Node).await;
    write(&writer, "/a", b"x").await;
    expect_paths(&mut watcher, &["/a"]).await;
    create(&writer, "/a/b").await;
    expect_paths(&mut watcher, &["/a"]).await;
    // Neither a child's data, nor its children, nor a neighbour are in scope.
    create(&writer, "/ab").await;
    write(&writer, "/a/b", b"x").await;
    create(&writer, "/a/b/c").await;
    delete(&writer, "/a/b/c").await;
    delete(&writer, "/a/b").await;
    expect_paths(&mut watcher, &["/a"]).await;
    delete(&writer, "/a").await;
    expect_paths(&mut watcher, &["/a"]).await;
}

pub(super) async fn a_node_watch_outlives_its_node(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    create(&writer, "/a").await;
    let mut watcher = watching(&tree, "/a/b", Scope::Node).await;
    for _ in 0..3 {
        create(&writer, "/a/b").await;
        expect_paths(&mut watcher, &["/a/b"]).await;
        write(&writer, "/a/b", b"x").await;
        expect_paths(&mut watcher, &["/a/b"]).await;
        delete(&writer, "/a/b").await;
        expect_paths(&mut watcher, &["/a/b"]).await;
    }
}

pub(super) async fn subtree_watch_reports_all_changes_at_or_below_its_path(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    create(&writer, "/a").await;
    let mut watcher = watching(&tree, "/a", Scope::Subtree).await;
    create(&writer, "/a/b").await;
    expect_paths(&mut watcher, &["/a", "/a/b"]).await;
    create(&writer, "/a/b/c").await;
    expect_paths(&mut watcher, &["/a/b", "/a/b/c"]).await;
    create(&writer, "/ab").await;
    write(&writer, "/a/b/c", b"x").await;
    expect_paths(&mut watcher, &["/a/b/c"]).await;
    delete(&writer, "/a/b/c").await;
    expect_paths(&mut watcher, &["/a/b", "/a/b/c"]).await;
    write(&writer, "/a", b"x").await;
    expect_paths(&mut watcher, &["/a"]).await;
    delete(&writer, "/a/b").await;
    expect_paths(&mut watcher, &["/a", "/a/b"]).await;
    // The parent of the watched node is not in scope.
    delete(&writer, "/a").await;
    expect_paths(&mut watcher, &["/a"]).await;
    create(&writer, "/a").await;
    expect_paths(&mut watcher, &["/a"]).await;
}

pub(super) async fn subtree_watch_of_the_root_reports_all_changes(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    let mut watcher = watching(&tree, "/", Scope::Subtree).await;
    create(&writer, "/a").await;
    expect_paths(&mut watcher, &["/", "/a"]).await;
    create(&writer, "/a/b").await;
    expect_paths(&mut watcher, &["/a", "/a/b"]).await;
    write(&writer, "/", b"x").await;
    expect_paths(&mut watcher, &["/"]).await;
}

pub(super) async fn watch_reports_changes_of_its_own_session(sessions: Sessions) {
    let tree = sessions.open().await;
    let mut node = watching(&tree, "/a", Scope::Node).await;
    let mut subtree = watching(&tree, "/b", Scope::Subtree).await;
    create(&tree, "/a").await;
    expect_paths(&mut node, &["/a"]).await;
    create(&tree, "/b").await;
    expect_paths(&mut subtree, &["/b"]).await;
}

pub(super) async fn every_operation_of_a_multi_is_reported(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    create(&writer, "/a").await;
    create(&writer, "/a/gone").await;
    let mut watcher = watching(&tree, "/a", Scope::Subtree).await;
    let ops = vec![
        Op::Check { path: path("/a"), version: None },
        Op::Set { path: path("/a"), data: Vec::new(), version: None },
        Op::Create { path: path("/a/n"), data: Vec::new(), mode: CreateMode::PersistentSequential },
        Op::Delete { path: path("/a/gone"), version: None },
    ];
    writer.multi(ops).await.expect("done");
    expect_paths(&mut watcher, &["/a", "/a/gone", "/a/n0000000001"]).await;
}

pub(super) async fn failed_write_is_not_reported(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    create(&writer, "/a").await;
    let mut watcher = watching(&tree, "/", Scope::Subtree).await;
    let stale = writer.set(&path("/a"), b"", Some(Version(9))).await;
    assert_eq!(stale, Err(bad_version("/a")));
    let ops = vec![
        Op::Create { path: path("/b"), data: Vec::new(), mode: CreateMode::Persistent },
        Op::Check { path: path("/a"), version: Some(Version(9)) },
    ];
    writer.multi(ops).await.expect_err("the check fails");
    create(&writer, "/c").await;
    expect_paths(&mut watcher, &["/", "/c"]).await;
}

pub(super) async fn watchers_of_one_path_are_woken_until_they_are_dropped(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    for scope in [Scope::Node, Scope::Subtree] {
        let mut one = watching(&tree, "/a", scope).await;
        let mut two = watching(&tree, "/a", scope).await;
        create(&writer, "/a").await;
        expect_paths(&mut one, &["/a"]).await;
        expect_paths(&mut two, &["/a"]).await;
        drop(one);
        delete(&writer, "/a").await;
        expect_paths(&mut two, &["/a"]).await;
    }
}

pub(super) async fn both_scopes_at_one_path_report_their_own_changes(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    for (first, second) in [(Scope::Node, Scope::Subtree), (Scope::Subtree, Scope::Node)] {
        create(&writer, "/a").await;
        let one = watching(&tree, "/a", first).await;
        let two = watching(&tree, "/a", second).await;
        let (mut node, mut subtree) = match first {
            Scope::Node => (one, two),
            Scope::Subtree => (two, one),
        };
        // When the second watcher is added, the first may report that everything may have changed.
        node.take();
        subtree.take();
        create(&writer, "/a/b").await;
        expect_paths(&mut subtree, &["/a", "/a/b"]).await;
        expect_paths(&mut node, &["/a"]).await;
        write(&writer, "/a/b", b"x").await;
        expect_paths(&mut subtree, &["/a/b"]).await;
        delete(&writer, "/a/b").await;
        expect_paths(&mut subtree, &["/a", "/a/b"]).await;
        expect_paths(&mut node, &["/a"]).await;
        drop(subtree);
        delete(&writer, "/a").await;
        expect_paths(&mut node, &["/a"]).await;
    }
}

pub(super) async fn node_watch_below_a_subtree_watch_reports_its_own_changes(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    create(&writer, "/a").await;
    let mut node = watching(&tree, "/a", Scope::Node).await;
    let mut subtree = watching(&tree, "/", Scope::Subtree).await;
    create(&writer, "/a/b").await;
    expect_paths(&mut node, &["/a"]).await;
    expect_paths(&mut subtree, &["/a", "/a/b"]).await;
    drop(subtree);
    delete(&writer, "/a/b").await;
    delete(&writer, "/a").await;
    expect_paths(&mut node, &["/a"]).await;
}

pub(super) async fn a_path_can_be_watched_again(sessions: Sessions) {
    let (tree, writer) = (sessions.open().await, sessions.open().await);
    create(&writer, "/a").await;
    for round in 0..10 {
        let scope = if round % 3 == 0 { Scope::Node } else { Scope::Subtree };
        let mut watcher = watching(&tree, "/a", scope).await;
        write(&writer, "/a", b"x").await;
        expect_paths(&mut watcher, &["/a"]).await;
    }
}

pub(super) async fn deleted_ephemerals_are_reported(sessions: Sessions) {
    let (tree, owner) = (sessions.open().await, sessions.open().await);
    create(&owner, "/a").await;
    create_as(&owner, "/a/e", CreateMode::Ephemeral).await;
    let mut node = watching(&tree, "/a", Scope::Node).await;
    let mut subtree = watching(&tree, "/", Scope::Subtree).await;
    owner.close().await;
    expect_paths(&mut node, &["/a"]).await;
    expect_paths(&mut subtree, &["/a", "/a/e"]).await;
}

pub(super) async fn a_closed_session_wakes_its_watchers(sessions: Sessions) {
    let tree = sessions.open().await;
    let mut node = watching(&tree, "/a", Scope::Node).await;
    let mut subtree = watching(&tree, "/", Scope::Subtree).await;
    tree.close().await;
    expect_everything(&mut node).await;
    expect_everything(&mut subtree).await;
}
