//! How cuts get to the leader, each once: what a topology master and a supervisor decide.
//! No I/O.
//!
//! ```text
//!  cuts ─ add ─▶ waiting ─ merge ─▶ outgoing ─ stored ─▶ stored ─ safe ─▶ forgotten
//!                   ▲                  │ overlaps, new ids   │ another term, no news
//!                   └──────────────────┴─────────────────────┘
//! ```
//!
//! - Whoever carries it out tells who leads ([`Delivery::led_by`]), asks what to send
//!   ([`Delivery::next_ask`]), and tells the answer, if there was one. An answer that was lost is
//!   no answer: the same is sent again.
//! - A cut is forgotten when it is safe, which means: an answer given *in the term in which it
//!   was stored* says so. Another leader may have lost what was stored and not safe, so on a
//!   change of terms everything is sent again, oldest first, before anything that follows.
//! - One request is under way at a time, and contributions go in their order, so the leader
//!   never sees a cut of a launch before the one that precedes it.
//! - At most [`LEAVES_MAX`] leaves are held; more cuts are not taken in, and stay with those
//!   who took them.

mod carrier;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

pub use carrier::{Brought, bring};
use names::Names;
use tracing::warn;

use crate::{
    clock::Monotonic,
    metrics::{Contribution, MetricId, MetricName, contribution::Cuts, merge::AddError},
    model::{Position, Term, TopologyId, WorkerId},
    rpc::{
        cuts::Cut,
        metrics::{ContributeAnswer, RegisterAnswer, RegisterRequest},
    },
};

/// How many leaves are held: four minutes of 200 workers with 5,000 metrics each, a few hundred
/// MiB at most. While the leader is away for longer, cuts wait on the disks of their workers.
pub const LEAVES_MAX: usize = 4_000_000;

/// Cuts on their way to the leader.
#[derive(Debug)]
pub struct Delivery {
    topology: TopologyId,
    names: Names,
    term: Option<Term>,
    // Of each launch by number.
    held: BTreeMap<WorkerId, VecDeque<Held>>,
    n_leaves: usize,
    outgoing: VecDeque<Contribution>,
    // The last cut of each launch that the leader of this term said it has.
    stored: BTreeMap<WorkerId, u64>,
    // The last cut of each launch that is safe or given up, until it is told.
    safe: BTreeMap<WorkerId, u64>,
    dropped_cuts: u64,
}

#[derive(Debug)]
struct Held {
    cut: Cut,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Outgoing,
    Stored { at: Position, since: Monotonic },
}

/// What became of a cut that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It is on its way, or was before.
    Taken,
    /// It is safe already.
    Safe,
    /// Not taken: these of its metrics have no names here.
    Nameless(Vec<MetricId>),
    /// Not taken: too much is held. Hand it in again later.
    Full,
}

/// A request for the leader.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// See [`Delivery::registered`].
    Register(RegisterRequest),
    /// See [`Delivery::contributed`].
    Contribute(Contribution),
}

/// Whether to go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Then {
    /// Ask what to send next.
    GoOn,
    /// The leader wants to be left alone for a moment.
    Pause,
}

impl Delivery {
    /// Nothing yet, of this topology.
    pub fn new(topology: TopologyId) -> Self {
        Self {
            names: Names::new(topology.clone()),
            topology,
            term: None,
            held: BTreeMap::new(),
            n_leaves: 0,
            outgoing: VecDeque::new(),
            stored: BTreeMap::new(),
            safe: BTreeMap::new(),
            dropped_cuts: 0,
        }
    }

    /// Learns how a launch calls the metrics of its cuts.
    pub fn learn(&mut self, worker: &WorkerId, names: &[(MetricId, MetricName)]) {
        self.names.learn(worker, names);
    }

    /// Takes a cut on its way. Those of one launch come in the order of their numbers; one that
    /// came before is not taken twice.
    pub fn add(&mut self, cut: Cut) -> Added {
        let worker = &cut.snapshot.worker;
        let last_held = self.held.get(worker).and_then(|held| held.back());
        if last_held.is_some_and(|last| cut.snapshot.number <= last.cut.snapshot.number) {
            return Added::Taken;
        }
        if self.safe.get(worker).is_some_and(|safe| cut.snapshot.number <= *safe) {
            return Added::Safe;
        }
        let nameless = self.names.nameless(&cut.snapshot);
        if !nameless.is_empty() {
            return Added::Nameless(nameless);
        }
        let n_leaves = self.n_leaves + cut.snapshot.leaves.len();
        if n_leaves > LEAVES_MAX && self.n_leaves > 0 {
            return Added::Full;
        }
        self.n_leaves = n_leaves;
        self.held.entry(worker.clone()).or_default().push_back(Held { cut, state: State::Waiting });
        Added::Taken
    }

