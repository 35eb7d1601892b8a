//! What uploaders have in their hands, and what they are to leave alone for a while. In memory
//! only.

use std::{
    collections::{BTreeMap, btree_map},
    time::Duration,
};

use super::Flow;
use stormkeeper_model::clock::Monotonic;

/// A pause doubles at most so often.
const DOUBLINGS_MAX: u32 = 6;

/// The longest text kept of a refusal.
const REASON_BYTES_MAX: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Hands(BTreeMap<String, Hand>);

#[derive(Debug, Default)]
struct Hand {
    held: BTreeMap<u64, Held>,
    /// Nothing is given before; set by each refusal.
    rests_until: Option<Monotonic>,
    n_refused: u64,
    last_refusal: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    state: State,
    attempts: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Uploading { until: Monotonic },
    Paused { until: Monotonic },
}

impl Hands {
    /// Whether the uploader may have one more. What ran out of time is refused first.
    pub(super) fn may_have(&mut self, uploader: &str, now: Monotonic, flow: Flow) -> bool {
        let Some(hand) = self.0.get_mut(uploader) else { return flow.uploading_max > 0 };
        let late: Vec<u64> = hand
            .held
            .iter()
            .filter_map(|(index, held)| match held.state {
                State::Uploading { until } if until <= now => Some(*index),
                State::Uploading { .. } | State::Paused { .. } => None,
            })
            .collect();
        for index in late {
            hand.refuse(index, now, flow, "it did not end in time");
        }
        hand.rests_until.is_none_or(|until| until <= now) && hand.n_uploading() < flow.uploading_max
    }

    /// Whether the uploader has not got `index`, and need not leave it alone.
    pub(super) fn is_free(&self, uploader: &str, index: u64, now: Monotonic) -> bool {
        match self.0.get(uploader).and_then(|hand| hand.held.get(&index)) {
            None => true,
            Some(Held { state: State::Paused { until }, .. }) => *until <= now,
            Some(Held { state: State::Uploading { .. }, .. }) => false,
        }
    }

    /// The uploader has `index` now. Answers how often it had it before.
    pub(super) fn give(&mut self, uploader: &str, index: u64, now: Monotonic, flow: Flow) -> u32 {
        let state = State::Uploading { until: now.plus(flow.timeout) };
        match self.0.entry(uploader.to_owned()).or_default().held.entry(index) {
            btree_map::Entry::Vacant(place) => {
                place.insert(Held { state, attempts: 0 });
                0
            }
            btree_map::Entry::Occupied(mut held) => {
                held.get_mut().state = state;
                held.get().attempts
            }
        }
    }

    pub(super) fn refuse(&mut self, uploader: &str, index: u64, now: Monotonic, flow: Flow, reason: &str) {
        if let Some(hand) = self.0.get_mut(uploader) {
            hand.refuse(index, now, flow, reason);
        }
    }

    pub(super) fn let_go(&mut self, uploader: &str, index: u64) {
        if let Some(hand) = self.0.get_mut(uploader) {
            hand.held.remove(&index);
        }
    }

    pub(super) fn forget(&mut self, index: u64) {
        for hand in self.0.values_mut() {
            hand.held.remove(&index);
        }
    }

    pub(super) fn retire(&mut self, uploader: &str) {
        self.0.remove(uploader);
    }

    /// How many it has, how many it refused, and why the last.
    pub(super) fn of(&self, uploader: &str) -> (usize, u64, Option<String>) {
        self.0
            .get(uploader)
            .map(|hand| (hand.n_uploading(), hand.n_refused, hand.last_refusal.clone()))
            .unwrap_or_default()
    }
}

impl Hand {
    fn n_uploading(&self) -> usize {
        self.held.values().filter(|held| matches!(held.state, State::Uploading { .. })).count()
    }

    /// Nothing when it has not got `index`: it was told to have run out of time before.
    fn refuse(&mut self, index: u64, now: Monotonic, flow: Flow, reason: &str) {
        let Some(held) = self.held.get_mut(&index) else { return };
        if matches!(held.state, State::Paused { .. }) {
            return;
        }
        let pause: Duration = flow.pause * 2_u32.pow(held.attempts.min(DOUBLINGS_MAX));
        held.attempts = held.attempts.saturating_add(1);
        held.state = State::Paused { until: now.plus(pause) };
        self.rests_until = Some(now.plus(flow.pause));
        self.n_refused += 1;
        self.last_refusal = Some(reason.chars().take(REASON_BYTES_MAX / 4).collect());
    }
}
