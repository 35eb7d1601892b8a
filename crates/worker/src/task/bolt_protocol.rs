//! Protocol of a bolt's child: validity and meaning of its messages. No I/O.

use std::collections::{BTreeSet, VecDeque};

use super::{
    Violation,
    in_flight::{InFlight, InFlightTuple, TupleKind, TupleState},
};
use crate::{
    limits::TREES_MAX,
    multilang::message::{ComponentNotice, Emit, FromChild, ReturnedId},
    tracking::{Delivery, Settled, Settlement},
};
use stormkeeper_model::{TaskId, clock::Monotonic};
use stormkeeper_stream::Anchors;

/// Limit of heartbeats whose answers are awaited. Only a component that never answers one reaches it.
const MAX_HEARTBEATS: usize = 16;

/// State of the protocol with a bolt's child.
#[derive(Debug, Default)]
pub(super) struct BoltProtocol {
    handshake_done: bool,
    // A heartbeat was sent, and no message was received since.
    heartbeat_pending: bool,
    in_flight: InFlight,
    // Inputs given to this child; those given before the last heartbeat that it answered.
    n_given: u64,
    n_handled: u64,
    // Inputs given before each heartbeat that waits for its response, oldest first.
    heartbeats: VecDeque<u64>,
    // True if the component has acked or failed an input: one that never does is finished with an
    // input once it handles a later message.
    settles: bool,
    // Trees of which a tuple was refused.
    refused: Vec<Settled>,
}

/// Effect of a message, executed by the bolt's loop.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Nothing,
    /// The child is up.
    HandshakeDone,
    Emit(Emit),
    /// The child answered a heartbeat.
    Synced,
    /// Count an ack.
    Acked(InFlightTuple),
    /// Count a fail.
    Failed(InFlightTuple),
    /// The tuple of this delivery needs more time.
    TimeoutReset(Delivery),
    Notice(ComponentNotice),
}

impl BoltProtocol {
    /// Returns whether the child is up; it must not be sent tuples before.
    pub(super) fn is_handshake_done(&self) -> bool {
        self.handshake_done
    }