    /// Takes in who leads, before anything is sent.
    pub fn led_by(&mut self, term: Term) {
        if self.term.is_none_or(|known| known != term) {
            self.term = Some(term);
            self.stored.clear();
            self.names.forget_registrations();
            self.send_again(|_| true);
        }
    }

    /// What to send now; none when everything is with the leader.
    pub fn next_ask(&mut self) -> Option<Ask> {
        loop {
            if let Some(request) = self.names.claims() {
                return Some(Ask::Register(request));
            }
            if let Some(front) = self.outgoing.front() {
                let mut contribution = front.clone();
                self.names.strip(&mut contribution);
                return Some(Ask::Contribute(contribution));
            }
            if !self.merge() {
                return None;
            }
        }
    }

    /// Takes in the leader's answer to the registration that [`next_ask`](Self::next_ask) asked for.
    pub fn registered(&mut self, answer: &RegisterAnswer) -> Then {
        match self.names.registered(answer) {
            Some(names::Change::Ids) => self.unmerge(),
            Some(names::Change::Nothing) => {}
            None => {
                warn!(topology = %self.topology, "the leader answered another number of names than it was told");
                return Then::Pause;
            }
        }
        Then::GoOn
    }

    /// Takes in the leader's answer to the contribution that [`next_ask`](Self::next_ask) asked for.
    pub fn contributed(&mut self, answer: ContributeAnswer, now: Monotonic) -> Then {
        match answer {
            ContributeAnswer::Stored { at, safe } => {
                let Some(contribution) = self.outgoing.pop_front() else { return Then::GoOn };
                self.set(&contribution.cuts, State::Stored { at, since: now });
                self.forget_safe(safe);
            }
            ContributeAnswer::Overlaps { stored } => {
                for cut in stored {
                    let last = self.stored.entry(cut.worker).or_default();
                    *last = (*last).max(cut.last);
                }
                self.unmerge();
            }
            ContributeAnswer::Unregistered { ids } => {
                let known_before = self.names.unregistered(&ids);
                if !known_before {
                    warn!(topology = %self.topology, n = ids.len(), "the leader asks for names that nobody measures");
                    return Then::Pause;
                }
            }
            ContributeAnswer::NotNow { .. } => return Then::Pause,
            ContributeAnswer::Refused { reason } => self.refused(&reason),
        }
        Then::GoOn
    }

    /// The contribution that was to be sent will never be taken: it is given up, and so are its
    /// cuts.
    pub fn refused(&mut self, reason: &str) {
        let Some(contribution) = self.outgoing.pop_front() else { return };
        let n_cuts: u64 = contribution.cuts.iter().map(|cuts| cuts.last + 1 - cuts.first).sum();
        self.dropped_cuts += n_cuts;
        warn!(topology = %self.topology, minute = %contribution.minute, n_cuts, so_far = self.dropped_cuts, reason,
            "metrics are refused and dropped");
        for cuts in &contribution.cuts {
            self.forget(&cuts.worker, |held| (cuts.first..=cuts.last).contains(&held.cut.snapshot.number));
            self.note_safe(&cuts.worker, cuts.last);
        }
    }

    /// Sends what was stored before `since` and is not known to be safe once more, to hear how
    /// it is now. For when nothing else is sent that would tell.
    pub fn ask_again(&mut self, since: Monotonic) {
        self.send_again(|stored| stored <= since);
    }

    /// The last cut of each launch up to which all are safe or given up, as far as that was not
    /// told before.
    pub fn newly_safe(&mut self) -> BTreeMap<WorkerId, u64> {
        std::mem::take(&mut self.safe)
    }

    /// Whether there is nothing that is not safe.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many cuts are held.
    pub fn len(&self) -> usize {
        self.held.values().map(VecDeque::len).sum()
    }

    /// Which launches have cuts that wait to be sent.
    pub fn waiting(&self) -> impl Iterator<Item = &WorkerId> {
        let waits = |held: &VecDeque<Held>| held.iter().any(|held| held.state == State::Waiting);
        self.held.iter().filter(move |(_, held)| waits(held)).map(|(worker, _)| worker)
    }

