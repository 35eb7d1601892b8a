//! Several sessions, and the ephemerals that belong to them.

use super::*;
use crate::tree::{Op, Scope, SessionState};

pub(super) async fn sessions_see_each_other(sessions: Sessions) {
    let (one, two) = (sessions.open().await, sessions.open().await);
    let (first, second) = (one.session().borrow().connected(), two.session().borrow().connected());
    assert!(first.is_some() && second.is_some() && first != second, "{first:?} {second:?}");
    create(&one, "/a").await;
    assert_eq!(write(&two, "/a", b"two").await, Version(1));
    assert_eq!(&*found(&one, "/a").await.data, b"two");
    let stale = one.set(&path("/a"), b"one", Some(Version(0))).await;
    assert_eq!(stale, Err(bad_version("/a")));
}

pub(super) async fn an_ephemeral_shows_its_owner(sessions: Sessions) {
    let (one, two) = (sessions.open().await, sessions.open().await);
    create_as(&one, "/a", CreateMode::Ephemeral).await;
    let owner = found(&two, "/a").await.stat.owner;
    assert!(owner.is_some());
    assert_eq!(owner, one.session().borrow().connected());
    // A write by another session does not change the owner.
    write(&two, "/a", b"x").await;
    assert_eq!(found(&two, "/a").await.stat.owner, owner);
}

pub(super) async fn an_ephemeral_has_no_children(sessions: Sessions) {
    let tree = sessions.open().await;
    create_as(&tree, "/a", CreateMode::Ephemeral).await;
    for mode in [CreateMode::Persistent, CreateMode::Ephemeral] {
        let refused = tree.create(&path("/a/b"), b"", mode).await;
        assert_eq!(refused, Err(Error::NoChildrenForEphemerals { path: path("/a/b") }));
    }
}

pub(super) async fn an_ephemeral_belongs_to_one_session(sessions: Sessions) {
    let (one, two) = (sessions.open().await, sessions.open().await);
    create_as(&one, "/a", CreateMode::Ephemeral).await;
    let refused = two.create(&path("/a"), b"", CreateMode::Ephemeral).await;
    assert_eq!(refused, Err(node_exists("/a")));
    // Another session takes over by deleting and creating the ephemeral in one multi.
    let ops = vec![
        Op::Delete { path: path("/a"), version: Some(Version(0)) },
        Op::Create { path: path("/a"), data: Vec::new(), mode: CreateMode::Ephemeral },
    ];
    two.multi(ops).await.expect("taken over");
    assert_eq!(found(&one, "/a").await.stat.owner, two.session().borrow().connected());
    one.close().await;
    assert!(read(&two, "/a").await.is_some(), "the ephemeral was deleted with its former session");
}

pub(super) async fn anyone_may_delete_an_ephemeral(sessions: Sessions) {
    let (one, two) = (sessions.open().await, sessions.open().await);
    create_as(&one, "/a", CreateMode::Ephemeral).await;
    delete(&two, "/a").await;
    assert_eq!(read(&one, "/a").await, None);
}

pub(super) async fn ephemerals_are_deleted_when_their_session_closes(sessions: Sessions) {
    let (one, two) = (sessions.open().await, sessions.open().await);
    create(&one, "/kept").await;
    create(&one, "/kept/kept").await;
    create_as(&one, "/kept/gone", CreateMode::Ephemeral).await;
    create_as(&one, "/gone", CreateMode::EphemeralSequential).await;
    create_as(&two, "/other", CreateMode::Ephemeral).await;
    one.close().await;
    assert_eq!(children(&two, "/").await, ["kept", "other"]);
    assert_eq!(children(&two, "/kept").await, ["kept"]);
}

pub(super) async fn closed_session_rejects_every_request(sessions: Sessions) {
    let tree = sessions.open().await;
    let state = tree.session();
    let at = path("/a");
    tree.close().await;
    tree.close().await;
    assert_eq!(*state.borrow(), SessionState::Closed);
    assert_eq!(*tree.session().borrow(), SessionState::Closed);
    assert_eq!(tree.create(&at, b"", CreateMode::Persistent).await, Err(Error::Closed));
    assert_eq!(tree.get(&at).await, Err(Error::Closed));
    assert_eq!(tree.children(&at).await, Err(Error::Closed));
    assert_eq!(tree.set(&at, b"", None).await, Err(Error::Closed));
    assert_eq!(tree.delete(&at, None).await, Err(Error::Closed));
    let op = Op::Check { path: at.clone(), version: None };
    assert_eq!(tree.multi(vec![op]).await, Err(Error::Closed));
    assert_eq!(tree.get_many(std::slice::from_ref(&at)).await, Err(Error::Closed));
    expect_everything(&mut tree.watch(&at, Scope::Node)).await;
}