    /// Returns what a silent child owes, for operators.
    pub(super) fn awaited(&self) -> &'static str {
        match self.handshake_done {
            true => "message",
            false => "answer to the handshake",
        }
    }

    /// Returns the number of a tuple that is about to be sent to the child.
    pub(super) fn add_tuple(&mut self, kind: TupleKind) -> u64 {
        if matches!(kind, TupleKind::Input(_)) {
            self.n_given += 1;
        }
        self.in_flight.open(kind)
    }

    /// Returns the number of a heartbeat to send now. `None` while the last heartbeat is pending,
    /// so that heartbeats do not accumulate for a child that hangs.
    pub(super) fn heartbeat(&mut self) -> Option<u64> {
        if !self.handshake_done || self.heartbeat_pending {
            return None;
        }
        self.heartbeat_pending = true;
        if self.heartbeats.len() < MAX_HEARTBEATS {
            self.heartbeats.push_back(self.n_given);
        }
        Some(self.in_flight.add_closed())
    }

    /// Returns the number of inputs that the child was given and has not finished: for a component
    /// that acks or fails, the open ones.
    pub(super) fn n_unfinished(&self) -> u64 {
        match self.settles {
            true => self.in_flight.n_open_inputs(),
            false => self.n_given - self.n_handled,
        }
    }

    /// Handles a message of the child. Each message counts as a sign of life.
    ///
    /// # Errors
    /// [`Violation`] if the message makes no sense now; it has no effect then.
    #[inline]
    pub(super) fn on_message(&mut self, message: FromChild) -> Result<Effect, Violation> {
        self.heartbeat_pending = false;
        match message {
            FromChild::Notice(notice) => Ok(Effect::Notice(notice)),
            FromChild::Pid(_) if self.handshake_done => Err(Violation::PidTwice),
            FromChild::Pid(_) => {
                self.handshake_done = true;
                Ok(Effect::HandshakeDone)
            }
            FromChild::Emit(_) | FromChild::Ack(_) | FromChild::Fail(_) | FromChild::ResetTimeout(_)
                if !self.handshake_done =>
            {
                Err(Violation::BeforePid { what: message.name() })
            }
            FromChild::Emit(emit) => {
                let wrong = emit.anchors.iter().find_map(|anchor| self.open(anchor, "emit").err());
                match wrong {
                    None => Ok(Effect::Emit(emit)),
                    Some(wrong) => {
                        self.refuse(&emit.anchors);
                        Err(wrong)
                    }
                }
            }
            FromChild::ResetTimeout(id) => Ok(match self.open(&id, "reset_timeout")? {
                Some(TupleKind::Input(given)) => Effect::TimeoutReset(given.delivery.clone()),
                Some(TupleKind::Tick) | None => Effect::Nothing,
            }),
            FromChild::Ack(id) => self.settle("ack", &id, Effect::Acked),
            FromChild::Fail(id) => self.settle("fail", &id, Effect::Failed),
            FromChild::Sync | FromChild::Called(_) => {
                self.n_handled = self.heartbeats.pop_front().unwrap_or(self.n_handled);
                Ok(Effect::Synced)
            }
            // A sign of life: the messages of a batch come one by one.
            FromChild::Batch(_) => Ok(Effect::Nothing),
        }
    }

    /// Returns the number of trees to which an emit with these anchors belongs. One that several anchors name
    /// is counted once where that can matter: if there are more than may be.
    pub(super) fn n_trees(&mut self, anchors: &[ReturnedId]) -> usize {
        let n: usize = anchors.iter().filter_map(|id| Some(self.delivery(id)?.n_trees())).sum();
        if n <= TREES_MAX {
            return n;
        }
        let mut roots = BTreeSet::new();
        for id in anchors {
            roots.extend(self.delivery(id).iter().flat_map(|delivery| delivery.roots()));
        }
        roots.len()
    }

    /// Makes an emit to `receivers` a part of the trees of its anchors, each once. Every anchor is in flight.
    pub(super) fn anchor(&mut self, anchors: &[ReturnedId], receivers: &[TaskId]) -> Anchors {
        let (mut found, mut known) = (Vec::new(), BTreeSet::new());
        for id in anchors {
            // The trees of one delivery are distinct.
            let is_new = |root| anchors.len() == 1 || known.insert(root);
            if let Some(delivery) = self.delivery(id) {
                delivery.anchor(receivers, is_new, || fastrand::u64(..), &mut found);
            }
        }
        found.into_iter().collect()
    }

    /// Fails the trees of the anchors of an emit that was refused: a tuple of theirs is missing, whether or
    /// not the child acks its input.
    pub(super) fn refuse(&mut self, anchors: &[ReturnedId]) {
        for id in anchors {
            let Some(delivery) = self.delivery(id) else { continue };
            let failed: Vec<Settled> = delivery.settled(Settlement::Failed).collect();
            self.refused.extend(failed);
        }
    }

    /// Takes what emits that were refused tell the ackers.
    pub(super) fn take_refused(&mut self) -> impl Iterator<Item = Settled> + '_ {
        self.refused.drain(..)
    }

    /// Returns the time since which the child has a tracked tuple, if it has never acked or failed any.
    pub(super) fn unsettled_since(&self) -> Option<Monotonic> {
        let oldest = self.in_flight.oldest().filter(|_| !self.settles)?;
        (oldest.delivery.n_trees() > 0).then_some(oldest.at)
    }

    fn delivery(&mut self, id: &ReturnedId) -> Option<&mut Delivery> {
        match self.in_flight.state(number_of(id)?) {
            TupleState::Open(TupleKind::Input(given)) => Some(&mut given.delivery),
            TupleState::Open(TupleKind::Tick) | TupleState::Forgotten | TupleState::Unknown => None,
        }
    }

    /// Returns a tuple that the child names; `None` if the tuple was forgotten.
    fn open(&mut self, id: &ReturnedId, what: &'static str) -> Result<Option<&mut TupleKind>, Violation> {
        check_state(number_of(id).map(|number| self.in_flight.state(number)), what, id)
    }

    #[inline]
    fn settle(
        &mut self,
        what: &'static str,
        id: &ReturnedId,
        counted: impl Fn(InFlightTuple) -> Effect,
    ) -> Result<Effect, Violation> {
        let state = number_of(id).map(|number| self.in_flight.close(number));
        Ok(match check_state(state, what, id)? {
            Some(TupleKind::Input(given)) => {
                self.settles = true;
                counted(given)
            }
            Some(TupleKind::Tick) | None => Effect::Nothing,
        })
    }

    /// Resets the protocol for a new child. Calls `lost` for each open input of the old child.
    pub(super) fn reset(&mut self, lost: impl FnMut(InFlightTuple)) {
        (self.handshake_done, self.heartbeat_pending) = (false, false);
        (self.n_given, self.n_handled) = (0, 0);
        self.heartbeats.clear();
        self.in_flight.close_all(lost);
    }
}

