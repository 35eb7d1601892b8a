//! What may have become of a topology, given what was asked and what was answered.
//!
//! A change whose answer says that it was made is made; one that was refused is not. One
//! whose answer was lost may happen at once, or later (the request may lie in the socket of a
//! process that stands still), or never: from then on both are possible.

use std::collections::BTreeSet;

/// A change that an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Submit,
    Rebalance { workers: u32, sinks: u32 },
    Activate,
    Deactivate,
    Kill,
}

/// What the answer says of the effect of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Nothing,
    Unknown,
}

/// A topology, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Gone,
    There { workers: u32, sinks: u32, is_active: bool },
}

/// Every state that one topology may be in.
#[derive(Debug, Clone)]
pub(super) struct Expectation {
    possible: BTreeSet<State>,
    /// Changes of unknown outcome, which may still take effect.
    floating: Vec<Wish>,
}

impl State {
    /// As the topology file says.
    pub(super) const SUBMITTED: Self = Self::There { workers: 2, sinks: 2, is_active: true };

    fn after(self, wish: Wish) -> Self {
        match (self, wish) {
            (Self::Gone, Wish::Submit) => Self::SUBMITTED,
            (Self::Gone, _) | (_, Wish::Kill) => Self::Gone,
            (Self::There { .. }, Wish::Submit) => self,
            (Self::There { is_active, .. }, Wish::Rebalance { workers, sinks }) => {
                Self::There { workers, sinks, is_active }
            }
            (Self::There { workers, sinks, .. }, Wish::Activate | Wish::Deactivate) => {
                Self::There { workers, sinks, is_active: wish == Wish::Activate }
            }
        }
    }
}

impl Expectation {
    /// Of a name that was never used.
    pub(super) fn nothing() -> Self {
        Self { possible: [State::Gone].into(), floating: Vec::new() }
    }

    /// Takes in what was answered.
    pub(super) fn learn(&mut self, wish: Wish, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Unknown => self.floating.push(wish),
            Outcome::Done => {
                if wish != Wish::Submit {
                    // It was there, so a submit that floated has landed, and lands once.
                    self.possible.remove(&State::Gone);
                    self.floating.retain(|floating| *floating != Wish::Submit);
                }
                self.possible = self.possible.iter().map(|state| state.after(wish)).collect();
            }
        }
        self.let_float();
    }

    /// Adds every state that floating changes can lead to.
    fn let_float(&mut self) {
        loop {
            let pairs =
                self.possible.iter().flat_map(|state| self.floating.iter().map(|wish| state.after(*wish)));
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

    /// Whether it may be there, so that there is something to ask of it.
    pub(super) fn may_be_there(&self) -> bool {
        self.possible.iter().any(|state| *state != State::Gone)
    }

    pub(super) fn possible(&self) -> &BTreeSet<State> {
        &self.possible
    }
}

mod tests {
    use super::*;

    const REBALANCE: Wish = Wish::Rebalance { workers: 3, sinks: 1 };
    const REBALANCED: State = State::There { workers: 3, sinks: 1, is_active: true };

    fn after(steps: &[(Wish, Outcome)]) -> Vec<State> {
        let mut expectation = Expectation::nothing();
        for (wish, outcome) in steps {
            expectation.learn(*wish, *outcome);
        }
        expectation.possible().iter().copied().collect()
    }

    #[test]
    fn answers_narrow_what_is_possible() {
        use Outcome::{Done, Nothing, Unknown};
        let check = |steps: &[(Wish, Outcome)], expected: &[State]| assert_eq!(after(steps), expected);
        check(&[(Wish::Submit, Nothing)], &[State::Gone]);
        check(&[(Wish::Submit, Done)], &[State::SUBMITTED]);
        check(&[(Wish::Submit, Unknown)], &[State::Gone, State::SUBMITTED]);
        check(&[(Wish::Submit, Unknown), (Wish::Kill, Nothing)], &[State::Gone, State::SUBMITTED]);
        check(&[(Wish::Submit, Unknown), (Wish::Kill, Done)], &[State::Gone]);
        check(&[(Wish::Submit, Unknown), (REBALANCE, Done)], &[REBALANCED]);
        check(&[(Wish::Submit, Done), (REBALANCE, Unknown)], &[State::SUBMITTED, REBALANCED]);
        // A lost rebalance may come after a later one.
        let second = Wish::Rebalance { workers: 4, sinks: 2 };
        let seconded = State::There { workers: 4, sinks: 2, is_active: true };
        check(&[(Wish::Submit, Done), (REBALANCE, Unknown), (second, Done)], &[REBALANCED, seconded]);
        check(
            &[(Wish::Submit, Done), (Wish::Kill, Unknown), (Wish::Kill, Nothing)],
            &[State::Gone, State::SUBMITTED],
        );
    }
}
