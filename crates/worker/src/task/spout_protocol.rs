//! Protocol of a spout's child: validity and meaning of its messages, and the next command. No I/O.

use std::collections::VecDeque;

use super::{Activity, Violation};
use crate::multilang::message::{ComponentNotice, Emit, FromChild, SpoutCommand};
use stormkeeper_stream::Value;

/// Limit of acks and fails that wait until the child completes its `next`. Further tuples with ids
/// that the same `next` emits are neither acked nor failed.
const MAX_ACKS: usize = 100_000;

/// State of the protocol with a spout's child: one command at a time, to which the child replies
/// with `sync`.
#[derive(Debug, Default)]
pub(super) struct SpoutProtocol {
    handshake_done: bool,
    pending: Option<SpoutCommand>,
    last_activity: Option<Activity>,
    // The outcome of each emit with an id, in the order of the emits: `Ack` or `Fail`.
    outcomes: VecDeque<(SpoutCommand, Value)>,
    // True if the child emitted a tuple since the last `next`.
    emitted: bool,
}

/// Effect of a message, executed by the spout's loop.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Nothing,
    /// The child is up.
    HandshakeDone,
    Emit(Emit, Tracking),
    /// A `next` is complete.
    Next(Yield),
    Notice(ComponentNotice),
}

/// Tracking of an emitted tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// The tuple has no id.
    Untracked,
    /// The tuple will be acked to the spout.
    Acked,
    /// The tuple has an id, and too many acks are waiting: it will not be acked.
    AckDropped,
}

/// Result of a `next`: whether it emitted a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Yield {
    Something,
    Nothing,
}

impl SpoutProtocol {
    /// Returns whether the child is up.
    pub(super) fn is_handshake_done(&self) -> bool {
        self.handshake_done
    }

    /// Returns whether the child's pid or a `sync` is outstanding.
    pub(super) fn awaits_answer(&self) -> bool {
        !self.handshake_done || self.pending.is_some()
    }

    /// Returns what a silent child owes, for operators.
    pub(super) fn awaited(&self) -> &'static str {
        match self.pending {
            _ if !self.handshake_done => "answer to the handshake",
            Some(SpoutCommand::Next) => "answer to next",
            Some(SpoutCommand::Ack) => "answer to ack",
            Some(SpoutCommand::Fail) => "answer to fail",
            Some(SpoutCommand::Activate) => "answer to activate",
            Some(SpoutCommand::Deactivate) => "answer to deactivate",
            None => "message",
        }
    }

    /// Returns whether a `next` is outstanding.
    pub(super) fn is_called(&self) -> bool {
        self.pending == Some(SpoutCommand::Next)
    }

    /// Returns the next command for the child, with the id that it refers to. `None` while a
    /// reply of the child is outstanding, and if an inactive spout has no acks left.
    ///
    /// Acks and fails come before all other commands, in the order of the emits. As there are no
    /// ackers, a tuple counts as fully processed once it is emitted.
    pub(super) fn next_command(&mut self, activity: Activity) -> Option<(SpoutCommand, Value)> {
        if self.awaits_answer() {
            return None;
        }
        let (command, id) = match (self.outcomes.pop_front(), self.last_activity, activity) {
            (Some(outcome), _, _) => outcome,
            (None, None | Some(Activity::Inactive), Activity::Active) => (SpoutCommand::Activate, no_id()),
            (None, Some(Activity::Active), Activity::Inactive) => (SpoutCommand::Deactivate, no_id()),
            (None, Some(Activity::Active), Activity::Active) => (SpoutCommand::Next, no_id()),
            (None, None | Some(Activity::Inactive), Activity::Inactive) => return None,
        };
        match command {
            SpoutCommand::Activate | SpoutCommand::Deactivate => self.last_activity = Some(activity),
            SpoutCommand::Next => self.emitted = false,
            SpoutCommand::Ack | SpoutCommand::Fail => {}
        }
        self.pending = Some(command);
        Some((command, id))
    }

    /// Handles an emit that was refused: a tuple with an id fails, so that the spout gets past it.
    /// Returns whether the spout will be told.
    pub(super) fn refuse(&mut self, id: Option<Value>) -> bool {
        let id = id.filter(|_| self.handshake_done && self.outcomes.len() < MAX_ACKS);
        let is_told = id.is_some();
        self.outcomes.extend(id.map(|id| (SpoutCommand::Fail, id)));
        is_told
    }

    /// Fails the last emit, which was to be acked, because it has no receivers.
    pub(super) fn fail_last(&mut self) {
        if let Some((command, _)) = self.outcomes.back_mut() {
            *command = SpoutCommand::Fail;
        }
    }

    /// Handles a message of the child.
    ///
    /// # Errors
    /// [`Violation`] if the message makes no sense now; it has no effect then.
    pub(super) fn on_message(&mut self, message: FromChild) -> Result<Effect, Violation> {
        match message {
            FromChild::Notice(notice) => Ok(Effect::Notice(notice)),
            FromChild::Pid(_) if self.handshake_done => Err(Violation::PidTwice),
            FromChild::Pid(_) => {
                self.handshake_done = true;
                Ok(Effect::HandshakeDone)
            }
            FromChild::Emit(_) if !self.handshake_done => Err(Violation::BeforePid { what: message.name() }),
            FromChild::Emit(mut emit) => {
                self.emitted = true;
                let tracking = match emit.id.take() {
                    None => Tracking::Untracked,
                    Some(_) if self.outcomes.len() >= MAX_ACKS => Tracking::AckDropped,
                    Some(id) => {
                        self.outcomes.push_back((SpoutCommand::Ack, id));
                        Tracking::Acked
                    }
                };
                Ok(Effect::Emit(emit, tracking))
            }
            FromChild::Ack(_) | FromChild::Fail(_) => Err(Violation::NotForSpouts { what: message.name() }),
            // An unrequested `sync` has no effect; pystorm sends one after an error.
            FromChild::Sync => Ok(match (self.pending.take(), self.emitted) {
                (Some(SpoutCommand::Next), true) => Effect::Next(Yield::Something),
                (Some(SpoutCommand::Next), false) => Effect::Next(Yield::Nothing),
                (Some(_) | None, _) => Effect::Nothing,
            }),
        }
    }
}

