//! Possible states of a topology, given the requested operations and their responses.
//!
//! An operation with a successful response took effect; a rejected operation did not. An operation
//! without a response may take effect at once, or later (the request may be in the socket of a
//! frozen process), or never: from then on, both are possible.

use std::collections::BTreeSet;

/// An operation that an operator requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Submit,
    Rebalance { workers: u32, sinks: u32 },
    Activate,
    Deactivate,
    Kill,
}

/// Effect of an operation, according to the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Nothing,
    Unknown,
}

/// State of a topology, or its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Gone,
    Present { workers: u32, sinks: u32, is_active: bool },
}

/// All possible states of one topology.
#[derive(Debug, Clone)]
pub(super) struct Expectation {
    possible: BTreeSet<State>,
    /// Operations with an unknown outcome, which may still take effect.
    pending: Vec<Operation>,
}

impl State {
    /// State after a submit, as the topology file defines it.
    pub(super) const SUBMITTED: Self = Self::Present { workers: 2, sinks: 2, is_active: true };

    fn after(self, operation: Operation) -> Self {
        match (self, operation) {
            (Self::Gone, Operation::Submit) => Self::SUBMITTED,
            (Self::Gone, _) | (_, Operation::Kill) => Self::Gone,
            (Self::Present { .. }, Operation::Submit) => self,
            (Self::Present { is_active, .. }, Operation::Rebalance { workers, sinks }) => {
                Self::Present { workers, sinks, is_active }
            }
            (Self::Present { workers, sinks, .. }, Operation::Activate | Operation::Deactivate) => {
                Self::Present { workers, sinks, is_active: operation == Operation::Activate }
            }
        }
    }
}

impl Expectation {
    /// Expectation for a name that was never used.
    pub(super) fn nothing() -> Self {
        Self { possible: [State::Gone].into(), pending: Vec::new() }
    }

    /// Records the outcome of an operation.
    pub(super) fn record(&mut self, operation: Operation, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Unknown => self.pending.push(operation),
            Outcome::Done => {
                if operation != Operation::Submit {
                    // The topology existed, so a pending submit has taken effect, and does so once
                    // only.
                    self.possible.remove(&State::Gone);
                    self.pending.retain(|pending| *pending != Operation::Submit);
                }
                self.possible = self.possible.iter().map(|state| state.after(operation)).collect();
            }
        }
        self.apply_pending();
    }

    /// Adds every state to which pending operations can lead.
    fn apply_pending(&mut self) {
        loop {
            let pairs = self
                .possible
                .iter()
                .flat_map(|state| self.pending.iter().map(|operation| state.after(*operation)));
            let reached: BTreeSet<State> = pairs.filter(|state| !self.possible.contains(state)).collect();
            if reached.is_empty() {
                return;
            }
            self.possible.extend(reached);
        }
    }

    pub(super) fn allows(&self, state: State) -> bool {
        self.possible.contains(&state)
    }

    /// True if the topology may exist, so that operations on it make sense.
    pub(super) fn may_exist(&self) -> bool {
        self.possible.iter().any(|state| *state != State::Gone)
    }

    pub(super) fn possible(&self) -> &BTreeSet<State> {
        &self.possible
    }
}

mod tests {
    use super::*;

    const REBALANCE: Operation = Operation::Rebalance { workers: 3, sinks: 1 };
    const REBALANCED: State = State::Present { workers: 3, sinks: 1, is_active: true };

    fn after(steps: &[(Operation, Outcome)]) -> Vec<State> {
        let mut expectation = Expectation::nothing();
        for (operation, outcome) in steps {
            expectation.record(*operation, *outcome);
        }
        expectation.possible().iter().copied().collect()
    }

    #[test]
    fn responses_narrow_the_possible_states() {
        use Outcome::{Done, Nothing, Unknown};
        let check = |steps: &[(Operation, Outcome)], expected: &[State]| assert_eq!(after(steps), expected);
        check(&[(Operation::Submit, Nothing)], &[State::Gone]);
        check(&[(Operation::Submit, Done)], &[State::SUBMITTED]);
        check(&[(Operation::Submit, Unknown)], &[State::Gone, State::SUBMITTED]);
        check(&[(Operation::Submit, Unknown), (Operation::Kill, Nothing)], &[State::Gone, State::SUBMITTED]);
        check(&[(Operation::Submit, Unknown), (Operation::Kill, Done)], &[State::Gone]);
        check(&[(Operation::Submit, Unknown), (REBALANCE, Done)], &[REBALANCED]);
        check(&[(Operation::Submit, Done), (REBALANCE, Unknown)], &[State::SUBMITTED, REBALANCED]);
        // A rebalance without a response may take effect after a later rebalance.
        let second = Operation::Rebalance { workers: 4, sinks: 2 };
        let seconded = State::Present { workers: 4, sinks: 2, is_active: true };
        check(&[(Operation::Submit, Done), (REBALANCE, Unknown), (second, Done)], &[REBALANCED, seconded]);
        check(
            &[(Operation::Submit, Done), (Operation::Kill, Unknown), (Operation::Kill, Nothing)],
            &[State::Gone, State::SUBMITTED],
        );
    }
}
