use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::*;
use crate::{
    cluster::{
        layout, record,
        tree_id::{FoundTree, TreeIdentity, TreeMemory},
    },
    tree::{
        self, CreateMode, Op, Tree, TreePath,
        faulty::{FaultPlan, FaultyTree, TreeFault},
        memory::MemoryTree,
    },
};
use stormkeeper_model::{NimbusId, Term, TreeId, clock::Clock};
use stormkeeper_runtime::test_support::wait_until;

const WAIT_MAX: Duration = Duration::from_secs(20);

fn nimbus(name: &str) -> NimbusId {
    name.parse().expect("valid id")
}

fn candidate(tree: &Arc<dyn Tree>, name: &str) -> Candidate {
    remembering(tree, name, TreeMemory::of_process(Clock::new()))
}

fn remembering(tree: &Arc<dyn Tree>, name: &str, memory: TreeMemory) -> Candidate {
    Candidate::new(Arc::clone(tree), nimbus(name), format!("{name}:8080"), memory, Clock::new())
}

async fn win(candidate: &Candidate) -> Leadership {
    match candidate.campaign(Term(0)).await.expect("the tree responds") {
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
    assert!(matches!(candidate(&b, "b").campaign(Term(0)).await, Ok(CampaignOutcome::Lost)));
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
    assert!(matches!(candidate(&before, "b").campaign(Term(0)).await, Ok(CampaignOutcome::Lost)));
}

#[tokio::test]
async fn leader_that_may_not_read_the_term_is_not_deposed() {
    let faulty = FaultyTree::new(MemoryTree::new().connect(), FaultPlan::none());
    let leader = win(&candidate(&(Arc::clone(&faulty) as Arc<dyn Tree>), "a")).await;
    let denied = Box::new(tree::Error::NotAuthorized { path: Some(layout::term()) });
    let fault = TreeFault::Refused(tree::Error::Multi { index: 0, source: denied });
    faulty.set_plan(FaultPlan::none().fail_nth_write(1, fault));
    let refused = leader.writer().commit(vec![create_op("x")]).await.expect_err("denied");
    assert!(matches!(refused, WriteError::NotSent(tree::Error::NotAuthorized { .. })), "{refused}");
    leader.writer().commit(vec![create_op("x")]).await.expect("the leader still leads");
    assert!(leader.lost().now_or_never().is_none());
}

#[tokio::test]
async fn leader_writes_a_changed_leader_znode_again_and_can_resign_afterwards() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let leader = win(&candidate(&a, "a")).await;
    let read = async || b.get(&layout::leader()).await.expect("readable").expect("there").data;
    let before = read().await;
    for content in [&b"garbage"[..], b"", br#"{"v":1,"nimbus":"b","api":"b:8080","term":9}"#] {
        b.set(&layout::leader(), content, None).await.expect("written by hand");
        let restored = wait_until("the content is back", WAIT_MAX, async || {
            let now = read().await;
            if now == before { Ok(()) } else { Err(format!("{now:?}")) }
        });
        tokio::select! {
            () = leader.lost() => panic!("the leadership has not ended"),
            () = restored => {}
        }
    }
    leader.resign().await;
    assert_eq!(win(&candidate(&b, "b")).await.term(), Term(2));
}

#[tokio::test]
async fn leader_znode_that_no_session_owns_does_not_prevent_an_election() {
    for content in [&b"garbage"[..], br#"{"v":1,"nimbus":"b","api":"b:8080","term":9}"#] {
        let tree: Arc<dyn Tree> = MemoryTree::new().connect();
        win(&candidate(&tree, "b")).await.resign().await;
        tree.create(&layout::leader(), content, CreateMode::Persistent).await.expect("created by hand");
        assert!(!candidate(&tree, "a").remove_stale_leader().await.expect("the tree responds"));
        tree.create(&layout::leader(), content, CreateMode::Persistent).await.expect("created by hand");
        assert_eq!(win(&candidate(&tree, "a")).await.term(), Term(2));
    }
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

async fn identity(tree: &Arc<dyn Tree>) -> TreeIdentity {
    let node = tree.get(&layout::tree_id()).await.expect("readable").expect("there");
    record::decode(&layout::tree_id(), &node.data).expect("valid")
}

#[tokio::test]
async fn first_leader_creates_the_id_and_later_leaders_keep_it() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let first = win(&candidate(&a, "a")).await;
    let created = identity(&a).await;
    assert_eq!(created.term, Term(1));
    first.resign().await;
    let _second = win(&candidate(&b, "b")).await;
    assert_eq!(identity(&a).await, TreeIdentity { term: Term(2), ..created });
}

