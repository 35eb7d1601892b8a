use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    cluster::layout,
    tree::{CreateMode, Op, Tree, TreePath, memory::MemoryTree},
};
use stormkeeper_model::{NimbusId, Term, clock::Clock};
use stormkeeper_runtime::test_support::wait_until;

const WAIT_MAX: Duration = Duration::from_secs(20);

fn nimbus(name: &str) -> NimbusId {
    name.parse().expect("valid id")
}

fn candidate(tree: &Arc<dyn Tree>, name: &str) -> Candidate {
    Candidate::new(Arc::clone(tree), nimbus(name), format!("{name}:8080"), Clock::new())
}

async fn win(candidate: &Candidate) -> Leadership {
    match candidate.campaign().await.expect("the tree responds") {
        CampaignOutcome::Won(leadership) => leadership,
        CampaignOutcome::Lost => panic!("lost an election without another candidate"),
    }
}

fn create_op(text: &str) -> Op {
    let path: TreePath = format!("/{text}").parse().expect("valid path");
    Op::Create { path, data: Vec::new(), mode: CreateMode::Persistent }
}

#[tokio::test]
async fn second_candidate_loses_until_the_leader_resigns() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let first = win(&candidate(&a, "a")).await;
    assert!(matches!(candidate(&b, "b").campaign().await, Ok(CampaignOutcome::Lost)));
    assert_eq!(first.term(), Term(1));
    first.resign().await;
    assert_eq!(win(&candidate(&b, "b")).await.term(), Term(2));
}

#[tokio::test]
async fn write_of_a_deposed_leader_has_no_effect() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let old = win(&candidate(&a, "a")).await;
    old.writer().commit(vec![create_op("before")]).await.expect("the leader may write");
    // The deposed leader keeps its session and does not read /leader: only the fence stops its writes.
    a.delete(&layout::leader(), None).await.expect("deleted by hand");
    let new = win(&candidate(&b, "b")).await;
    let refused = old.writer().commit(vec![create_op("after")]).await.expect_err("deposed");
    assert!(matches!(refused, WriteError::Deposed { term: Term(1) }), "{refused}");
    assert_eq!(a.get(&"/after".parse().expect("valid path")).await.expect("readable"), None);
    new.writer().commit(vec![create_op("new")]).await.expect("the new leader may write");
    tokio::time::timeout(WAIT_MAX, old.lost())
        .await
        .expect("the deposed leader detects the end of its leadership");
}

#[tokio::test]
async fn rejected_operation_is_reported_by_the_index_of_the_caller() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let leader = win(&candidate(&tree, "a")).await;
    let refused = leader.writer().commit(vec![create_op("x"), create_op("x")]).await.expect_err("twice");
    assert!(matches!(refused, WriteError::Op { index: 1, .. }), "{refused}");
}

#[tokio::test]
async fn expired_session_ends_the_leadership() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let leader = win(&candidate(&tree, "a")).await;
    let session = tree.session().borrow().connected().expect("connected");
    server.expire(session);
    tokio::time::timeout(WAIT_MAX, leader.lost()).await.expect("noticed");
    wait_until("the new session", WAIT_MAX, async || match tree.session().borrow().connected() {
        Some(new) if new != session => Ok(()),
        state => Err(format!("{state:?}")),
    })
    .await;
    assert_eq!(win(&candidate(&tree, "a")).await.term(), Term(2));
}

#[tokio::test]
async fn restarted_nimbus_replaces_the_leader_znode_of_its_former_session() {
    let server = MemoryTree::new();
    let (before, after): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let former = win(&candidate(&before, "a")).await;
    let leader = win(&candidate(&after, "a")).await;
    assert_eq!(leader.term(), Term(2));
    assert!(former.writer().commit(vec![create_op("x")]).await.is_err());
    assert!(matches!(candidate(&before, "b").campaign().await, Ok(CampaignOutcome::Lost)));
}

#[tokio::test]
async fn late_resignation_does_not_depose_the_successor() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let old = win(&candidate(&a, "a")).await;
    a.delete(&layout::leader(), None).await.expect("deleted by hand");
    let _new = win(&candidate(&b, "b")).await;
    old.resign().await;
    assert!(a.get(&layout::leader()).await.expect("readable").is_some());
}
