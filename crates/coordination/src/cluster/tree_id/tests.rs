use super::*;
use stormkeeper_model::clock::Clock;

fn id(text: &str) -> TreeId {
    TreeId(text.to_owned())
}

fn mark(term: i32, zxid: i64) -> TreeMark {
    TreeMark { id: id("a"), term: Term(term), zxid, term_created: 5 }
}

fn found(name: &str, term: i32, zxid: i64) -> FoundTree {
    let identity = TreeIdentity {
        id: id(name),
        term: Term(term),
        succeeds: Vec::new(),
        unknown_fields: UnknownFields::new(),
    };
    FoundTree {
        identity: Some(identity),
        zxid,
        version: Some(Version(1)),
        term: Some((Version(term), 5)),
        ..FoundTree::default()
    }
}

#[test]
fn daemon_that_remembers_nothing_takes_any_tree() {
    assert_eq!(compare(None, &found("a", 3, 90)), Verdict::Known(mark(3, 90)));
    let unnamed = FoundTree { identity: None, ..found("a", 3, 90) };
    assert_eq!(compare(None, &unnamed), Verdict::Unnamed);
    assert_eq!(compare(None, &FoundTree { is_empty: true, ..FoundTree::default() }), Verdict::Unnamed);
}

#[test]
fn other_trees_and_older_copies_are_foreign() {
    let remembered = mark(3, 90);
    let check = |found: &FoundTree, difference: Option<Difference>| {
        let verdict = compare(Some(&remembered), found);
        let expected = difference.map_or_else(|| verdict.clone(), Verdict::Foreign);
        assert_eq!(verdict, expected);
        assert!(!matches!((&verdict, found.is_empty), (Verdict::Known(_) | Verdict::Unnamed, true)));
    };
    check(&FoundTree { is_empty: true, ..FoundTree::default() }, Some(Difference::Empty));
    check(&found("b", 9, 900), Some(Difference::OtherId(id("b"))));
    check(&found("a", 2, 900), Some(Difference::EarlierTerm(Term(2))));
    check(&found("a", 3, 89), Some(Difference::EarlierChange(89)));
    let unnamed = FoundTree { identity: None, term: Some((Version(9), 6)), ..found("a", 9, 900) };
    check(&unnamed, Some(Difference::NoId));
    check(&FoundTree { term: None, ..unnamed }, Some(Difference::NoId));
    for same in [found("a", 3, 90), found("a", 4, 95)] {
        assert!(matches!(compare(Some(&remembered), &same), Verdict::Known(_)), "{same:?}");
    }
}

#[test]
fn deleted_id_is_no_other_tree_while_the_term_goes_on() {
    let deleted = |term| FoundTree { identity: None, version: None, ..found("a", term, 0) };
    assert_eq!(compare(Some(&mark(3, 90)), &deleted(3)), Verdict::Unnamed);
    assert_eq!(compare(Some(&mark(3, 90)), &deleted(2)), Verdict::Foreign(Difference::NoId));
}

#[test]
fn deleted_term_is_no_other_tree() {
    let deleted = FoundTree { term: None, ..found("a", 3, 91) };
    assert!(matches!(compare(Some(&mark(3, 90)), &deleted), Verdict::Known(_)));
}

#[test]
fn recovered_tree_is_known_to_those_that_remember_the_lost_one() {
    let mut recovered = found("c", 3, 4);
    recovered.identity.as_mut().expect("set").succeeds = vec![id("b"), id("a")];
    let Verdict::Known(now) = compare(Some(&mark(3, 90)), &recovered) else { panic!("refused") };
    assert_eq!((now.id, now.zxid), (id("c"), 4));
}

#[test]
fn text_says_what_is_wrong_and_what_to_do() {
    let differences = [
        (Difference::Empty, "lost its data"),
        (Difference::NoId, "another tree"),
        (Difference::OtherId(id("b")), "another tree"),
        (Difference::EarlierTerm(Term(1)), "older copy"),
        (Difference::EarlierChange(7), "transaction 0x7"),
    ];
    for (difference, text) in differences {
        let foreign = ForeignTree { root: TreePath::root(), remembered: mark(3, 90), difference };
        assert!(foreign.to_string().contains(text), "{foreign}");
        assert!(foreign.advice().contains("stormkeeper recover"), "{}", foreign.advice());
    }
}

#[tokio::test]
async fn memory_survives_a_restart_and_a_damaged_file_is_not_forgotten() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let load = || TreeMemory::load(dir.path(), Clock::new());
    let memory = load().expect("no file yet");
    assert_eq!(memory.mark(), None);
    memory.accept(Some(mark(3, 90))).await;
    memory.accept(Some(mark(4, 90))).await;
    assert_eq!(load().expect("readable").mark(), Some(mark(4, 90)));
    // Only the transaction has moved: the file is not written again so soon.
    memory.accept(Some(mark(4, 95))).await;
    assert_eq!(memory.mark(), Some(mark(4, 95)));
    assert_eq!(load().expect("readable").mark(), Some(mark(4, 90)));
    std::fs::write(dir.path().join("tree"), "").expect("written");
    let error = load().expect_err("damaged").to_string();
    assert!(error.contains("delete it"), "{error}");
}

#[tokio::test]
async fn memory_that_could_not_be_written_yet_is_written_and_is_not_a_deleted_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("supervisor");
    std::fs::create_dir(&place).expect("created");
    let memory = TreeMemory::load(&place, Clock::new()).expect("none yet");
    std::fs::remove_dir(&place).expect("removed");
    memory.accept(Some(mark(3, 90))).await;
    std::fs::create_dir(&place).expect("created");
    assert!(!memory.put_back().expect("written"), "nothing was deleted");
    let read = TreeMemory::load(&place, Clock::new()).expect("read");
    assert_eq!(read.mark(), Some(mark(3, 90)));
}

/// A daemon that starts without the file would take any tree for its own.
#[tokio::test]
async fn deleted_memory_of_a_running_daemon_is_put_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let memory = TreeMemory::load(dir.path(), Clock::new()).expect("none yet");
    assert!(!memory.put_back().expect("nothing is remembered"));
    memory.accept(Some(mark(3, 90))).await;
    // Only the transaction has moved, so the file is older than the memory.
    memory.accept(Some(mark(3, 95))).await;
    assert!(!memory.put_back().expect("whole"));
    std::fs::remove_file(dir.path().join(MEMORY_FILE)).expect("deleted");
    assert!(memory.put_back().expect("put back"));
    let read = TreeMemory::load(dir.path(), Clock::new()).expect("read");
    assert_eq!(read.mark(), Some(mark(3, 95)));
}
