use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    clock::Clock,
    cluster::layout,
    model::{NimbusId, Term},
    test_support::wait_until,
    tree::{CreateMode, Op, Tree, TreePath, memory::MemoryTree},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn nimbus(name: &str) -> NimbusId {
    name.parse().expect("valid id")
}

fn candidate(tree: &Arc<dyn Tree>, name: &str) -> Candidate {
    Candidate::new(Arc::clone(tree), nimbus(name), format!("{name}:8080"), Clock::new())
}

async fn win(candidate: &Candidate) -> Leadership {
    match candidate.campaign().await.expect("the tree answers") {
        Campaign::Won(leadership) => leadership,
        Campaign::Lost => panic!("lost an election that nobody else stood for"),
    }
}

fn mark(text: &str) -> Op {
    let path: TreePath = format!("/{text}").parse().expect("valid path");
    Op::Create { path, data: Vec::new(), mode: CreateMode::Persistent }
}

#[tokio::test]
async fn one_wins_and_the_other_loses_until_it_resigns() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let first = win(&candidate(&a, "a")).await;
    assert!(matches!(candidate(&b, "b").campaign().await, Ok(Campaign::Lost)));
    assert_eq!(first.term(), Term(1));
    first.resign().await;
    assert_eq!(win(&candidate(&b, "b")).await.term(), Term(2));
}

#[tokio::test]
async fn no_write_of_an_old_term_lands() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let old = win(&candidate(&a, "a")).await;
    old.writer().commit(vec![mark("before")]).await.expect("the leader may write");
    // The old leader's session lives on and it does not look: only the fence stops it.
    a.delete(&layout::leader(), None).await.expect("deleted by hand");
    let new = win(&candidate(&b, "b")).await;
    let refused = old.writer().commit(vec![mark("after")]).await.expect_err("deposed");
    assert!(matches!(refused, WriteError::Deposed { term: Term(1) }), "{refused}");
    assert_eq!(a.get(&"/after".parse().expect("valid path")).await.expect("readable"), None);
    new.writer().commit(vec![mark("new")]).await.expect("the new leader may write");
    tokio::time::timeout(PATIENCE, old.lost()).await.expect("a deposed leader notices");
}

#[tokio::test]
async fn a_refused_operation_is_named_as_the_caller_counts() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let leader = win(&candidate(&tree, "a")).await;
    let refused = leader.writer().commit(vec![mark("x"), mark("x")]).await.expect_err("twice");
    assert!(matches!(refused, WriteError::Op { index: 1, .. }), "{refused}");
}

#[tokio::test]
async fn an_expired_session_ends_the_leadership() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let leader = win(&candidate(&tree, "a")).await;
    let session = tree.session().borrow().connected().expect("connected");
    server.expire(session);
    tokio::time::timeout(PATIENCE, leader.lost()).await.expect("noticed");
    wait_until("the new session", PATIENCE, async || match tree.session().borrow().connected() {
        Some(new) if new != session => Ok(()),
        state => Err(format!("{state:?}")),
    })
    .await;
    assert_eq!(win(&candidate(&tree, "a")).await.term(), Term(2));
}

#[tokio::test]
async fn a_restarted_nimbus_takes_over_from_its_own_former_session() {
    let server = MemoryTree::new();
    let (before, after): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let former = win(&candidate(&before, "a")).await;
    let leader = win(&candidate(&after, "a")).await;
    assert_eq!(leader.term(), Term(2));
    assert!(former.writer().commit(vec![mark("x")]).await.is_err());
    assert!(matches!(candidate(&before, "b").campaign().await, Ok(Campaign::Lost)));
}

#[tokio::test]
async fn a_successor_is_not_unseated_by_a_late_resignation() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let old = win(&candidate(&a, "a")).await;
    a.delete(&layout::leader(), None).await.expect("deleted by hand");
    let _new = win(&candidate(&b, "b")).await;
    old.resign().await;
    assert!(a.get(&layout::leader()).await.expect("readable").is_some());
}
