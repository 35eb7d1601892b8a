//! Multis: all operations or none.

use super::*;
use crate::tree::{MAX_MULTI_BYTES, Op, OpResult};

fn check(at: &str, version: Option<i32>) -> Op {
    Op::Check { path: path(at), version: version.map(Version) }
}

fn creation(at: &str, mode: CreateMode) -> Op {
    Op::Create { path: path(at), data: b"new".to_vec(), mode }
}

fn set(at: &str, version: Option<i32>) -> Op {
    Op::Set { path: path(at), data: b"set".to_vec(), version: version.map(Version) }
}

fn deletion(at: &str, version: Option<i32>) -> Op {
    Op::Delete { path: path(at), version: version.map(Version) }
}

fn failed(index: usize, source: Error) -> Error {
    Error::Multi { index, source: Box::new(source) }
}

pub(super) async fn multi_applies_all_operations(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    create(&tree, "/b").await;
    let ops = vec![
        check("/a", Some(0)),
        creation("/c", CreateMode::Persistent),
        set("/a", Some(0)),
        deletion("/b", None),
    ];
    let results = tree.multi(ops).await;
    assert_eq!(
        results,
        Ok(vec![
            OpResult::Checked,
            OpResult::Created(path("/c")),
            OpResult::Set(Version(1)),
            OpResult::Deleted
        ])
    );
    assert_eq!(children(&tree, "/").await, ["a", "c"]);
    assert_eq!(&*found(&tree, "/a").await.data, b"set");
    assert_eq!(&*found(&tree, "/c").await.data, b"new");
}

pub(super) async fn empty_multi_has_no_effect(sessions: Sessions) {
    let tree = sessions.open().await;
    assert_eq!(tree.multi(Vec::new()).await, Ok(Vec::new()));
}

pub(super) async fn failed_multi_has_no_effect_and_names_the_operation(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    create(&tree, "/b").await;
    let before = (found(&tree, "/a").await, found(&tree, "/b").await);
    let ops = vec![
        set("/a", None),
        deletion("/b", None),
        creation("/c", CreateMode::Ephemeral),
        creation("/c/d", CreateMode::Persistent),
        check("/a", None),
    ];
    let refused = tree.multi(ops).await;
    assert_eq!(refused, Err(failed(3, Error::NoChildrenForEphemerals { path: path("/c/d") })));
    assert_eq!((found(&tree, "/a").await, found(&tree, "/b").await), before);
    assert_eq!(children(&tree, "/").await, ["a", "b"]);
    // The failed multi did not use up a sequence number.
    assert_eq!(create_as(&tree, "/n", CreateMode::PersistentSequential).await, "/n0000000002");
}

pub(super) async fn each_kind_of_failure_names_its_operation(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    create(&tree, "/a/b").await;
    let failures = [
        (check("/none", None), no_node("/none")),
        (check("/a", Some(3)), bad_version("/a")),
        (creation("/a", CreateMode::Persistent), node_exists("/a")),
        (creation("/none/x", CreateMode::Persistent), no_node("/none/x")),
        (set("/none", None), no_node("/none")),
        (set("/a", Some(1)), bad_version("/a")),
        (deletion("/none", None), no_node("/none")),
        (deletion("/a", Some(1)), bad_version("/a")),
        (deletion("/a", None), not_empty("/a")),
    ];
    for (op, error) in failures {
        let refused = tree.multi(vec![check("/a", None), op.clone(), set("/a", None)]).await;
        assert_eq!(refused, Err(failed(1, error.clone())), "{op:?}");
        assert_eq!(tree.multi(vec![op.clone()]).await, Err(failed(0, error)), "{op:?}");
    }
    assert_eq!(found(&tree, "/a").await.stat.version, Version::FIRST);
}

