//! Behaviour that only the memory tree can produce; all else is in [`crate::tree::contract`].

use super::*;
use crate::tree::{
    Changes, CreateMode, Error, ReadTree as _, Scope, SessionState, Tree as _, TreePath, Version,
};

fn path(text: &str) -> TreePath {
    text.parse().expect("valid path")
}

fn id_of(session: &MemorySession) -> SessionId {
    session.session().borrow().connected().expect("connected")
}

#[tokio::test]
async fn expired_session_is_renewed_without_its_ephemerals() {
    let server = MemoryTree::new();
    let (session, other) = (server.connect(), server.connect());
    session.create(&path("/mine"), b"", CreateMode::Ephemeral).await.expect("created");
    let mut own = session.watch(&TreePath::root(), Scope::Subtree);
    let mut theirs = other.watch(&path("/mine"), Scope::Node);
    assert_eq!((own.changed().await, theirs.changed().await), (Changes::Everything, Changes::Everything));
    let old = id_of(&session);
    server.expire(old);
    assert_ne!(id_of(&session), old);
    assert_eq!(own.take(), Some(Changes::Everything));
    assert_eq!(theirs.take(), Some(Changes::Paths([path("/mine")].into())));
    assert_eq!(session.get(&path("/mine")).await, Ok(None));
    server.expire(old);
    assert_eq!(server.sessions().len(), 2, "an ended session was ended again");
}

#[tokio::test]
async fn disconnected_session_is_rejected_and_reports_everything_after_the_reconnect() {
    let server = MemoryTree::new();
    let (session, other) = (server.connect(), server.connect());
    session.create(&path("/mine"), b"", CreateMode::Ephemeral).await.expect("created");
    let mut watcher = session.watch(&path("/a"), Scope::Node);
    watcher.changed().await;
    let id = id_of(&session);
    server.disconnect(id);
    assert_eq!(*session.session().borrow(), SessionState::Disconnected(id));
    assert_eq!(session.get(&path("/mine")).await, Err(Error::Disconnected));
    other.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");
    assert_eq!(watcher.take(), None, "a disconnected watcher was woken");
    let mut late = session.watch(&path("/b"), Scope::Node);
    assert_eq!(late.take(), None, "the watch is not in place");
    server.reconnect(id);
    assert_eq!(id_of(&session), id);
    assert_eq!((watcher.take(), late.take()), (Some(Changes::Everything), Some(Changes::Everything)));
    assert!(session.get(&path("/mine")).await.expect("read").is_some());
}

#[tokio::test]
async fn session_that_expired_while_disconnected_is_renewed_at_the_reconnect() {
    let server = MemoryTree::new();
    let (session, other) = (server.connect(), server.connect());
    session.create(&path("/mine"), b"", CreateMode::Ephemeral).await.expect("created");
    let old = id_of(&session);
    server.disconnect(old);
    server.expire(old);
    assert_eq!(other.get(&path("/mine")).await, Ok(None));
    assert_eq!(
        *session.session().borrow(),
        SessionState::Disconnected(old),
        "a disconnected client saw the expiry"
    );
    server.reconnect(old);
    assert_ne!(id_of(&session), old);
}

#[tokio::test]
async fn an_outage_keeps_sessions_and_delays_new_ones() {
    let server = MemoryTree::new();
    let before = server.connect();
    let id = id_of(&before);
    server.set_online(false);
    let during = server.connect();
    assert_eq!(*during.session().borrow(), SessionState::Connecting);
    assert_eq!(before.get(&TreePath::root()).await, Err(Error::Disconnected));
    server.set_online(true);
    assert_eq!(id_of(&before), id);
    assert_ne!(id_of(&during), id);
}

#[tokio::test]
async fn ephemerals_of_a_dropped_connection_are_deleted() {
    let server = MemoryTree::new();
    let (session, other) = (server.connect(), server.connect());
    session.create(&path("/mine"), b"", CreateMode::Ephemeral).await.expect("created");
    drop(session);
    assert_eq!(other.get(&path("/mine")).await, Ok(None));
    assert_eq!(server.sessions().len(), 1);
}

#[tokio::test]
async fn failed_multi_does_not_advance_the_sequence() {
    let server = MemoryTree::new();
    let session = server.connect();
    let sequential = || crate::tree::Op::Create {
        path: path("/n"),
        data: Vec::new(),
        mode: CreateMode::PersistentSequential,
    };
    let fails = crate::tree::Op::Check { path: path("/none"), version: Some(Version::FIRST) };
    session.multi(vec![sequential(), sequential(), fails]).await.expect_err("the check fails");
    assert_eq!(server.n_nodes(), 1);
    let created = session.create(&path("/n"), b"", CreateMode::PersistentSequential).await;
    assert_eq!(created, Ok(path("/n0000000000")));
}