#[tokio::test]
async fn candidate_does_not_lead_on_another_tree() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    win(&candidate(&tree, "a")).await.resign().await;
    let (memory, mut other) =
        (TreeMemory::of_process(Clock::new()), FoundTree::read(&*tree).await.expect("read"));
    other.identity.as_mut().expect("there").id = TreeId("other".to_owned());
    memory.accept(other.mark()).await;
    let n_nodes = server.n_nodes();
    let refused = remembering(&tree, "b", memory).campaign(Term(0)).await;
    assert_eq!(refused.expect_err("another tree"), crate::tree::Error::Disconnected);
    assert_eq!(server.n_nodes(), n_nodes);
}

#[tokio::test]
async fn deleted_id_comes_back_with_the_next_election() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let leader = win(&candidate(&tree, "a")).await;
    let (before, memory) = (identity(&tree).await, TreeMemory::of_process(Clock::new()));
    memory.accept(FoundTree::read(&*tree).await.expect("read").mark()).await;
    tree.delete(&layout::tree_id(), None).await.expect("deleted by hand");
    leader.resign().await;
    win(&remembering(&tree, "a", memory)).await;
    assert_eq!(identity(&tree).await.id, before.id);
}

/// Elects leaders until `term`, and deletes `/term` and `/leader` by hand while the last one is
/// frozen. Returns the frozen leader.
async fn frozen_leader_of_a_deleted_term(tree: &Arc<dyn Tree>, term: i32) -> Leadership {
    for _ in 1..term {
        win(&candidate(tree, "a")).await.resign().await;
    }
    let frozen = win(&candidate(tree, "a")).await;
    assert_eq!(frozen.term(), Term(term));
    tree.delete(&layout::leader(), None).await.expect("deleted by hand");
    tree.delete(&layout::term(), None).await.expect("deleted by hand");
    frozen
}

#[tokio::test]
async fn term_that_no_election_can_have_had_is_ignored() {
    let tree: Arc<dyn Tree> = MemoryTree::new().connect();
    win(&candidate(&tree, "a")).await.resign().await;
    let forged = Term(2_147_483_000);
    let Ok(CampaignOutcome::Won(leader)) = candidate(&tree, "a").campaign(forged).await else {
        panic!("nobody else leads")
    };
    assert_eq!(leader.term(), Term(2), "a term from /leader or an event");
    leader.resign().await;

    let found = FoundTree::read(&*tree).await.expect("readable");
    let identity = TreeIdentity { term: forged, ..found.identity.expect("written by the election") };
    tree.set(&layout::tree_id(), &record::encode(&identity), None).await.expect("written by hand");
    assert_eq!(win(&candidate(&tree, "a")).await.term(), Term(3), "a term from /tree-id");
    let found = FoundTree::read(&*tree).await.expect("readable");
    assert_eq!(
        found.identity.map(|identity| identity.term),
        Some(Term(3)),
        "the election has written it again"
    );
}

#[tokio::test]
async fn deleted_term_goes_on_above_the_terms_before_and_fences_their_leaders() {
    let server = MemoryTree::new();
    let (a, b): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let frozen = frozen_leader_of_a_deleted_term(&a, 3).await;
    // The term in /tree-id is enough: this candidate remembers nothing.
    let leader = win(&candidate(&b, "b")).await;
    assert_eq!(leader.term(), Term(4));
    for _ in 0..6 {
        let refused = frozen.writer().commit(vec![create_op("frozen")]).await.expect_err("deposed");
        assert!(matches!(refused, WriteError::Deposed { term: Term(3) }), "{refused}");
        b.delete(&layout::leader(), None).await.expect("deleted by hand");
        win(&candidate(&b, "b")).await;
    }
}

