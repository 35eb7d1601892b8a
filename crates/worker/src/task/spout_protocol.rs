//! Protocol of a spout's child: validity and meaning of its messages, and the next command. No I/O.

use std::{collections::VecDeque, time::Duration};

use super::{Activity, Violation};
use crate::{
    multilang::message::{Calls, ComponentNotice, Emit, FromChild, SpoutCommand},
    tracking::{Outcome, PENDING_MAX, PendingTuple, PendingTuples},
};
use stormkeeper_model::clock::Monotonic;
use stormkeeper_stream::Value;

/// Limits of the tuples whose trees are tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TreeLimits {
    /// `topology.max.spout.pending`: with as many pending tuples the spout is not asked for more.
    pub(super) max_pending: usize,
    /// Time after which a tree fails; `None` if trees have no timeout.
    pub(super) timeout: Option<Duration>,
}

/// State of the protocol with a spout's child: one command at a time, to which the child replies
/// with `sync`.
#[derive(Debug)]
pub(super) struct SpoutProtocol {
    handshake_done: bool,
    awaited: Option<SpoutCommand>,
    last_activity: Option<Activity>,
    // Outcomes of emits with an id that the child was not told yet, oldest first: `Ack` or `Fail`.
    outcomes: VecDeque<(SpoutCommand, Value)>,
    pending: PendingTuples,
    // `None` if trees are not tracked: a tuple is acked once it is emitted.
    limits: Option<TreeLimits>,
    // True if the child emitted a tuple since the last `next`.
    emitted: bool,
}

/// Effect of a message, executed by the spout's loop.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Nothing,
    /// The child is up.
    HandshakeDone,
    Emit(Emit, Care),
    /// A `next` is complete.
    Next(Yield, Calls),
    Notice(ComponentNotice),
}

/// Treatment of an emitted tuple.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Care {
    /// The tuple has no id: nobody is told.
    None,
    /// The tuple has this id, and its tree decides its outcome.
    Tree(Value),
    /// The tuple has this id, and is acked when it was emitted.
    AckAtOnce(Value),
    /// The tuple has an id, and too many tuples are pending: nobody will be told.
    Dropped,
}

/// Result of a `next`: whether it emitted a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Yield {
    Something,
    Nothing,
}

impl SpoutProtocol {
    /// The protocol with a new child. Trees are tracked if there are `limits`.
    pub(super) fn new(limits: Option<TreeLimits>) -> Self {
        Self {
            handshake_done: false,
            awaited: None,
            last_activity: None,
            outcomes: VecDeque::new(),
            pending: PendingTuples::new(limits.and_then(|limits| limits.timeout)),
            limits,
            emitted: false,
        }
    }

    /// Returns whether the child is up.
    pub(super) fn is_handshake_done(&self) -> bool {
        self.handshake_done
    }

    /// Returns whether the child's pid or a `sync` is outstanding.
    pub(super) fn awaits_answer(&self) -> bool {
        !self.handshake_done || self.awaited.is_some()
    }

    /// Returns what a silent child owes, for operators.
    pub(super) fn awaited(&self) -> &'static str {
        match self.awaited {
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
        self.awaited == Some(SpoutCommand::Next)
    }

    /// Returns the number of tuples whose outcome the child does not know.
    pub(super) fn n_pending(&self) -> usize {
        self.pending.len() + self.outcomes.len()
    }

    /// Returns the next command for the child, with the id that it refers to. `None` while a
    /// reply of the child is outstanding, and if there is nothing to tell and the spout is inactive, may
    /// not be called now (`may_call`), or has as many pending tuples as it may have.
    ///
    /// Acks and fails come before all other commands, in the order in which they arrived.
    pub(super) fn next_command(
        &mut self,
        activity: Activity,
        may_call: bool,
    ) -> Option<(SpoutCommand, Value)> {
        if self.awaits_answer() {
            return None;
        }
        let (command, id) = match (self.outcomes.pop_front(), self.last_activity, activity) {
            (Some(outcome), _, _) => outcome,
            (None, None | Some(Activity::Inactive), Activity::Active) => (SpoutCommand::Activate, no_id()),
            (None, Some(Activity::Active), Activity::Inactive) => (SpoutCommand::Deactivate, no_id()),
            (None, Some(Activity::Active), Activity::Active) if may_call && !self.is_full() => {
                (SpoutCommand::Next, no_id())
            }
            (None, Some(Activity::Active), Activity::Active)
            | (None, None | Some(Activity::Inactive), Activity::Inactive) => return None,
        };
        match command {
            SpoutCommand::Activate | SpoutCommand::Deactivate => self.last_activity = Some(activity),
            SpoutCommand::Next => self.emitted = false,
            SpoutCommand::Ack | SpoutCommand::Fail => {}
        }
        self.awaited = Some(command);
        Some((command, id))
    }

