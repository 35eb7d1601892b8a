//! What a spout's child may say, what it means, and what it is told next. No I/O.

use std::collections::VecDeque;

use super::{Activity, Violation};
use crate::multilang::message::{Emit, FromChild, Remark, SpoutCommand};
use stormkeeper_stream::Value;

/// How many acks wait for the child to finish its `next`. A spout that emits more with ids
/// in one go is not told of the rest.
const MAX_ACKS: usize = 100_000;

/// The state of the conversation with a spout's child: one command at a time, each answered
/// by `sync`.
#[derive(Debug, Default)]
pub(super) struct SpoutProtocol {
    greeted: bool,
    under_way: Option<SpoutCommand>,
    told: Option<Activity>,
    acks: VecDeque<Value>,
    // Whether anything was emitted since the last command.
    emitted: bool,
}

/// What to do about a message.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Nothing,
    /// The child is up.
    Greeted,
    Emit(Emit, Tracking),
    /// A `next` is done.
    Next(Yield),
    Note(Remark),
}

/// Whether the spout hears of a tuple again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// It has no id.
    Untracked,
    /// It will be acked.
    Acked,
    /// It has an id, and there are too many acks to tell.
    AckDropped,
}

/// What a `next` brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Yield {
    Something,
    Nothing,
}

impl SpoutProtocol {
    /// Whether the child is up.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether the child owes an answer: its pid or a `sync`.
    pub(super) fn owes_answer(&self) -> bool {
        !self.greeted || self.under_way.is_some()
    }

    /// What to tell the child now, with the id that it is about. None while it owes an
    /// answer, and when an inactive spout has nothing left to hear.
    ///
    /// Acks come before everything else, in the order of the emits. As there are no ackers,
    /// a tuple counts as fully processed once it is emitted.
    pub(super) fn next_command(&mut self, activity: Activity) -> Option<(SpoutCommand, Value)> {
        if self.owes_answer() {
            return None;
        }
        let (command, id) = match (self.acks.pop_front(), self.told, activity) {
            (Some(id), _, _) => (SpoutCommand::Ack, id),
            (None, None | Some(Activity::Inactive), Activity::Active) => (SpoutCommand::Activate, no_id()),
            (None, Some(Activity::Active), Activity::Inactive) => (SpoutCommand::Deactivate, no_id()),
            (None, Some(Activity::Active), Activity::Active) => (SpoutCommand::Next, no_id()),
            (None, None | Some(Activity::Inactive), Activity::Inactive) => return None,
        };
        match command {
            SpoutCommand::Activate | SpoutCommand::Deactivate => self.told = Some(activity),
            SpoutCommand::Next => self.emitted = false,
            SpoutCommand::Ack => {}
        }
        self.under_way = Some(command);
        Some((command, id))
    }

    /// Takes a message of the child's.
    ///
    /// # Errors
    /// [`Violation`], after which the child cannot be trusted.
    pub(super) fn hear(&mut self, message: FromChild) -> Result<Effect, Violation> {
        match message {
            FromChild::Remark(remark) => Ok(Effect::Note(remark)),
            FromChild::Pid(_) if self.greeted => Err(Violation::PidTwice),
            FromChild::Pid(_) => {
                self.greeted = true;
                Ok(Effect::Greeted)
            }
            FromChild::Emit(_) if !self.greeted => Err(Violation::BeforePid { what: message.name() }),
            FromChild::Emit(mut emit) => {
                self.emitted = true;
                let tracking = match emit.id.take() {
                    None => Tracking::Untracked,
                    Some(_) if self.acks.len() >= MAX_ACKS => Tracking::AckDropped,
                    Some(id) => {
                        self.acks.push_back(id);
                        Tracking::Acked
                    }
                };
                Ok(Effect::Emit(emit, tracking))
            }
            FromChild::Ack(_) | FromChild::Fail(_) => Err(Violation::NotForSpouts { what: message.name() }),
            // One that nobody asked for says nothing; pystorm sends it after an error.
            FromChild::Sync => Ok(match (self.under_way.take(), self.emitted) {
                (Some(SpoutCommand::Next), true) => Effect::Next(Yield::Something),
                (Some(SpoutCommand::Next), false) => Effect::Next(Yield::Nothing),
                (Some(SpoutCommand::Ack | SpoutCommand::Activate | SpoutCommand::Deactivate) | None, _) => {
                    Effect::Nothing
                }
            }),
        }
    }
}