#[tokio::test]
async fn deleted_term_goes_on_above_the_remembered_and_the_seen_term() {
    for (remembered, seen, next) in [(9, 0, 10), (0, 12, 13), (9, 12, 13), (20_000, 0, 20_001)] {
        let server = MemoryTree::new();
        let tree: Arc<dyn Tree> = server.connect();
        let _frozen = frozen_leader_of_a_deleted_term(&tree, 3).await;
        let (memory, found) =
            (TreeMemory::of_process(Clock::new()), FoundTree::read(&*tree).await.expect("read"));
        if remembered > 0 {
            let mark = found.mark().expect("there is an id");
            memory.accept(Some(crate::cluster::tree_id::TreeMark { term: Term(remembered), ..mark })).await;
            // The id comes back with the term that was remembered, as an older build leaves it.
            let data = record::encode(&TreeIdentity { term: Term(remembered), ..identity(&tree).await });
            tree.set(&layout::tree_id(), &data, None).await.expect("written");
        }
        let won = remembering(&tree, "a", memory).campaign(Term(seen)).await.expect("the tree responds");
        let CampaignOutcome::Won(leader) = won else { panic!("lost without another candidate") };
        assert_eq!(leader.term(), Term(next));
        let version = tree.get(&layout::term()).await.expect("readable").expect("there").stat.version;
        assert_eq!(version.0, next);
    }
}

#[tokio::test]
async fn leader_puts_a_deleted_or_damaged_id_back() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let leader = win(&candidate(&tree, "a")).await;
    let (before, memory) = (identity(&tree).await, TreeMemory::of_process(Clock::new()));
    memory.accept(FoundTree::read(&*tree).await.expect("read").mark()).await;
    let tasks = stormkeeper_runtime::tasks::Tasks::default();
    let keep = keep_tree_id(leader.writer(), Arc::clone(&tree) as _, memory);
    tasks.start("tree id", stormkeeper_runtime::tasks::OnExit::Ignore, keep);
    for is_deleted in [true, false] {
        match is_deleted {
            true => tree.delete(&layout::tree_id(), None).await.expect("deleted by hand"),
            false => drop(tree.set(&layout::tree_id(), b"{", None).await.expect("written by hand")),
        }
        wait_until("the id is back", WAIT_MAX, async || {
            let found = FoundTree::read(&*tree).await.map_err(|error| error.to_string())?;
            if found.identity.as_ref() == Some(&before) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}

/// A copy of the tree from before a submit must not look like the latest state.
#[tokio::test(start_paused = true)]
async fn leader_marks_the_tree_after_each_change_of_the_topologies() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let leader = win(&candidate(&tree, "a")).await;
    tree.create(&layout::storms(), b"", CreateMode::Persistent).await.expect("created");
    let memory = TreeMemory::of_process(Clock::new());
    memory.accept(FoundTree::read(&*tree).await.expect("read").mark()).await;
    let tasks = stormkeeper_runtime::tasks::Tasks::default();
    let keep = keep_tree_id(leader.writer(), Arc::clone(&tree) as _, memory.clone());
    tasks.start("tree id", stormkeeper_runtime::tasks::OnExit::Ignore, keep);
    let topology = layout::storm(&"wc-1-1".parse().expect("an id"));
    for is_submitted in [true, false] {
        match is_submitted {
            true => drop(tree.create(&topology, b"{}", CreateMode::Persistent).await.expect("submitted")),
            false => tree.delete(&topology, None).await.expect("ended"),
        }
        let changed = tree.get(&layout::storms()).await.expect("readable").expect("there").stat;
        wait_until("the mark is later than the change", WAIT_MAX, async || {
            let found = FoundTree::read(&*tree).await.map_err(|error| error.to_string())?;
            let is_later = found.zxid > changed.modified.max(memory.mark().expect("remembered").zxid);
            if is_later { Ok(()) } else { Err(format!("{found:?} {changed:?}")) }
        })
        .await;
        memory.accept(FoundTree::read(&*tree).await.expect("read").mark()).await;
    }
}

#[tokio::test]
async fn candidate_says_so_if_neither_the_id_nor_the_term_is_left() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let leader = win(&candidate(&tree, "a")).await;
    let memory = TreeMemory::of_process(Clock::new());
    memory.accept(FoundTree::read(&*tree).await.expect("read").mark()).await;
    for path in [layout::tree_id(), layout::term(), layout::leader()] {
        tree.delete(&path, None).await.expect("deleted by hand");
    }
    drop(leader);
    remembering(&tree, "a", memory.clone()).campaign(Term(0)).await.expect_err("another tree");
    assert!(memory.foreign().borrow().is_some());
}
