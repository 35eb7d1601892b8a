//! Conversations with a spout's child.

use super::*;
use crate::metrics::StreamIndex;

/// A step of a test: a call of the protocol and its expected result.
enum Turn {
    Command(Activity, &'static str),
    NoCommand(Activity),
    Receive(&'static str, &'static str),
}
use Turn::{Command, NoCommand, Receive};

fn parse(message: &str) -> FromChild {
    FromChild::parse(message.as_bytes()).expect("a message").message
}

/// Handles a message, and acks at once what is to be acked at once, as the loop does.
fn receive(protocol: &mut SpoutProtocol, message: &str) -> Result<Effect, Violation> {
    let effect = protocol.on_message(parse(message));
    if let Ok(Effect::Emit(_, Care::AckAtOnce(id))) = &effect {
        protocol.tell(Outcome::Acked, id.clone());
    }
    effect
}

fn check(turns: &[Turn]) {
    let mut protocol = SpoutProtocol::new(None);
    for turn in turns {
        match turn {
            NoCommand(activity) => assert_eq!(protocol.next_command(*activity, true), None),
            Command(activity, expected) => {
                let (command, id) = protocol.next_command(*activity, true).expect(expected);
                let id = serde_json::to_string(&id).expect("JSON");
                assert_eq!(format!("{command:?} {id}"), *expected);
            }
            Receive(message, expected) => {
                let result = match receive(&mut protocol, message) {
                    Ok(effect) => format!("{effect:?}"),
                    Err(violation) => violation.to_string(),
                };
                assert!(result.contains(expected), "{result:?}, not {expected:?}");
            }
        }
    }
}

const PID: &str = r#"{"pid":1}"#;
const SYNC: &str = r#"{"command":"sync"}"#;
const EMIT: &str = r#"{"command":"emit","tuple":[1]}"#;
use Activity::{Active, Inactive};

#[test]
fn spout_is_activated_called_and_deactivated() {
    check(&[
        NoCommand(Active),
        Receive(PID, "HandshakeDone"),
        NoCommand(Inactive),
        Command(Active, "Activate \"\""),
        NoCommand(Active),
        Receive(SYNC, "Nothing"),
        Command(Active, "Next \"\""),
        NoCommand(Inactive),
        Receive(EMIT, "None)"),
        Receive(SYNC, "Next(Something, Calls { n: 1, is_last_empty: false })"),
        Command(Active, "Next \"\""),
        Receive(SYNC, "Next(Nothing, Calls { n: 1, is_last_empty: true })"),
        Command(Inactive, "Deactivate \"\""),
        Receive(SYNC, "Nothing"),
        NoCommand(Inactive),
        Command(Active, "Activate \"\""),
    ]);
}

#[test]
fn emits_with_ids_of_an_untracked_topology_are_acked_in_order_before_the_following_next() {
    check(&[
        Receive(PID, "HandshakeDone"),
        Command(Active, "Activate \"\""),
        Receive(SYNC, "Nothing"),
        Command(Active, "Next \"\""),
        Receive(r#"{"command":"emit","id":"a","tuple":[1]}"#, "AckAtOnce(Text(\"a\"))"),
        Receive(r#"{"command":"emit","id":[2],"tuple":[1]}"#, "AckAtOnce"),
        Receive(r#"{"command":"emit","id":null,"tuple":[1]}"#, "None)"),
        Receive(SYNC, "Next(Something"),
        Command(Inactive, "Ack \"a\""),
        NoCommand(Active),
        Receive(SYNC, "Nothing"),
        Command(Active, "Ack [2]"),
        Receive(SYNC, "Nothing"),
        Command(Active, "Next \"\""),
    ]);
}

/// A protocol whose child is up and was activated.
fn active(limits: Option<TreeLimits>) -> SpoutProtocol {
    let mut protocol = SpoutProtocol::new(limits);
    assert_eq!(receive(&mut protocol, PID), Ok(Effect::HandshakeDone));
    let activated = protocol.next_command(Active, true);
    assert!(activated.is_some_and(|(command, _)| command == SpoutCommand::Activate));
    assert_eq!(receive(&mut protocol, SYNC), Ok(Effect::Nothing));
    protocol
}

#[test]
fn refused_emit_with_an_id_fails_in_its_turn() {
    let mut early = SpoutProtocol::new(None);
    assert!(!early.refuse(Some(Value::from("early"))), "before the handshake");
    let mut protocol = active(None);
    assert!(protocol.next_command(Active, true).is_some());
    let emit = |id: &str| format!(r#"{{"command":"emit","id":"{id}","tuple":[]}}"#);
    assert!(receive(&mut protocol, &emit("a")).is_ok());
    assert!(protocol.refuse(Some(Value::from("b"))) && !protocol.refuse(None));
    assert!(receive(&mut protocol, &emit("c")).is_ok());
    let mut told = Vec::new();
    for _ in 0..3 {
        assert!(receive(&mut protocol, SYNC).is_ok());
        told.extend(protocol.next_command(Active, true));
    }
    let ack = |id: &str| (SpoutCommand::Ack, Value::from(id));
    assert_eq!(told, [ack("a"), (SpoutCommand::Fail, Value::from("b")), ack("c")]);
}

#[test]
fn message_that_only_a_bolt_may_send_is_rejected() {
    check(&[Receive(EMIT, "before its pid")]);
    check(&[Receive(PID, "HandshakeDone"), Receive(PID, "twice")]);
    for command in ["ack", "fail", "reset_timeout"] {
        let message = format!(r#"{{"command":"{command}","id":"1"}}"#);
        let refused = active(None).on_message(parse(&message));
        assert!(matches!(refused, Err(Violation::NotForSpouts { what }) if what == command), "{refused:?}");
    }
}

#[test]
fn unrequested_sync_has_no_effect() {
    check(&[
        Receive(SYNC, "Nothing"),
        Receive(PID, "HandshakeDone"),
        Receive(SYNC, "Nothing"),
        Command(Active, "Activate \"\""),
    ]);
}

fn limits(max_pending: usize) -> Option<TreeLimits> {
    Some(TreeLimits { max_pending, timeout: Some(Duration::from_secs(30)) })
}

/// Begins a tree for the tuple with this id, as the loop does.
fn emit_tracked(protocol: &mut SpoutProtocol, id: i64, at: Monotonic) {
    let effect = receive(protocol, &format!(r#"{{"command":"emit","id":{id},"tuple":[]}}"#));
    let Ok(Effect::Emit(emit, Care::Tree(found))) = effect else { panic!("{effect:?}") };
    assert_eq!((emit.id, &found), (None, &Value::Int(id)));
    let tuple = PendingTuple { id: found, emitted: at, stream: StreamIndex::UNKNOWN };
    protocol.begin(id.unsigned_abs(), tuple);
}

fn at(secs: u64) -> Monotonic {
    Monotonic::START.plus(Duration::from_secs(secs))
}

/// Returns the next command as text, and answers it.
fn command(protocol: &mut SpoutProtocol, may_call: bool) -> Option<String> {
    let (command, id) = protocol.next_command(Active, may_call)?;
    assert!(receive(protocol, SYNC).is_ok());
    Some(format!("{command:?} {}", serde_json::to_string(&id).expect("JSON")))
}

#[test]
fn tracked_tuple_is_told_the_outcome_of_its_tree_once() {
    let mut protocol = active(limits(100));
    for id in 1..=3 {
        emit_tracked(&mut protocol, id, at(0));
    }
    assert_eq!(protocol.n_pending(), 3);
    assert!(protocol.end(2, Outcome::Acked).is_some());
    assert!(protocol.end(1, Outcome::Failed).is_some());
    assert!(protocol.end(2, Outcome::Failed).is_none(), "it was acked before");
    assert!(protocol.end(9, Outcome::Acked).is_none(), "never emitted");
    assert_eq!(protocol.expire(at(29)), None);
    assert_eq!(protocol.expire(at(30)).map(|(root, _)| root), Some(3));
    assert_eq!(protocol.expire(at(30)), None);
    assert!(protocol.end(3, Outcome::Acked).is_none(), "it timed out before");
    // Outcomes come first, also to a spout that pauses.
    let told: Vec<String> = std::iter::from_fn(|| command(&mut protocol, false)).collect();
    assert_eq!(told, ["Ack 2", "Fail 1", "Fail 3"]);
    assert_eq!((protocol.n_pending(), command(&mut protocol, true)), (0, Some("Next \"\"".to_owned())));
}

#[test]
fn outcomes_are_told_together_and_answered_once() {
    let mut protocol = active(limits(100));
    for id in 1..=5 {
        emit_tracked(&mut protocol, id, at(0));
    }
    assert!(protocol.end(1, Outcome::Acked).is_some());
    assert_eq!(protocol.next_outcomes(3).count(), 0, "one outcome is an ordinary command");
    for (id, outcome) in [(2, Outcome::Failed), (3, Outcome::Acked), (4, Outcome::Acked)] {
        assert!(protocol.end(id, outcome).is_some());
    }
    let told: Vec<_> = protocol.next_outcomes(3).collect();
    use SpoutCommand::{Ack, Fail};
    assert_eq!(told, [(Ack, 1), (Fail, 2), (Ack, 3)].map(|(command, id)| (command, Value::Int(id))));
    assert_eq!(protocol.awaited(), "answer to ack");
    assert_eq!(protocol.next_command(Active, true), None, "the answer is outstanding");
    assert!(protocol.end(5, Outcome::Acked).is_some());
    assert_eq!(protocol.next_outcomes(3).count(), 0, "the answer is outstanding");
    assert_eq!(receive(&mut protocol, SYNC), Ok(Effect::Nothing));
    assert_eq!(protocol.next_outcomes(3).count(), 2);
    assert_eq!(receive(&mut protocol, SYNC), Ok(Effect::Nothing));
    assert_eq!((protocol.n_pending(), command(&mut protocol, true)), (0, Some("Next \"\"".to_owned())));
}

#[test]
fn several_calls_for_one_next_are_told_apart() {
    let mut protocol = active(limits(5));
    assert_eq!(protocol.room(), 5);
    assert!(protocol.next_command(Active, true).is_some());
    emit_tracked(&mut protocol, 1, at(0));
    emit_tracked(&mut protocol, 2, at(0));
    assert_eq!(protocol.room(), 3);
    let calls = Calls { n: 3, is_last_empty: true };
    let answer = r#"{"command":"sync","calls":3,"empty":true}"#;
    assert_eq!(receive(&mut protocol, answer), Ok(Effect::Next(Yield::Something, calls)));
    assert_eq!(receive(&mut protocol, answer), Ok(Effect::Nothing), "nothing was asked");
}

#[test]
fn spout_with_as_many_pending_tuples_as_it_may_have_is_not_called() {
    let mut protocol = active(limits(2));
    emit_tracked(&mut protocol, 1, at(0));
    assert_eq!(command(&mut protocol, true).as_deref(), Some("Next \"\""));
    // One `next` may emit more than one tuple.
    emit_tracked(&mut protocol, 2, at(0));
    emit_tracked(&mut protocol, 3, at(0));
    assert_eq!(command(&mut protocol, true), None);
    assert!(protocol.end(1, Outcome::Acked).is_some());
    assert_eq!(command(&mut protocol, true).as_deref(), Some("Ack 1"));
    assert_eq!(command(&mut protocol, true), None, "two are pending");
    assert!(protocol.end(2, Outcome::Failed).is_some());
    assert_eq!(command(&mut protocol, true).as_deref(), Some("Fail 2"));
    assert_eq!(command(&mut protocol, true).as_deref(), Some("Next \"\""));
}

#[test]
fn tuples_whose_outcome_is_unknown_are_bounded() {
    let mut protocol = active(limits(PENDING_MAX));
    for id in 0..i64::try_from(PENDING_MAX).expect("small") {
        emit_tracked(&mut protocol, id, at(0));
    }
    let effect = receive(&mut protocol, r#"{"command":"emit","id":-1,"tuple":[]}"#);
    assert!(matches!(effect, Ok(Effect::Emit(_, Care::Dropped))), "{effect:?}");
    assert!(!protocol.refuse(Some(Value::Int(-1))));
    assert_eq!(protocol.abandon().count(), PENDING_MAX);
    assert_eq!(protocol.n_pending(), 0);
}