fn number_of(id: &ReturnedId) -> Option<u64> {
    match id {
        ReturnedId::Number(number) => Some(*number),
        ReturnedId::Text(_) => None,
    }
}

/// Returns the kind of an open tuple; `None` if the tuple was forgotten.
fn check_state<T>(
    state: Option<TupleState<T>>,
    what: &'static str,
    id: &ReturnedId,
) -> Result<Option<T>, Violation> {
    match state {
        Some(TupleState::Open(kind)) => Ok(Some(kind)),
        Some(TupleState::Forgotten) => Ok(None),
        Some(TupleState::Unknown) | None => Err(Violation::NotInFlight { what, id: id.to_string() }),
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::metrics::StreamIndex;
    use stormkeeper_stream::{Anchor, AnchorList};

    const INPUT: TupleKind = TupleKind::Input(InFlightTuple {
        source: StreamIndex::UNKNOWN,
        at: Monotonic::START,
        delivery: Delivery::Untracked,
    });

    fn parse(text: &str) -> FromChild {
        FromChild::parse(text.as_bytes()).expect("a message").message
    }

    /// A step of a test: a call of the protocol and its expected result.
    enum Turn {
        Deliver(TupleKind, u64),
        Heartbeat(Option<u64>),
        Receive(&'static str, &'static str),
        NewChild(u64),
    }
    use Turn::{Deliver, Heartbeat, NewChild, Receive};

    fn check(turns: &[Turn]) {
        let mut protocol = BoltProtocol::default();
        for turn in turns {
            match turn {
                Deliver(kind, number) => assert_eq!(protocol.add_tuple(kind.clone()), *number),
                Heartbeat(expected) => assert_eq!(protocol.heartbeat(), *expected),
                NewChild(lost) => {
                    let mut n = 0;
                    protocol.reset(|_| n += 1);
                    assert_eq!(n, *lost);
                }
                Receive(message, expected) => {
                    let result = match protocol.on_message(parse(message)) {
                        Ok(Effect::Emit(emit)) => format!("emit {:?}", emit.values),
                        Ok(effect) => format!("{effect:?}"),
                        Err(violation) => violation.to_string(),
                    };
                    assert!(result.contains(expected), "{message}: {result:?}, not {expected:?}");
                }
            }
        }
    }

    const PID: &str = r#"{"pid":1}"#;
    const SYNC: &str = r#"{"command":"sync"}"#;

    #[test]
    fn acks_and_fails_are_counted_once_and_ticks_are_not() {
        check(&[
            Receive(PID, "HandshakeDone"),
            Deliver(INPUT, 0),
            Deliver(TupleKind::Tick, 1),
            Deliver(INPUT, 2),
            Receive(r#"{"command":"ack","id":"2"}"#, "Acked"),
            Receive(r#"{"command":"ack","id":"1"}"#, "Nothing"),
            Receive(r#"{"command":"fail","id":"0"}"#, "Failed"),
            Receive(r#"{"command":"ack","id":"0"}"#, "\"ack\" for tuple \"0\", which is not in flight"),
        ]);
    }

    #[test]
    fn ack_or_fail_of_an_unknown_id_is_rejected() {
        for bad in ["7", "x", "-1", "", "99999999999999999999"] {
            let mut protocol = BoltProtocol::default();
            assert_eq!(protocol.on_message(parse(PID)), Ok(Effect::HandshakeDone));
            protocol.add_tuple(INPUT);
            let id = || ReturnedId::from(bad.to_owned());
            let refused = |what| Err(Violation::NotInFlight { what, id: bad.to_owned() });
            assert_eq!(protocol.on_message(FromChild::Ack(id())), refused("ack"));
            assert_eq!(protocol.on_message(FromChild::Fail(id())), refused("fail"));
        }
    }

    #[test]
    fn emit_anchored_to_a_tuple_not_in_flight_is_rejected() {
        check(&[
            Receive(PID, "HandshakeDone"),
            Deliver(INPUT, 0),
            Receive(r#"{"command":"emit","anchors":["0"],"tuple":[5]}"#, "emit [Int(5)]"),
            Receive(r#"{"command":"ack","id":"0"}"#, "Acked"),
            Receive(r#"{"command":"emit","anchors":"0","tuple":[5]}"#, "\"emit\" for tuple \"0\""),
        ]);
    }

    #[test]
    fn tree_that_several_anchors_name_is_counted_once() {
        let anchors = |roots: std::ops::Range<u64>| -> Anchors {
            roots.map(|root| Anchor { acker: TaskId(1), root, edge: 7 }).collect()
        };
        let input = |roots| {
            let delivery = Delivery::of(AnchorList::Given(anchors(roots).as_slice()), TaskId(2));
            TupleKind::Input(InFlightTuple { source: StreamIndex::UNKNOWN, at: Monotonic::START, delivery })
        };
        let mut protocol = BoltProtocol::default();
        let most = TREES_MAX as u64;
        protocol.add_tuple(input(0..most));
        protocol.add_tuple(input(5..most));
        protocol.add_tuple(input(most..most + 5));
        let of = |ids: &[&str]| ids.iter().map(|id| ReturnedId::from((*id).to_owned())).collect::<Vec<_>>();
        assert_eq!(protocol.n_trees(&of(&["2"])), 5);
        assert_eq!(protocol.n_trees(&of(&["0", "0", "1"])), TREES_MAX);
        assert_eq!(protocol.n_trees(&of(&["0", "2", "9"])), TREES_MAX + 5);
    }

    #[test]
    fn pid_must_come_first_and_only_once() {
        for early in [r#"{"command":"emit","tuple":[]}"#, r#"{"command":"ack","id":"0"}"#] {
            check(&[Receive(early, "before its pid")]);
        }
        check(&[
            Receive(r#"{"command":"log","msg":"loading"}"#, "loading"),
            Receive(SYNC, "Synced"),
            Receive(PID, "HandshakeDone"),
            Receive(PID, "twice"),
        ]);
    }

    #[test]
    fn at_most_one_heartbeat_is_pending_and_any_message_clears_it() {
        check(&[
            Heartbeat(None),
            Receive(PID, "HandshakeDone"),
            Heartbeat(Some(0)),
            Heartbeat(None),
            Receive(SYNC, "Synced"),
            Heartbeat(Some(1)),
            Receive(r#"{"command":"log","msg":""}"#, "Log"),
            Heartbeat(Some(2)),
            Receive(r#"{"command":"ack","id":"2"}"#, "not in flight"),
        ]);
    }

    #[test]
    fn inputs_are_finished_when_they_are_acked_or_by_a_heartbeat_of_a_component_that_never_acks() {
        let mut protocol = BoltProtocol::default();
        let receive = |protocol: &mut BoltProtocol, text| protocol.on_message(parse(text)).expect("valid");
        receive(&mut protocol, PID);
        protocol.add_tuple(TupleKind::Tick);
        assert_eq!(protocol.n_unfinished(), 0);
        protocol.add_tuple(INPUT);
        protocol.heartbeat();
        protocol.add_tuple(INPUT);
        assert_eq!(protocol.n_unfinished(), 2);
        receive(&mut protocol, SYNC);
        assert_eq!(protocol.n_unfinished(), 1, "the heartbeat was sent after the first");
        receive(&mut protocol, SYNC);
        assert_eq!(protocol.n_unfinished(), 1);
        receive(&mut protocol, r#"{"command":"ack","id":"3"}"#);
        assert_eq!(protocol.n_unfinished(), 1, "a component that acks has not finished the first");
        protocol.reset(|_| {});
        assert_eq!(protocol.n_unfinished(), 0);
    }

    #[test]
    fn open_inputs_of_a_dead_child_are_lost_and_their_ids_are_not_reused() {
        check(&[
            Receive(PID, "HandshakeDone"),
            Deliver(INPUT, 0),
            Deliver(TupleKind::Tick, 1),
            Deliver(INPUT, 2),
            NewChild(2),
            Heartbeat(None),
            Receive(PID, "HandshakeDone"),
            Deliver(INPUT, 3),
            Receive(r#"{"command":"ack","id":"2"}"#, "not in flight"),
        ]);
    }
}