/// Returns the id of a command that refers to no tuple.
fn no_id() -> Value {
    Value::Text(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step of a test: a call of the protocol and its expected result.
    enum Turn {
        Command(Activity, &'static str),
        NoCommand(Activity),
        Receive(&'static str, &'static str),
    }
    use Turn::{Command, NoCommand, Receive};

    fn check(turns: &[Turn]) {
        let mut protocol = SpoutProtocol::default();
        for turn in turns {
            match turn {
                NoCommand(activity) => assert_eq!(protocol.next_command(*activity), None),
                Command(activity, expected) => {
                    let (command, id) = protocol.next_command(*activity).expect(expected);
                    let id = serde_json::to_string(&id).expect("JSON");
                    assert_eq!(format!("{command:?} {id}"), *expected);
                }
                Receive(message, expected) => {
                    let message = FromChild::parse(message.as_bytes()).expect("a message").message;
                    let result = match protocol.on_message(message) {
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
            Receive(EMIT, "Untracked"),
            Receive(SYNC, "Next(Something)"),
            Command(Active, "Next \"\""),
            Receive(SYNC, "Next(Nothing)"),
            Command(Inactive, "Deactivate \"\""),
            Receive(SYNC, "Nothing"),
            NoCommand(Inactive),
            Command(Active, "Activate \"\""),
        ]);
    }

    #[test]
    fn emits_with_ids_are_acked_in_order_before_the_following_next() {
        check(&[
            Receive(PID, "HandshakeDone"),
            Command(Active, "Activate \"\""),
            Receive(SYNC, "Nothing"),
            Command(Active, "Next \"\""),
            Receive(r#"{"command":"emit","id":"a","tuple":[1]}"#, "Acked"),
            Receive(r#"{"command":"emit","id":[2],"tuple":[1]}"#, "Acked"),
            Receive(r#"{"command":"emit","id":null,"tuple":[1]}"#, "Untracked"),
            Receive(SYNC, "Next(Something)"),
            Command(Inactive, "Ack \"a\""),
            NoCommand(Active),
            Receive(SYNC, "Nothing"),
            Command(Active, "Ack [2]"),
            Receive(SYNC, "Nothing"),
            Command(Active, "Next \"\""),
        ]);
    }

    #[test]
    fn refused_emit_with_an_id_fails_in_its_turn() {
        let mut protocol = SpoutProtocol::default();
        let parse = |text: &str| FromChild::parse(text.as_bytes()).expect("a message").message;
        assert!(!protocol.refuse(Some(Value::from("early"))), "before the handshake");
        assert_eq!(protocol.on_message(parse(PID)), Ok(Effect::HandshakeDone));
        assert!(protocol.next_command(Active).is_some_and(|(command, _)| command == SpoutCommand::Activate));
        assert_eq!(protocol.on_message(parse(SYNC)), Ok(Effect::Nothing));
        assert!(protocol.next_command(Active).is_some());
        let emit = |id: &str| parse(&format!(r#"{{"command":"emit","id":"{id}","tuple":[]}}"#));
        assert!(protocol.on_message(emit("a")).is_ok());
        assert!(protocol.refuse(Some(Value::from("b"))) && !protocol.refuse(None));
        assert!(protocol.on_message(emit("c")).is_ok());
        protocol.fail_last();
        let mut told = Vec::new();
        for _ in 0..3 {
            assert!(protocol.on_message(parse(SYNC)).is_ok());
            told.extend(protocol.next_command(Active));
        }
        let fail = |id: &str| (SpoutCommand::Fail, Value::from(id));
        assert_eq!(told, [(SpoutCommand::Ack, Value::from("a")), fail("b"), fail("c")]);
    }

    #[test]
    fn message_that_only_a_bolt_may_send_is_rejected() {
        check(&[Receive(EMIT, "before its pid")]);
        check(&[Receive(PID, "HandshakeDone"), Receive(PID, "twice")]);
        check(&[
            Receive(PID, "HandshakeDone"),
            Receive(r#"{"command":"ack","id":"1"}"#, "is a spout and sent \"ack\""),
        ]);
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

    #[test]
    fn acks_are_bounded() {
        let mut protocol = SpoutProtocol::default();
        assert_eq!(protocol.on_message(FromChild::Pid(Some(1))), Ok(Effect::HandshakeDone));
        let mut emit = |id: usize| {
            let text = format!(r#"{{"command":"emit","id":{id},"tuple":[]}}"#);
            match protocol.on_message(FromChild::parse(text.as_bytes()).expect("a message").message) {
                Ok(Effect::Emit(_, tracking)) => Some(tracking),
                _ => None,
            }
        };
        for id in 0..MAX_ACKS {
            assert_eq!(emit(id), Some(Tracking::Acked));
        }
        assert_eq!(emit(MAX_ACKS), Some(Tracking::AckDropped));
    }
}
