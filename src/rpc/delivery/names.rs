//! The names of the metrics on their way, and which of them the leader knows.

use std::collections::{HashMap, HashSet, VecDeque};

use tracing::warn;

use crate::{
    metrics::{Contribution, Merger, MetricId, MetricName, Snapshot, merge::AddError},
    model::{TopologyId, WorkerId},
    rpc::metrics::{Claim, NAMES_MAX, RegisterAnswer, RegisterRequest, Registered},
};

/// Knows names and makes contributions of snapshots.
#[derive(Debug)]
pub(super) struct Names {
    topology: TopologyId,
    merger: Merger,
    // What launches call metrics, as far as the merger has learnt it.
    told: HashSet<MetricId>,
    // What launches call metrics whose ids others have here.
    aliases: HashMap<(WorkerId, MetricId), MetricId>,
    // What there was no room for.
    unlearnt: HashSet<MetricId>,
    claims: VecDeque<Claim>,
    n_asked: usize,
    // The leader of this term does not want their points.
    refused: HashSet<MetricId>,
}

/// What a registration changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Points go under other ids than before.
    Ids,
    Nothing,
}

impl Names {
    pub(super) fn new(topology: TopologyId) -> Self {
        Self {
            merger: Merger::new(topology.clone()),
            topology,
            told: HashSet::new(),
            aliases: HashMap::new(),
            unlearnt: HashSet::new(),
            claims: VecDeque::new(),
            n_asked: 0,
            refused: HashSet::new(),
        }
    }

    pub(super) fn learn(&mut self, worker: &WorkerId, names: &[(MetricId, MetricName)]) {
        for (id, name) in names {
            // One that was told before costs a look-up; most are told once.
            let mut as_id = *id;
            let mut probe = 0;
            let n_before = self.merger.n_names();
            let told = loop {
                let told = self.merger.names(&[(as_id, name.clone())]);
                if told.conflicts.is_empty() {
                    break told;
                }
                as_id = MetricId::of(&name.to_string(), probe);
                probe += 1;
            };
            if told.refused > 0 && self.merger.n_names() == n_before {
                self.unlearnt.insert(*id);
                continue;
            }
            if as_id != *id {
                self.aliases.insert((worker.clone(), *id), as_id);
            }
            self.told.insert(*id);
            if self.merger.n_names() > n_before {
                self.claim((as_id, name.clone()));
            }
            told.lifted.into_iter().for_each(|lifted| self.claim(lifted));
        }
    }

    fn claim(&mut self, (id, name): (MetricId, MetricName)) {
        self.claims.push_back(Claim { name: name.to_string(), id });
    }

    /// The metrics of a snapshot that nobody named.
    pub(super) fn nameless(&self, snapshot: &Snapshot) -> Vec<MetricId> {
        let ids = snapshot.leaves.iter().map(|leaf| leaf.id);
        ids.filter(|id| !self.told.contains(id) && !self.unlearnt.contains(id)).collect()
    }

    /// Adds a snapshot to the next contributions.
    pub(super) fn merge(&mut self, snapshot: &Snapshot) -> Result<(), AddError> {
        if self.aliases.is_empty() && self.unlearnt.is_empty() {
            return self.merger.add(snapshot);
        }
        let mut snapshot = snapshot.clone();
        snapshot.leaves.retain(|leaf| !self.unlearnt.contains(&leaf.id));
        for leaf in &mut snapshot.leaves {
            if let Some(id) = self.aliases.get(&(snapshot.worker.clone(), leaf.id)) {
                leaf.id = *id;
            }
        }
        self.merger.add(&snapshot)
    }

    pub(super) fn contributions(&mut self) -> Vec<Contribution> {
        self.merger.contributions()
    }

    /// Leaves out what the leader does not want.
    pub(super) fn strip(&self, contribution: &mut Contribution) {
        if !self.refused.is_empty() {
            contribution.points.retain(|(id, _)| !self.refused.contains(id));
        }
    }

    /// Another leader knows nothing of what was registered.
    pub(super) fn forget_registrations(&mut self) {
        self.refused.clear();
        let known = self.merger.known();
        self.claims = known.into_iter().map(|(id, name)| Claim { name: name.to_string(), id }).collect();
        self.n_asked = 0;
    }

    /// The next names to register, if any are left.
    pub(super) fn claims(&mut self) -> Option<RegisterRequest> {
        self.n_asked = self.claims.len().min(NAMES_MAX);
        let claims: Vec<Claim> = self.claims.iter().take(self.n_asked).cloned().collect();
        (!claims.is_empty()).then(|| RegisterRequest { topology: self.topology.clone(), claims })
    }

    /// Takes in the answer to [`claims`](Self::claims); none when it is no answer to them.
    pub(super) fn registered(&mut self, answer: &RegisterAnswer) -> Option<Change> {
        if answer.claims.len() != self.n_asked {
            return None;
        }
        let mut change = Change::Nothing;
        let (mut n_refused, mut example) = (0, None);
        let claims = self.claims.drain(..std::mem::take(&mut self.n_asked));
        for (claim, registered) in claims.zip(&answer.claims) {
            match registered {
                Registered::As(id) if *id == claim.id => {}
                Registered::As(id) => {
                    change = Change::Ids;
                    if !self.merger.rename(claim.id, *id) {
                        // Another metric goes under that id here: theirs must not mix.
                        self.refused.insert(claim.id);
                        warn!(name = claim.name, %id, "a metric has another one's id and is not sent");
                    }
                }
                Registered::Refused(reason) => {
                    self.refused.insert(claim.id);
                    n_refused += 1;
                    example.get_or_insert_with(|| format!("{}: {reason}", claim.name));
                }
            }
        }
        if let Some(example) = example {
            warn!(topology = %self.topology, n_refused, example, "the leader does not want some metrics");
        }
        Some(change)
    }

    /// The leader does not know these: they are to be registered again. Answers whether any of
    /// them is one of ours.
    pub(super) fn unregistered(&mut self, ids: &[MetricId]) -> bool {
        let ids: HashSet<&MetricId> = ids.iter().collect();
        let known = self.merger.known();
        let n_before = self.claims.len();
        known.into_iter().filter(|(id, _)| ids.contains(id)).for_each(|known| self.claim(known));
        self.claims.len() > n_before
    }
}