pub(super) async fn operations_see_the_effects_of_earlier_operations(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    write(&tree, "/a", b"x").await;
    let ops = vec![
        deletion("/a", Some(1)),
        creation("/a", CreateMode::Persistent),
        check("/a", Some(0)),
        creation("/a/b", CreateMode::Persistent),
        set("/a/b", Some(0)),
        set("/a/b", Some(1)),
        check("/a/b", Some(2)),
        deletion("/a/b", Some(2)),
    ];
    let results = tree.multi(ops).await.expect("done");
    assert_eq!(results[4..6], [OpResult::Set(Version(1)), OpResult::Set(Version(2))]);
    let node = found(&tree, "/a").await;
    assert_eq!((&*node.data, node.stat.version, node.stat.n_children), (&b"new"[..], Version(0), 0));
}

pub(super) async fn multi_returns_the_digits_of_sequential_names(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    let ops = vec![
        creation("/a/n", CreateMode::PersistentSequential),
        creation("/a/m", CreateMode::EphemeralSequential),
    ];
    let results = tree.multi(ops).await;
    let wanted = ["/a/n0000000000", "/a/m0000000001"].map(|at| OpResult::Created(path(at)));
    assert_eq!(results, Ok(wanted.to_vec()));
    assert_eq!(children(&tree, "/a").await, ["m0000000001", "n0000000000"]);
    let owner = found(&tree, "/a/m0000000001").await.stat.owner;
    assert_eq!(owner, tree.session().borrow().connected());
}

pub(super) async fn znodes_of_one_multi_share_their_transaction(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    let ops =
        vec![creation("/b", CreateMode::Persistent), set("/a", None), creation("/c", CreateMode::Persistent)];
    tree.multi(ops).await.expect("done");
    let b = found(&tree, "/b").await.stat;
    assert_eq!(b.created, found(&tree, "/c").await.stat.created);
    assert_eq!(b.created, found(&tree, "/a").await.stat.modified);
    assert!(b.created > found(&tree, "/a").await.stat.created);
}

pub(super) async fn a_check_without_a_version_needs_the_node(sessions: Sessions) {
    let tree = sessions.open().await;
    assert_eq!(tree.multi(vec![check("/a", None)]).await, Err(failed(0, no_node("/a"))));
    create(&tree, "/a").await;
    write(&tree, "/a", b"x").await;
    assert_eq!(tree.multi(vec![check("/a", None)]).await, Ok(vec![OpResult::Checked]));
}

pub(super) async fn oversized_multi_is_rejected_and_the_connection_survives(sessions: Sessions) {
    let tree = sessions.open().await;
    let session = *tree.session().borrow();
    let large = |at: &str, n_bytes| Op::Create {
        path: path(at),
        data: vec![0; n_bytes],
        mode: CreateMode::Persistent,
    };
    let ops = vec![large("/a", MAX_MULTI_BYTES / 2), large("/b", MAX_MULTI_BYTES / 2)];
    let refused = tree.multi(ops).await;
    assert!(
        matches!(&refused, Err(Error::TooLarge { path: at, limit: MAX_MULTI_BYTES, .. }) if *at == path("/a")),
        "{refused:?}"
    );
    let refused = tree.multi(vec![large("/a", 1), large("/b", crate::tree::MAX_NODE_BYTES + 1)]).await;
    assert!(matches!(&refused, Err(Error::TooLarge { path: at, .. }) if *at == path("/b")), "{refused:?}");
    assert_eq!(children(&tree, "/").await, Vec::<String>::new());
    let fits = MAX_MULTI_BYTES / 2 - 100;
    tree.multi(vec![large("/a", fits), large("/b", fits)]).await.expect("within the limit");
    assert_eq!(*tree.session().borrow(), session);
}

pub(super) async fn the_root_cannot_be_deleted_in_a_multi(sessions: Sessions) {
    let tree = sessions.open().await;
    let refused = tree.multi(vec![creation("/a", CreateMode::Persistent), deletion("/", None)]).await;
    assert!(
        matches!(&refused, Err(Error::Multi { index: 1, source }) if matches!(**source, Error::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(read(&tree, "/a").await, None);
}
