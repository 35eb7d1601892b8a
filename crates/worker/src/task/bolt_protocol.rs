//! What a bolt's child may say and what it means. No I/O.

use super::{
    Violation,
    in_flight::{Given, InFlight, Kind, Standing},
};
use crate::multilang::message::{Emit, FromChild, Remark, ReturnedId};

/// The state of the conversation with a bolt's child.
#[derive(Debug, Default)]
pub(super) struct BoltProtocol {
    greeted: bool,
    // A heartbeat was sent and nothing heard since.
    asked: bool,
    in_flight: InFlight,
}

/// What to do about a message.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Nothing,
    /// The child is up.
    Greeted,
    Emit(Emit),
    /// Count an ack.
    Acked(Given),
    /// Count a fail.
    Failed(Given),
    Note(Remark),
}

impl BoltProtocol {
    /// Whether the child is up: only then it is given tuples.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// The number of a tuple that is about to be given to the child.
    pub(super) fn give(&mut self, kind: Kind) -> u64 {
        self.in_flight.open(kind)
    }

    /// The number of a heartbeat to send now; none while the child owes a sign of life for
    /// the last one, so that they do not pile up before one that hangs.
    pub(super) fn heartbeat(&mut self) -> Option<u64> {
        if !self.greeted || self.asked {
            return None;
        }
        self.asked = true;
        Some(self.in_flight.closed())
    }

    /// Takes a message of the child's. Each is a sign of life.
    ///
    /// # Errors
    /// [`Violation`], after which the child cannot be trusted.
    pub(super) fn hear(&mut self, message: FromChild) -> Result<Effect, Violation> {
        self.asked = false;
        match message {
            FromChild::Remark(remark) => Ok(Effect::Note(remark)),
            FromChild::Pid(_) if self.greeted => Err(Violation::PidTwice),
            FromChild::Pid(_) => {
                self.greeted = true;
                Ok(Effect::Greeted)
            }
            FromChild::Emit(_) | FromChild::Ack(_) | FromChild::Fail(_) if !self.greeted => {
                Err(Violation::BeforePid { what: message.name() })
            }
            FromChild::Emit(emit) => {
                for anchor in &emit.anchors {
                    let standing = number_of(anchor).map(|number| self.in_flight.standing(number));
                    known(standing, "emit", anchor)?;
                }
                Ok(Effect::Emit(emit))
            }
            FromChild::Ack(id) => self.settle("ack", &id, Effect::Acked),
            FromChild::Fail(id) => self.settle("fail", &id, Effect::Failed),
            FromChild::Sync => Ok(Effect::Nothing),
        }
    }

    fn settle(
        &mut self,
        what: &'static str,
        id: &ReturnedId,
        counted: impl Fn(Given) -> Effect,
    ) -> Result<Effect, Violation> {
        let standing = number_of(id).map(|number| self.in_flight.close(number));
        Ok(match known(standing, what, id)? {
            Some(Kind::Input(given)) => counted(given),
            Some(Kind::Tick) | None => Effect::Nothing,
        })
    }

    /// Begins anew with another child. Tells `lost` of every tuple that went with the old one.
    pub(super) fn forget_child(&mut self, lost: impl FnMut(Given)) {
        (self.greeted, self.asked) = (false, false);
        self.in_flight.close_all(lost);
    }
}

fn number_of(id: &ReturnedId) -> Option<u64> {
    id.0.parse().ok()
}

