use std::{fs, sync::Arc};

use super::{restore::Restore, *};
use stormkeeper_coordination::{
    cluster::{
        record::{Defect, Drain, Stored, SupervisorAssignments, TasksRecord, TopologyRecord},
        tree_id::{FoundTree, TreeMemory, Verdict},
    },
    election::{CampaignOutcome, Candidate},
    tree::{CreateMode, Tree, Version, memory::MemoryTree},
};
use stormkeeper_model::{
    NimbusId, Port, Slot, TreeId, assignment::AssignedWorker, clock::Clock, status::TopologyStatus,
};

fn mark(id: &str) -> TreeMark {
    TreeMark { id: TreeId(id.to_owned()), term: Term(7), zxid: 900, term_created: 3 }
}

fn stored<T>(value: T) -> Stored<T> {
    Stored { value, version: Version(4) }
}

fn id(name: &str) -> TopologyId {
    format!("{name}-1-100").parse().expect("valid")
}

/// A view with an active and an inactive topology, each in one slot, and a drained host.
fn view() -> ClusterView {
    let mut view = ClusterView::default();
    for (port, name) in (6700..).zip(["first", "second"]) {
        let mut topology = TopologyRecord::sample(name);
        if name == "second" {
            topology.status = TopologyStatus::Inactive;
        }
        let tasks = serde_json::from_value(serde_json::json!({"components": {"c": "1-2"}})).expect("valid");
        let slot = Slot { supervisor: "s-1".parse().expect("valid"), port: Port(port) };
        let worker = AssignedWorker {
            host: "h".to_owned(),
            tasks: "1-2".parse().expect("valid"),
            start: Timestamp::from_millis(77),
        };
        let assignment = Assignment { workers: [(slot, worker)].into(), ..Assignment::default() };
        view.topologies.insert(id(name), stored(topology));
        view.tasks.insert(id(name), stored::<TasksRecord>(tasks));
        view.assignments.insert(id(name), stored(assignment));
    }
    let drain = serde_json::from_value(serde_json::json!({"since_ms": 5, "by": "ann"})).expect("valid");
    view.drains.insert("h2".parse().expect("valid"), stored::<Drain>(drain));
    view
}

fn copy() -> TreeCopy {
    TreeCopy::of(&view(), mark("a"), Timestamp::from_millis(5000), None)
}

fn me() -> NimbusId {
    "n".parse().expect("valid")
}

async fn restore(
    tree: &dyn Tree,
    copy: &TreeCopy,
    seen: i32,
) -> Result<restore::Restored, restore::RestoreError> {
    Restore { tree, copy, remembered: &mark("a"), seen: Term(seen), me: &me() }.run().await
}

async fn campaign(tree: &Arc<dyn Tree>, memory: &TreeMemory) -> Term {
    let (tree, api, clock) = (Arc::clone(tree), "n:1".to_owned(), Clock::new());
    let candidate = Candidate::new(tree, me(), api, memory.clone(), clock);
    match candidate.campaign(Term(0)).await.expect("the tree responds") {
        CampaignOutcome::Won(leadership) => leadership.term(),
        CampaignOutcome::Lost => panic!("lost without another candidate"),
    }
}

#[test]
fn copy_survives_the_disk_and_a_newer_format_is_not_read() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = CopyFile::of_dir(dir.path());
    assert_eq!(file.read().expect("readable"), None);
    file.write(&copy()).expect("written");
    assert_eq!(file.read().expect("readable"), Some(copy()));
    fs::write(dir.path().join(FILE), r#"{"v":9}"#).expect("written");
    assert!(file.read().expect_err("newer").to_string().contains("format 9"));
}

#[test]
fn unreadable_record_is_copied_from_the_last_copy() {
    let mut damaged = view();
    let path = layout::storm(&id("first"));
    damaged.topologies.remove(&id("first"));
    damaged.unreadable.insert(path.clone(), Defect::damage("test"));
    let kept = TreeCopy::of(&damaged, mark("a"), Timestamp::EPOCH, Some(&copy()));
    assert!(!kept.misses_topologies_of(&copy()));
    let lost = TreeCopy::of(&damaged, mark("a"), Timestamp::EPOCH, None);
    assert!(lost.misses_topologies_of(&copy()) && !copy().misses_topologies_of(&lost));
}

#[test]
fn summary_shows_what_would_come_back() {
    let summary = copy().summary(|_| false);
    let statuses: Vec<_> =
        summary.topologies.iter().map(|topology| (topology.status, topology.workers)).collect();
    assert_eq!(statuses, [(TopologyStatus::Active, 1), (TopologyStatus::Inactive, 1)]);
    assert_eq!((summary.term, summary.next_topology_number), (Term(7), 8001));
    assert_eq!(summary.drains.len(), 1);
}

