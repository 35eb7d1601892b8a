//! Tests of the checker: violations that it must find.

use stormkeeper_coordination::cluster::layout;

use super::*;

const NIMBUS_A: i64 = 0xa;
const NIMBUS_B: i64 = 0xb;

fn create(path: &str, data: &str) -> Op {
    Op::Create { path: format!("{ROOT}{path}"), data: data.into(), is_ephemeral: false }
}

fn ephemeral(path: &str) -> Op {
    Op::Create { path: format!("{ROOT}{path}"), data: Vec::new(), is_ephemeral: true }
}

fn check(term: i32) -> Op {
    Op::Check { path: format!("{ROOT}/term"), version: term }
}

fn set_term(term: i32, nimbus: &str) -> Op {
    let data = format!(r#"{{"v":1,"term":{term},"nimbus":"{nimbus}"}}"#).into_bytes();
    Op::Set { path: format!("{ROOT}/term"), data, version: term }
}

fn election(term: i32, nimbus: &str) -> Vec<Op> {
    vec![ephemeral("/leader"), set_term(term, nimbus)]
}

/// Checks a history of two registered nimbuses in which A wins term 1 and `then` follows.
fn check_history(then: &[(i64, Vec<Op>)]) -> History {
    let begin = [
        (NIMBUS_A, vec![ephemeral("/nimbuses/a")]),
        (NIMBUS_B, vec![ephemeral("/nimbuses/b")]),
        (NIMBUS_A, election(1, "a")),
    ];
    let all = begin.iter().chain(then);
    let transactions =
        all.map(|(session, ops)| Transaction { session: *session, change: Change::Ops(ops.clone()) });
    History::check(&(1..).zip(transactions).collect())
}

/// Asserts that there is exactly one violation and that its text contains `expected`.
fn expect(expected: &str, then: &[(i64, Vec<Op>)]) {
    let violations = check_history(then).violations;
    assert!(matches!(&violations[..], [only] if only.contains(expected)), "{expected}: {violations:?}");
}

fn assignment(slot: u16) -> String {
    format!(r#"{{"v":1,"workers":[{{"supervisor":"s","port":{slot}}}]}}"#)
}

#[test]
fn valid_leaders_cause_no_violation() {
    let history = check_history(&[
        // Fixed znodes need no term.
        (NIMBUS_B, vec![create("/layout", "{}")]),
        (7, vec![create("/storms", "")]),
        (NIMBUS_A, vec![check(1), create("/metric-log", "{}")]),
        (NIMBUS_A, vec![check(1), create("/storms/t-1", "")]),
        (7, vec![ephemeral("/taskbeats/t-1/1"), create("/taskerrors/t-1/1", "")]),
        (NIMBUS_A, vec![check(1), create("/assignments/t-1", &assignment(1))]),
        (NIMBUS_B, election(2, "b")),
        (NIMBUS_B, vec![check(2), Op::Delete { path: format!("{ROOT}/assignments/t-1") }]),
        (NIMBUS_B, vec![check(2), create("/assignments/t-2", &assignment(1))]),
    ]);
    history.assert_valid();
    let writes = |term| history.terms.get(&term).map(|record| (record.nimbus.as_str(), record.n_writes));
    assert_eq!((writes(1), writes(2)), (Some(("a", 3)), Some(("b", 2))));
    assert_eq!(history.submitted, BTreeMap::from([("t-1".to_owned(), 1)]));
}

#[test]
fn unfenced_writes_are_violations() {
    expect("is not fenced", &[(NIMBUS_A, vec![create("/storms/t-1", "")])]);
    expect("is not fenced", &[(NIMBUS_A, vec![create("/storms/t-1", ""), check(1)])]);
    expect("is not fenced", &[(NIMBUS_A, vec![create("/taskbeats/t-1", "")])]);
    expect("is not fenced", &[(NIMBUS_A, vec![create("/something/new", "")])]);
    expect("is not fenced", &[(NIMBUS_B, vec![Op::Delete { path: format!("{ROOT}/leader") }])]);
}

#[test]
fn unknown_top_level_znodes_belong_to_the_leader() {
    expect("is not fenced", &[(NIMBUS_A, vec![create("/metric-log", "{}")])]);
    expect("is not fenced", &[(NIMBUS_A, vec![create("/something-new", "{}")])]);
    expect("is not fenced", &[(7, vec![ephemeral("/something-new")])]);
}

#[test]
fn fixed_znodes_are_the_layout_and_the_parents_of_records() {
    let roots = layout::top_level();
    let expected = std::iter::once("layout").chain(roots.iter().map(|root| root.name()));
    assert_eq!(FIXED, expected.collect::<Vec<_>>());
}

#[test]
fn changes_of_fixed_znodes_are_violations() {
    let set = Op::Set { path: format!("{ROOT}/layout"), data: b"{}".to_vec(), version: 1 };
    expect("changes a fixed znode", &[(NIMBUS_A, vec![check(1), set])]);
    expect("changes a fixed znode", &[(7, vec![Op::Delete { path: format!("{ROOT}/blobs") }])]);
}

#[test]
fn writes_by_a_nimbus_that_does_not_lead_are_violations() {
    expect("is written by b, and a leads", &[(NIMBUS_B, vec![check(1), create("/storms/t-1", "")])]);
    let late = [(NIMBUS_B, election(2, "b")), (NIMBUS_A, vec![check(2), create("/storms/t-1", "")])];
    expect("is written by a, and b leads", &late);
    let old = [(NIMBUS_B, election(2, "b")), (NIMBUS_B, vec![check(1), create("/storms/t-1", "")])];
    expect("is written under 1 in term 2", &old);
}

#[test]
fn incomplete_elections_are_violations() {
    expect("creates no ephemeral /leader", &[(NIMBUS_B, vec![set_term(2, "b")])]);
    expect("follows term 1 with 3", &[(NIMBUS_B, election(3, "b"))]);
    expect("is not fenced", &[(NIMBUS_B, vec![ephemeral("/leader")])]);
    expect("is written by b, and a leads", &[(NIMBUS_B, election(2, "a"))]);
}

#[test]
fn doubly_assigned_slots_and_repeated_submits_are_violations() {
    let write = |name: &str| (NIMBUS_A, vec![check(1), create(name, &assignment(1))]);
    expect("which t-1 has", &[write("/assignments/t-1"), write("/assignments/t-2")]);
    expect("a second time, after term 1", &[write("/storms/t-1"), write("/storms/t-1")]);
}