/// The kind of a tuple that the child has; none when that is no longer known.
fn known(standing: Option<Standing>, what: &'static str, id: &ReturnedId) -> Result<Option<Kind>, Violation> {
    match standing {
        Some(Standing::Open(kind)) => Ok(Some(kind)),
        Some(Standing::Forgotten) => Ok(None),
        Some(Standing::Unknown) | None => Err(Violation::NotInFlight { what, id: id.0.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Source;
    use stormkeeper_model::clock::Monotonic;

    const INPUT: Kind = Kind::Input(Given { source: Source::UNKNOWN, at: Monotonic::START });

    fn parse(text: &str) -> FromChild {
        FromChild::parse(text.as_bytes()).expect("a message")
    }

    /// A conversation: what is done to the protocol, and what comes of it.
    enum Turn {
        Give(Kind, u64),
        Heartbeat(Option<u64>),
        Hear(&'static str, &'static str),
        NewChild(u64),
    }
    use Turn::{Give, Hear, Heartbeat, NewChild};

    fn check(turns: &[Turn]) {
        let mut protocol = BoltProtocol::default();
        for turn in turns {
            match turn {
                Give(kind, number) => assert_eq!(protocol.give(*kind), *number),
                Heartbeat(expected) => assert_eq!(protocol.heartbeat(), *expected),
                NewChild(lost) => {
                    let mut n = 0;
                    protocol.forget_child(|_| n += 1);
                    assert_eq!(n, *lost);
                }
                Hear(message, expected) => {
                    let said = match protocol.hear(parse(message)) {
                        Ok(Effect::Emit(emit)) => format!("emit {:?}", emit.values),
                        Ok(effect) => format!("{effect:?}"),
                        Err(violation) => violation.to_string(),
                    };
                    assert!(said.contains(expected), "{message}: {said:?}, not {expected:?}");
                }
            }
        }
    }

    const PID: &str = r#"{"pid":1}"#;
    const SYNC: &str = r#"{"command":"sync"}"#;

    #[test]
    fn acks_and_fails_are_counted_once_and_ticks_are_not() {
        check(&[
            Hear(PID, "Greeted"),
            Give(INPUT, 0),
            Give(Kind::Tick, 1),
            Give(INPUT, 2),
            Hear(r#"{"command":"ack","id":"2"}"#, "Acked"),
            Hear(r#"{"command":"ack","id":"1"}"#, "Nothing"),
            Hear(r#"{"command":"fail","id":"0"}"#, "Failed"),
            Hear(r#"{"command":"ack","id":"0"}"#, "\"ack\" for tuple \"0\", which it does not have"),
        ]);
    }

    #[test]
    fn ids_that_were_not_given_are_refused() {
        for bad in ["7", "x", "-1", "", "99999999999999999999"] {
            let mut protocol = BoltProtocol::default();
            assert_eq!(protocol.hear(parse(PID)), Ok(Effect::Greeted));
            protocol.give(INPUT);
            let id = || ReturnedId(bad.to_owned());
            let refused = |what| Err(Violation::NotInFlight { what, id: bad.to_owned() });
            assert_eq!(protocol.hear(FromChild::Ack(id())), refused("ack"));
            assert_eq!(protocol.hear(FromChild::Fail(id())), refused("fail"));
        }
    }

    #[test]
    fn an_emit_is_anchored_to_what_the_child_has() {
        check(&[
            Hear(PID, "Greeted"),
            Give(INPUT, 0),
            Hear(r#"{"command":"emit","anchors":["0"],"tuple":[5]}"#, "emit [Int(5)]"),
            Hear(r#"{"command":"ack","id":"0"}"#, "Acked"),
            Hear(r#"{"command":"emit","anchors":"0","tuple":[5]}"#, "\"emit\" for tuple \"0\""),
        ]);
    }

    #[test]
    fn the_pid_comes_first_and_once() {
        for early in [r#"{"command":"emit","tuple":[]}"#, r#"{"command":"ack","id":"0"}"#] {
            check(&[Hear(early, "before its pid")]);
        }
        check(&[
            Hear(r#"{"command":"log","msg":"loading"}"#, "loading"),
            Hear(SYNC, "Nothing"),
            Hear(PID, "Greeted"),
            Hear(PID, "twice"),
        ]);
    }

    #[test]
    fn one_heartbeat_is_open_at_a_time_and_any_message_answers_it() {
        check(&[
            Heartbeat(None),
            Hear(PID, "Greeted"),
            Heartbeat(Some(0)),
            Heartbeat(None),
            Hear(SYNC, "Nothing"),
            Heartbeat(Some(1)),
            Hear(r#"{"command":"log","msg":""}"#, "Log"),
            Heartbeat(Some(2)),
            Hear(r#"{"command":"ack","id":"2"}"#, "does not have"),
        ]);
    }

    #[test]
    fn what_a_dead_child_had_is_lost_and_its_ids_are_not_the_next_ones() {
        check(&[
            Hear(PID, "Greeted"),
            Give(INPUT, 0),
            Give(Kind::Tick, 1),
            Give(INPUT, 2),
            NewChild(2),
            Heartbeat(None),
            Hear(PID, "Greeted"),
            Give(INPUT, 3),
            Hear(r#"{"command":"ack","id":"2"}"#, "does not have"),
        ]);
    }
}