/// What stands for an id in commands that are about no tuple.
fn no_id() -> Value {
    Value::Text(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation: what is done to the protocol, and what comes of it.
    enum Turn {
        Told(Activity, &'static str),
        Quiet(Activity),
        Hear(&'static str, &'static str),
    }
    use Turn::{Hear, Quiet, Told};

    fn check(turns: &[Turn]) {
        let mut protocol = SpoutProtocol::default();
        for turn in turns {
            match turn {
                Quiet(activity) => assert_eq!(protocol.next_command(*activity), None),
                Told(activity, expected) => {
                    let (command, id) = protocol.next_command(*activity).expect(expected);
                    let id = serde_json::to_string(&id).expect("JSON");
                    assert_eq!(format!("{command:?} {id}"), *expected);
                }
                Hear(message, expected) => {
                    let message = FromChild::parse(message.as_bytes()).expect("a message");
                    let said = match protocol.hear(message) {
                        Ok(effect) => format!("{effect:?}"),
                        Err(violation) => violation.to_string(),
                    };
                    assert!(said.contains(expected), "{said:?}, not {expected:?}");
                }
            }
        }
    }

    const PID: &str = r#"{"pid":1}"#;
    const SYNC: &str = r#"{"command":"sync"}"#;
    const EMIT: &str = r#"{"command":"emit","tuple":[1]}"#;
    use Activity::{Active, Inactive};

    #[test]
    fn a_spout_is_activated_asked_and_deactivated() {
        check(&[
            Quiet(Active),
            Hear(PID, "Greeted"),
            Quiet(Inactive),
            Told(Active, "Activate \"\""),
            Quiet(Active),
            Hear(SYNC, "Nothing"),
            Told(Active, "Next \"\""),
            Quiet(Inactive),
            Hear(EMIT, "Untracked"),
            Hear(SYNC, "Next(Something)"),
            Told(Active, "Next \"\""),
            Hear(SYNC, "Next(Nothing)"),
            Told(Inactive, "Deactivate \"\""),
            Hear(SYNC, "Nothing"),
            Quiet(Inactive),
            Told(Active, "Activate \"\""),
        ]);
    }

    #[test]
    fn emits_with_ids_are_acked_in_order_before_the_next_next() {
        check(&[
            Hear(PID, "Greeted"),
            Told(Active, "Activate \"\""),
            Hear(SYNC, "Nothing"),
            Told(Active, "Next \"\""),
            Hear(r#"{"command":"emit","id":"a","tuple":[1]}"#, "Acked"),
            Hear(r#"{"command":"emit","id":[2],"tuple":[1]}"#, "Acked"),
            Hear(r#"{"command":"emit","id":null,"tuple":[1]}"#, "Untracked"),
            Hear(SYNC, "Next(Something)"),
            Told(Inactive, "Ack \"a\""),
            Quiet(Active),
            Hear(SYNC, "Nothing"),
            Told(Active, "Ack [2]"),
            Hear(SYNC, "Nothing"),
            Told(Active, "Next \"\""),
        ]);
    }

    #[test]
    fn what_only_a_bolt_may_say_is_refused() {
        check(&[Hear(EMIT, "before its pid")]);
        check(&[Hear(PID, "Greeted"), Hear(PID, "twice")]);
        check(&[Hear(PID, "Greeted"), Hear(r#"{"command":"ack","id":"1"}"#, "is a spout and sent \"ack\"")]);
    }

    #[test]
    fn a_sync_that_nobody_asked_for_is_nothing() {
        check(&[
            Hear(SYNC, "Nothing"),
            Hear(PID, "Greeted"),
            Hear(SYNC, "Nothing"),
            Told(Active, "Activate \"\""),
        ]);
    }

    #[test]
    fn acks_are_bounded() {
        let mut protocol = SpoutProtocol::default();
        assert_eq!(protocol.hear(FromChild::Pid(1)), Ok(Effect::Greeted));
        let mut emit = |id: usize| {
            let text = format!(r#"{{"command":"emit","id":{id},"tuple":[]}}"#);
            match protocol.hear(FromChild::parse(text.as_bytes()).expect("a message")) {
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