#[tokio::test]
async fn empty_tree_comes_back_as_it_was_and_terms_go_on() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let restored = restore(&*tree, &copy(), 11).await.expect("restored");
    assert_eq!((restored.term, restored.topologies.len()), (Term(11), 2));
    for (path, value) in &copy().records {
        let path: TreePath = path.parse().expect("a path");
        let node = tree.get(&path).await.expect("readable").expect("restored");
        assert_eq!(&serde_json::from_slice::<Value>(&node.data).expect("JSON"), value, "{path}");
    }
    let path = layout::supervisor_assignments(&"s-1".parse().expect("valid"));
    let node = tree.get(&path).await.expect("readable").expect("restored");
    let assigned: SupervisorAssignments = record::decode(&path, &node.data).expect("valid");
    assert_eq!(assigned.topologies, [(id("first"), Version(0)), (id("second"), Version(0))].into());
    // Daemons that remember the lost tree accept the recovered one.
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("tree"), record::encode(&mark("a"))).expect("written");
    let memory = TreeMemory::load(dir.path(), Clock::new()).expect("readable");
    let found = FoundTree::read(&*tree).await.expect("readable");
    assert!(matches!(memory.compare(&found), Verdict::Known(known) if known.id == restored.tree));
    assert_eq!(campaign(&tree, &memory).await, Term(12));
}

#[tokio::test]
async fn distant_terms_are_reached_and_impossible_ones_are_refused() {
    let tree: Arc<dyn Tree> = MemoryTree::new().connect();
    let forged = restore(&*tree, &copy(), 2_147_483_000).await.expect_err("would take hours");
    assert!(forged.to_string().contains("the field `term` in the file `tree`"), "{forged}");
    let found = FoundTree::read(&*tree).await.expect("readable");
    assert_eq!(found.identity, None, "until the end the tree is another one for every daemon");
    assert_eq!(restore(&*tree, &copy(), 5_000).await.expect("restored").term, Term(5_000));
    let found = FoundTree::read(&*tree).await.expect("readable");
    assert_eq!(found.term.map(|(version, _)| version), Some(Version(5_000)));
}

#[tokio::test]
async fn restore_that_was_interrupted_is_run_again() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let first = restore(&*tree, &copy(), 0).await.expect("restored");
    tree.delete(&layout::tree_id(), None).await.expect("as if it was not written");
    let second = restore(&*tree, &copy(), 0).await.expect("restored again");
    assert_ne!(first.tree, second.tree);
    assert!(second.term > first.term);
}

#[tokio::test]
async fn older_copy_of_the_tree_is_brought_up_to_date() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    let older = TreeCopy {
        records: [("/storms/gone-1-50".to_owned(), copy().records["/storms/first-1-100"].clone())].into(),
        ..copy()
    };
    restore(&*tree, &older, 0).await.expect("restored");
    // It has the id of the remembered tree.
    let identity = serde_json::json!({"v": 1, "id": "a", "term": 3});
    tree.set(&layout::tree_id(), identity.to_string().as_bytes(), None).await.expect("written");
    restore(&*tree, &copy(), 0).await.expect("restored");
    let names = tree.children(&layout::storms()).await.expect("readable").expect("there");
    assert_eq!(names, ["first-1-100", "second-1-100"]);
}

#[tokio::test]
async fn tree_of_another_cluster_is_not_overwritten() {
    let server = MemoryTree::new();
    let tree: Arc<dyn Tree> = server.connect();
    tree.create(&layout::storms(), b"", CreateMode::Persistent).await.expect("created");
    let other = layout::storms().child("other-1-9").expect("valid");
    tree.create(&other, b"", CreateMode::Persistent).await.expect("created");
    let n_nodes = server.n_nodes();
    let refused = restore(&*tree, &copy(), 0).await.expect_err("another cluster").to_string();
    assert!(refused.contains("other-1-9"), "{refused}");
    assert_eq!(server.n_nodes(), n_nodes);
}

#[tokio::test]
async fn tree_that_a_nimbus_without_memory_began_is_recovered_and_its_leader_deposed() {
    let server = MemoryTree::new();
    let (tree, other): (Arc<dyn Tree>, Arc<dyn Tree>) = (server.connect(), server.connect());
    let memory = TreeMemory::of_process(Clock::new());
    let candidate = Candidate::new(
        Arc::clone(&other),
        "new".parse().expect("valid"),
        "new:1".to_owned(),
        memory,
        Clock::new(),
    );
    let Ok(CampaignOutcome::Won(leader)) = candidate.campaign(Term(0)).await else { panic!("lost") };
    let began = FoundTree::read(&*tree).await.expect("readable").mark().expect("it has an id");
    restore(&*tree, &copy(), 0).await.expect("restored");
    leader.writer().commit(Vec::new()).await.expect_err("deposed");
    let found = FoundTree::read(&*tree).await.expect("readable");
    let succeeds = found.identity.expect("restored").succeeds;
    assert!(succeeds.contains(&began.id) && succeeds.contains(&mark("a").id), "{succeeds:?}");
}
