//! Names of the metrics in reports, and their registration with the leader.

use std::collections::{HashMap, HashSet, VecDeque};

use tracing::warn;

use stormkeeper_metrics::{
    Merger, MetricBatch, MetricId, MetricName, MetricReport,
    merge::AddError,
    protocol::{NAMES_MAX, RegisterRequest, RegisterResponse, Registered, Registration},
};
use stormkeeper_model::{TopologyId, WorkerId};

/// The known names, and the merger of reports into metric batches.
#[derive(Debug)]
pub(super) struct Names {
    topology: TopologyId,
    merger: Merger,
    // Ids in reports whose names the merger has learned.
    known_ids: HashSet<MetricId>,
    // Ids in the reports of a launch that belong to another metric here, with the id used instead.
    aliases: HashMap<(WorkerId, MetricId), MetricId>,
    // Ids that the merger did not learn because it is full.
    ignored_ids: HashSet<MetricId>,
    pending: VecDeque<Registration>,
    n_requested: usize,
    // Ids whose registration the leader of this term rejected.
    rejected: HashSet<MetricId>,
}

/// Effect of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The ids of some points have changed.
    Ids,
    Nothing,
}

impl Names {
    pub(super) fn new(topology: TopologyId) -> Self {
        Self {
            merger: Merger::new(topology.clone()),
            topology,
            known_ids: HashSet::new(),
            aliases: HashMap::new(),
            ignored_ids: HashSet::new(),
            pending: VecDeque::new(),
            n_requested: 0,
            rejected: HashSet::new(),
        }
    }

    pub(super) fn learn(
        &mut self,
        worker: &WorkerId,
        names: &[(MetricId, MetricName)],
        limit: usize,
    ) -> usize {
        let n_known = self.known_ids.len();
        for (id, name) in names {
            if self.known_ids.len() >= limit && !self.known_ids.contains(id) {
                if self.ignored_ids.len() < limit {
                    self.ignored_ids.insert(*id);
                }
                continue;
            }
            // A known name costs a look-up; most names are passed once.
            let mut as_id = *id;
            let mut probe = 0;
            let n_before = self.merger.n_names();
            let learned = loop {
                let learned = self.merger.names(&[(as_id, name.clone())]);
                if learned.conflicts.is_empty() {
                    break learned;
                }
                as_id = MetricId::of(&name.to_string(), probe);
                probe += 1;
            };
            if learned.n_ignored > 0 && self.merger.n_names() == n_before {
                self.ignored_ids.insert(*id);
                continue;
            }
            if as_id != *id {
                self.aliases.insert((worker.clone(), *id), as_id);
            }
            self.known_ids.insert(*id);
            if self.merger.n_names() > n_before {
                self.enqueue((as_id, name.clone()));
            }
            learned.rolled_up.into_iter().for_each(|above| self.enqueue(above));
        }
        self.known_ids.len() - n_known
    }

    pub(super) fn n_known(&self) -> usize {
        self.known_ids.len()
    }

    fn enqueue(&mut self, (id, name): (MetricId, MetricName)) {
        self.pending.push_back(Registration { name: name.to_string(), id });
    }

    /// The metrics of a report whose names are unknown.
    pub(super) fn unnamed(&self, report: &MetricReport) -> Vec<MetricId> {
        let ids = report.leaves.iter().map(|leaf| leaf.id);
        ids.filter(|id| !self.known_ids.contains(id) && !self.ignored_ids.contains(id)).collect()
    }

    /// Adds a report to the next metric batches.
    pub(super) fn merge(&mut self, report: &MetricReport) -> Result<(), AddError> {
        if self.aliases.is_empty() && self.ignored_ids.is_empty() {
            return self.merger.add(report);
        }
        let mut report = report.clone();
        report.leaves.retain(|leaf| !self.ignored_ids.contains(&leaf.id));
        for leaf in &mut report.leaves {
            if let Some(id) = self.aliases.get(&(report.worker.clone(), leaf.id)) {
                leaf.id = *id;
            }
        }
        self.merger.add(&report)
    }

    pub(super) fn batches(&mut self) -> Vec<MetricBatch> {
        self.merger.batches()
    }

    /// Removes the points of metrics whose registration was rejected.
    pub(super) fn remove_rejected(&self, batch: &mut MetricBatch) {
        if !self.rejected.is_empty() {
            batch.points.retain(|(id, _)| !self.rejected.contains(id));
        }
    }

    /// Queues all names for registration again, because a new leader does not know them.
    pub(super) fn forget_registrations(&mut self) {
        self.rejected.clear();
        let known = self.merger.known_names();
        self.pending =
            known.into_iter().map(|(id, name)| Registration { name: name.to_string(), id }).collect();
        self.n_requested = 0;
    }

    /// The next registration request, if names are left.
    pub(super) fn next_registration(&mut self) -> Option<RegisterRequest> {
        self.n_requested = self.pending.len().min(NAMES_MAX);
        let registrations: Vec<Registration> = self.pending.iter().take(self.n_requested).cloned().collect();
        (!registrations.is_empty())
            .then(|| RegisterRequest { topology: self.topology.clone(), registrations })
    }

    /// Handles the response to [`next_registration`](Self::next_registration); `None` if the response
    /// does not fit the request.
    pub(super) fn registered(&mut self, answer: &RegisterResponse) -> Option<Change> {
        if answer.results.len() != self.n_requested {
            return None;
        }
        let mut change = Change::Nothing;
        let (mut n_rejected, mut example) = (0, None);
        let registrations = self.pending.drain(..std::mem::take(&mut self.n_requested));
        for (registration, registered) in registrations.zip(&answer.results) {
            match registered {
                Registered::Accepted(id) if *id == registration.id => {}
                Registered::Accepted(id) => {
                    change = Change::Ids;
                    if !self.merger.rename(registration.id, *id) {
                        // Another metric has that id here: the points of the two must not mix.
                        self.rejected.insert(registration.id);
                        warn!(name = registration.name, %id, "the leader assigned the id of another metric: this metric is not sent");
                    }
                }
                Registered::Rejected(reason) => {
                    self.rejected.insert(registration.id);
                    n_rejected += 1;
                    example.get_or_insert_with(|| format!("{}: {reason}", registration.name));
                }
            }
        }
        if let Some(example) = example {
            warn!(topology = %self.topology, n_rejected, example, "the leader rejected metric names: their points are not sent");
        }
        Some(change)
    }

    /// Queues the names of these ids for registration, because the leader does not know them. Returns
    /// whether any id is known here.
    pub(super) fn register_again(&mut self, ids: &[MetricId]) -> bool {
        let ids: HashSet<&MetricId> = ids.iter().collect();
        let known = self.merger.known_names();
        let n_before = self.pending.len();
        known.into_iter().filter(|(id, _)| ids.contains(id)).for_each(|known| self.enqueue(known));
        self.pending.len() > n_before
    }
}
