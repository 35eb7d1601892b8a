//! The judge itself: what it must find.

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

/// What the judge says of these transactions, after two nimbuses have shown themselves and
/// the first one won term 1.
fn judge(then: &[(i64, Vec<Op>)]) -> History {
    let begin = [
        (NIMBUS_A, vec![ephemeral("/nimbuses/a")]),
        (NIMBUS_B, vec![ephemeral("/nimbuses/b")]),
        (NIMBUS_A, election(1, "a")),
    ];
    let all = begin.iter().chain(then);
    let transactions =
        all.map(|(session, ops)| Transaction { session: *session, change: Change::Ops(ops.clone()) });
    History::judge(&(1..).zip(transactions).collect())
}

/// Expects one violation, which says `expected`.
fn expect(expected: &str, then: &[(i64, Vec<Op>)]) {
    let violations = judge(then).violations;
    assert!(matches!(&violations[..], [only] if only.contains(expected)), "{expected}: {violations:?}");
}

fn assignment(slot: u16) -> String {
    format!(r#"{{"v":1,"workers":[{{"supervisor":"s","port":{slot}}}]}}"#)
}

#[test]
fn lawful_leaders_are_acquitted() {
    let history = judge(&[
        (NIMBUS_A, vec![check(1), create("/storms/t-1", "")]),
        (7, vec![ephemeral("/taskbeats/t-1/1"), create("/taskerrors/t-1/1", "")]),
        (NIMBUS_A, vec![check(1), create("/assignments/t-1", &assignment(1))]),
        (NIMBUS_B, election(2, "b")),
        (NIMBUS_B, vec![check(2), Op::Delete { path: format!("{ROOT}/assignments/t-1") }]),
        (NIMBUS_B, vec![check(2), create("/assignments/t-2", &assignment(1))]),
    ]);
    history.assert_lawful();
    let writes = |term| history.terms.get(&term).map(|record| (record.nimbus.as_str(), record.n_writes));
    assert_eq!((writes(1), writes(2)), (Some(("a", 2)), Some(("b", 2))));
    assert_eq!(history.submitted, BTreeMap::from([("t-1".to_owned(), 1)]));
}

#[test]
fn a_write_without_the_fence_is_found() {
    expect("is not fenced", &[(NIMBUS_A, vec![create("/storms/t-1", "")])]);
    expect("is not fenced", &[(NIMBUS_A, vec![create("/storms/t-1", ""), check(1)])]);
    expect("is not fenced", &[(NIMBUS_A, vec![create("/taskbeats/t-1", "")])]);
    expect("is not fenced", &[(NIMBUS_A, vec![create("/something/new", "")])]);
    expect("is not fenced", &[(NIMBUS_B, vec![Op::Delete { path: format!("{ROOT}/leader") }])]);
}

#[test]
fn a_write_of_another_than_the_leader_is_found() {
    expect("is written by b, and a leads", &[(NIMBUS_B, vec![check(1), create("/storms/t-1", "")])]);
    let late = [(NIMBUS_B, election(2, "b")), (NIMBUS_A, vec![check(2), create("/storms/t-1", "")])];
    expect("is written by a, and b leads", &late);
    let old = [(NIMBUS_B, election(2, "b")), (NIMBUS_B, vec![check(1), create("/storms/t-1", "")])];
    expect("is written under 1 in term 2", &old);
}

#[test]
fn an_election_that_is_none_is_found() {
    expect("creates no ephemeral /leader", &[(NIMBUS_B, vec![set_term(2, "b")])]);
    expect("follows term 1 with 3", &[(NIMBUS_B, election(3, "b"))]);
    expect("is not fenced", &[(NIMBUS_B, vec![ephemeral("/leader")])]);
    expect("is written by b, and a leads", &[(NIMBUS_B, election(2, "a"))]);
}

#[test]
fn a_slot_with_two_workers_and_a_second_submit_are_found() {
    let write = |name: &str| (NIMBUS_A, vec![check(1), create(name, &assignment(1))]);
    expect("which t-1 has", &[write("/assignments/t-1"), write("/assignments/t-2")]);
    expect("a second time, after term 1", &[write("/storms/t-1"), write("/storms/t-1")]);
}