    /// Returns at least two and at most `max` outcomes to tell the child in one message, which it answers
    /// once. Empty while a reply of the child is outstanding, and if [`next_command`](Self::next_command) has
    /// at most one to tell.
    pub(super) fn next_outcomes(&mut self, max: usize) -> impl Iterator<Item = (SpoutCommand, Value)> + '_ {
        let n = match self.awaits_answer() || self.outcomes.len() < 2 {
            true => 0,
            false => self.outcomes.len().min(max),
        };
        if let Some((command, _)) = n.checked_sub(1).and_then(|last| self.outcomes.get(last)) {
            self.awaited = Some(*command);
        }
        self.outcomes.drain(..n)
    }

    fn synced(&mut self, calls: Calls) -> Effect {
        match (self.awaited.take(), self.emitted) {
            (Some(SpoutCommand::Next), true) => Effect::Next(Yield::Something, calls),
            (Some(SpoutCommand::Next), false) => Effect::Next(Yield::Nothing, calls),
            (Some(_) | None, _) => Effect::Nothing,
        }
    }

    /// Returns the number of tuples that the spout may emit until it has as many pending as it may have.
    pub(super) fn room(&self) -> usize {
        let max = self.limits.map_or(PENDING_MAX, |limits| limits.max_pending);
        max.saturating_sub(self.pending.len())
    }

    fn is_full(&self) -> bool {
        self.limits.is_some_and(|limits| self.pending.len() >= limits.max_pending)
    }

    /// Handles an emit that was refused: a tuple with an id fails, so that the spout gets past it.
    /// Returns whether the spout will be told.
    pub(super) fn refuse(&mut self, id: Option<Value>) -> bool {
        let id = id.filter(|_| self.handshake_done && self.n_pending() < PENDING_MAX);
        let is_told = id.is_some();
        self.outcomes.extend(id.map(|id| (SpoutCommand::Fail, id)));
        is_told
    }

    /// Tells the child the outcome of a tuple whose tree has not begun.
    pub(super) fn tell(&mut self, outcome: Outcome, id: Value) {
        let command = match outcome {
            Outcome::Acked => SpoutCommand::Ack,
            Outcome::Failed => SpoutCommand::Fail,
        };
        self.outcomes.push_back((command, id));
    }

    /// Adds a tuple whose tree begins.
    pub(super) fn begin(&mut self, root: u64, tuple: PendingTuple) {
        self.pending.add(root, tuple);
    }

    /// Ends a tree, and tells the child. Returns the tuple; `None` if its outcome is known already.
    pub(super) fn end(&mut self, root: u64, outcome: Outcome) -> Option<PendingTuple> {
        let tuple = self.pending.settle(root)?;
        self.tell(outcome, tuple.id.clone());
        Some(tuple)
    }

    /// Fails one tuple whose time is over, if there is one. Returns it with the root of its tree.
    pub(super) fn expire(&mut self, now: Monotonic) -> Option<(u64, PendingTuple)> {
        let (root, tuple) = self.pending.expire(now)?;
        self.tell(Outcome::Failed, tuple.id.clone());
        Some((root, tuple))
    }

    /// Starts the timeout of a tree again.
    pub(super) fn reset_timeout(&mut self, root: u64, now: Monotonic) {
        self.pending.reset_timeout(root, now);
    }

    /// Ends all trees: the child that knows their ids is gone.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = (u64, PendingTuple)> + '_ {
        self.pending.clear()
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
                let care = match emit.id.take() {
                    None => Care::None,
                    Some(_) if self.n_pending() >= PENDING_MAX => Care::Dropped,
                    Some(id) if self.limits.is_some() => Care::Tree(id),
                    Some(id) => Care::AckAtOnce(id),
                };
                Ok(Effect::Emit(emit, care))
            }
            FromChild::Ack(_) | FromChild::Fail(_) | FromChild::ResetTimeout(_) => {
                Err(Violation::NotForSpouts { what: message.name() })
            }
            // An unrequested `sync` has no effect; pystorm sends one after an error.
            FromChild::Sync => Ok(self.synced(Calls { n: 1, is_last_empty: !self.emitted })),
            FromChild::Called(calls) => Ok(self.synced(calls)),
            // A sign of life: the messages of a batch come one by one.
            FromChild::Batch(_) => Ok(Effect::Nothing),
        }
    }
}

/// Returns the id of a command that refers to no tuple.
fn no_id() -> Value {
    Value::Text(String::new())
}

#[cfg(test)]
mod tests;