    /// How many cuts were refused and dropped.
    pub fn dropped_cuts(&self) -> u64 {
        self.dropped_cuts
    }

    /// Makes contributions of what waits; answers whether there was any. What the leader has
    /// already goes apart: together with other cuts it would be refused.
    fn merge(&mut self) -> bool {
        let mut lost = Vec::new();
        for is_stored in [true, false] {
            let mut firsts = BTreeMap::new();
            for (worker, held) in &mut self.held {
                let stored = self.stored.get(worker).copied().unwrap_or(0);
                let waiting = held.iter_mut().filter(|held| held.state == State::Waiting);
                for Held { cut, state } in
                    waiting.filter(|held| (held.cut.snapshot.number <= stored) == is_stored)
                {
                    if !is_stored && cut.first <= stored {
                        lost.push((
                            worker.clone(),
                            cut.snapshot.number,
                            "a part of it is stored already".to_owned(),
                        ));
                        continue;
                    }
                    match self.names.merge(&cut.snapshot) {
                        Ok(()) => {
                            firsts.insert((worker.clone(), cut.snapshot.number), cut.first);
                            *state = State::Outgoing;
                        }
                        Err(
                            error @ (AddError::Topology(..)
                            | AddError::Unknown { .. }
                            | AddError::Order { .. }),
                        ) => {
                            lost.push((worker.clone(), cut.snapshot.number, error.to_string()));
                        }
                    }
                }
            }
            let mut contributions = self.names.contributions();
            for cuts in contributions.iter_mut().flat_map(|contribution| &mut contribution.cuts) {
                // A cut may stand for several.
                if let Some(first) = firsts.get(&(cuts.worker.clone(), cuts.first)) {
                    cuts.first = *first;
                }
            }
            self.outgoing.extend(contributions);
        }
        for (worker, number, reason) in lost {
            self.dropped_cuts += 1;
            warn!(topology = %self.topology, %worker, number, reason, so_far = self.dropped_cuts, "a cut is dropped");
            self.forget(&worker, |held| held.cut.snapshot.number == number);
        }
        !self.outgoing.is_empty()
    }

    /// What is outgoing waits again, to be merged anew.
    fn unmerge(&mut self) {
        self.outgoing.clear();
        for held in self.held.values_mut().flatten().filter(|held| held.state == State::Outgoing) {
            held.state = State::Waiting;
        }
    }

    /// What was stored at times that `which` picks is sent again, and with it all that follows.
    fn send_again(&mut self, which: impl Fn(Monotonic) -> bool) {
        for held in self.held.values_mut().flatten() {
            match held.state {
                State::Stored { since, .. } if which(since) => held.state = State::Waiting,
                State::Stored { .. } | State::Waiting | State::Outgoing => {}
            }
        }
        self.unmerge();
    }

    fn set(&mut self, cuts: &[Cuts], state: State) {
        for cuts in cuts {
            let held = self.held.get_mut(&cuts.worker).into_iter().flatten();
            for held in held.filter(|held| (cuts.first..=cuts.last).contains(&held.cut.snapshot.number)) {
                held.state = state;
            }
            if matches!(state, State::Stored { .. }) {
                let last = self.stored.entry(cuts.worker.clone()).or_default();
                *last = (*last).max(cuts.last);
            }
        }
    }

    /// Forgets what is safe, from the first of each launch on.
    fn forget_safe(&mut self, safe: Position) {
        let workers: Vec<WorkerId> = self.held.keys().cloned().collect();
        for worker in workers {
            let is_safe = |held: &&Held| matches!(held.state, State::Stored { at, .. } if at <= safe);
            let last = self.held.get(&worker).and_then(|held| held.iter().take_while(is_safe).last());
            let Some(last) = last.map(|held| held.cut.snapshot.number) else { continue };
            self.forget(&worker, |held| held.cut.snapshot.number <= last);
            self.note_safe(&worker, last);
        }
    }

    fn note_safe(&mut self, worker: &WorkerId, last: u64) {
        let safe = self.safe.entry(worker.clone()).or_default();
        *safe = (*safe).max(last);
    }

    fn forget(&mut self, worker: &WorkerId, which: impl Fn(&Held) -> bool) {
        let Some(held) = self.held.get_mut(worker) else { return };
        held.retain(|held| {
            let goes = which(held);
            if goes {
                self.n_leaves = self.n_leaves.saturating_sub(held.cut.snapshot.leaves.len());
            }
            !goes
        });
        if held.is_empty() {
            self.held.remove(worker);
        }
    }
}
