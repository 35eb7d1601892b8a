//! Sending reports to the leader so that each counts once: the decisions of a topology master and
//! of a supervisor. No I/O.
//!
//! ```text
//!  reports ─ add ─▶ waiting ─ merge ─▶ outgoing ─ stored ─▶ stored ─ committed ─▶ discarded
//!                      ▲                  │ overlaps, new ids   │ new term, no confirmation
//!                      └──────────────────┴─────────────────────┘
//! ```
//!
//! - The caller sets the leader's term ([`ReportSender::set_leader_term`]), gets the next request
//!   ([`ReportSender::next_request`]), and passes the response back if there is one. If a response is lost,
//!   the same message is sent again.
//! - A report is discarded when it is committed, that is, a response given *in the term in which the
//!   report was stored* has a high watermark at or above the report's log position. Another leader
//!   may have lost reports that were stored and not committed, so after a change of terms all
//!   uncommitted reports are sent again, oldest first, before any later report.
//! - At most one request is in flight, and metric batches are sent in order, so the leader never
//!   receives a report of a launch before the report that precedes it.
//! - At most [`LEAVES_MAX`] leaves are held; further reports are not accepted, and stay in the
//!   spools of their workers.

mod flush;
mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

pub use flush::{FlushOutcome, flush};
use names::Names;
use tracing::warn;

use crate::spool::SpooledReport;
use stormkeeper_metrics::{
    MetricBatch, MetricId, MetricName,
    batch::SequenceRange,
    merge::AddError,
    protocol::{IngestResponse, RegisterRequest, RegisterResponse},
};
use stormkeeper_model::{LogPosition, Term, TopologyId, WorkerId, clock::Monotonic};

/// Limit on held leaves: four minutes of 200 workers with 5,000 metrics each, a few hundred MiB at
/// most. While there is no leader for longer, reports wait on the disks of their workers.
pub const LEAVES_MAX: usize = 4_000_000;

/// Sender of one topology's reports, with the reports that are not committed yet.
#[derive(Debug)]
pub struct ReportSender {
    topology: TopologyId,
    names: Names,
    term: Option<Term>,
    // Uncommitted reports of each launch, in order of their sequence numbers.
    held: BTreeMap<WorkerId, VecDeque<HeldReport>>,
    n_leaves: usize,
    outgoing: VecDeque<MetricBatch>,
    // For each launch, the last report that the leader of this term has confirmed as stored.
    stored: BTreeMap<WorkerId, u64>,
    // For each launch, the last report that is committed or dropped, until the caller takes it.
    committed: BTreeMap<WorkerId, u64>,
    dropped_reports: u64,
}

#[derive(Debug)]
struct HeldReport {
    spooled: SpooledReport,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Outgoing,
    Stored { at: LogPosition, since: Monotonic },
}

/// Result of adding a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// The report is queued, or was before.
    Queued,
    /// The report is committed already.
    Committed,
    /// The report is not queued: the names of these metrics are unknown.
    UnknownNames(Vec<MetricId>),
    /// The report is not queued: the limit of held leaves is reached. Add it again later.
    Full,
}

/// A request to the leader.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A registration of names; its response goes to [`ReportSender::on_registered`].
    Register(RegisterRequest),
    /// A metric batch; its response goes to [`ReportSender::on_ingested`].
    Ingest(MetricBatch),
}

/// The next step after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum NextStep {
    /// Send the next request.
    Continue,
    /// The leader requested a pause.
    Pause,
}

impl ReportSender {
    /// A sender of `topology` without reports.
    pub fn new(topology: TopologyId) -> Self {
        Self {
            names: Names::new(topology.clone()),
            topology,
            term: None,
            held: BTreeMap::new(),
            n_leaves: 0,
            outgoing: VecDeque::new(),
            stored: BTreeMap::new(),
            committed: BTreeMap::new(),
            dropped_reports: 0,
        }
    }

    /// Learns the names that a launch uses for the metrics of its reports.
    pub fn learn(&mut self, worker: &WorkerId, names: &[(MetricId, MetricName)]) {
        self.names.learn(worker, names, usize::MAX);
    }

    /// Learns names while there are fewer than `limit`; the points of other metrics are ignored. Returns the
    /// number of new ones.
    pub fn learn_within(
        &mut self,
        limit: usize,
        worker: &WorkerId,
        names: &[(MetricId, MetricName)],
    ) -> usize {
        self.names.learn(worker, names, limit)
    }

    /// Returns the number of names that were learned.
    pub fn n_names(&self) -> usize {
        self.names.n_known()
    }

    /// Queues a report. Reports of one launch must be added in order of their sequence numbers; a
    /// report that is queued already is not queued twice.
    pub fn add(&mut self, spooled: SpooledReport) -> Enqueued {
        let worker = &spooled.report.worker;
        let last_held = self.held.get(worker).and_then(|held| held.back());
        if last_held.is_some_and(|last| spooled.report.number <= last.spooled.report.number) {
            return Enqueued::Queued;
        }
        if self.committed.get(worker).is_some_and(|last| spooled.report.number <= *last) {
            return Enqueued::Committed;
        }
        let unnamed = self.names.unnamed(&spooled.report);
        if !unnamed.is_empty() {
            return Enqueued::UnknownNames(unnamed);
        }
        let n_leaves = self.n_leaves + spooled.report.leaves.len();
        if n_leaves > LEAVES_MAX && self.n_leaves > 0 {
            return Enqueued::Full;
        }
        self.n_leaves = n_leaves;
        self.held.entry(worker.clone()).or_default().push_back(HeldReport { spooled, state: State::Waiting });
        Enqueued::Queued
    }

    /// Sets the term of the current leader; required before every request.
    pub fn set_leader_term(&mut self, term: Term) {
        if self.term.is_none_or(|known| known != term) {
            self.term = Some(term);
            self.stored.clear();
            self.names.forget_registrations();
            self.resend(|_| true);
        }
    }

    /// Returns the next request; `None` when the leader has stored everything.
    pub fn next_request(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.names.next_registration() {
                return Some(Request::Register(request));
            }
            if let Some(front) = self.outgoing.front() {
                let mut batch = front.clone();
                self.names.remove_rejected(&mut batch);
                return Some(Request::Ingest(batch));
            }
            if !self.merge() {
                return None;
            }
        }
    }

    /// Handles the leader's response to the registration that [`next_request`](Self::next_request) returned.
    pub fn on_registered(&mut self, answer: &RegisterResponse) -> NextStep {
        match self.names.registered(answer) {
            Some(names::Change::Ids) => self.unmerge(),
            Some(names::Change::Nothing) => {}
            None => {
                warn!(topology = %self.topology,
                    "the leader's answer to a registration has the wrong number of names; retrying after a pause");
                return NextStep::Pause;
            }
        }
        NextStep::Continue
    }

    /// Handles the leader's response to the metric batch that [`next_request`](Self::next_request) returned.
    pub fn on_ingested(&mut self, answer: IngestResponse, now: Monotonic) -> NextStep {
        match answer {
            IngestResponse::Accepted { at, high_watermark } => {
                let Some(batch) = self.outgoing.pop_front() else { return NextStep::Continue };
                self.set(&batch.reports, State::Stored { at, since: now });
                self.discard_committed(high_watermark);
            }
            IngestResponse::Overlapping { stored } => {
                for spooled in stored {
                    let last = self.stored.entry(spooled.worker).or_default();
                    *last = (*last).max(spooled.last);
                }
                self.unmerge();
            }
            IngestResponse::UnknownMetrics { ids } => {
                let known_before = self.names.register_again(&ids);
                if !known_before {
                    warn!(topology = %self.topology, n = ids.len(),
                        "the leader requested the registration of unknown metric ids; retrying after a pause");
                    return NextStep::Pause;
                }
            }
            IngestResponse::RetryLater { .. } => return NextStep::Pause,
            IngestResponse::Rejected { reason } => self.drop_front(&reason),
        }
        NextStep::Continue
    }

    /// Drops the metric batch at the front, with its reports, because the leader will never ingest
    /// it.
    pub fn drop_front(&mut self, reason: &str) {
        let Some(batch) = self.outgoing.pop_front() else { return };
        let n_reports: u64 = batch.reports.iter().map(|reports| reports.last + 1 - reports.first).sum();
        self.dropped_reports += n_reports;
        warn!(topology = %self.topology, minute = %batch.minute, n_reports, so_far = self.dropped_reports, reason,
            "metric reports dropped: the leader rejected the batch");
        for reports in &batch.reports {
            self.discard(&reports.worker, |held| {
                (reports.first..=reports.last).contains(&held.spooled.report.number)
            });
            self.record_committed(&reports.worker, reports.last);
        }
    }

    /// Sends reports again that were stored before `since` and are not confirmed as committed, in
    /// order to learn the current high watermark. Needed when no other request is due.
    pub fn resend_stored(&mut self, since: Monotonic) {
        self.resend(|stored| stored <= since);
    }

    /// Takes the last report of each launch up to which all are committed or dropped, if that has
    /// changed since the last call.
    pub fn take_committed(&mut self) -> BTreeMap<WorkerId, u64> {
        std::mem::take(&mut self.committed)
    }

    /// True if all reports are committed.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Number of uncommitted reports.
    pub fn len(&self) -> usize {
        self.held.values().map(VecDeque::len).sum()
    }

    /// The launches with reports that wait to be sent.
    pub fn waiting(&self) -> impl Iterator<Item = &WorkerId> {
        let waits = |held: &VecDeque<HeldReport>| held.iter().any(|held| held.state == State::Waiting);
        self.held.iter().filter(move |(_, held)| waits(held)).map(|(worker, _)| worker)
    }

    /// Number of reports that were dropped because the leader rejected them.
    pub fn dropped_reports(&self) -> u64 {
        self.dropped_reports
    }

    /// Merges the waiting reports into metric batches; returns whether there are any. Reports that
    /// the leader has already go into separate batches: a batch that mixes them with other reports
    /// would be rejected.
    fn merge(&mut self) -> bool {
        let mut lost = Vec::new();
        for is_stored in [true, false] {
            let mut firsts = BTreeMap::new();
            for (worker, held) in &mut self.held {
                let stored = self.stored.get(worker).copied().unwrap_or(0);
                let waiting = held.iter_mut().filter(|held| held.state == State::Waiting);
                for HeldReport { spooled, state } in
                    waiting.filter(|held| (held.spooled.report.number <= stored) == is_stored)
                {
                    if !is_stored && spooled.first <= stored {
                        lost.push((
                            worker.clone(),
                            spooled.report.number,
                            "a part of the joined report is stored already".to_owned(),
                        ));
                        continue;
                    }
                    match self.names.merge(&spooled.report) {
                        Ok(()) => {
                            firsts.insert((worker.clone(), spooled.report.number), spooled.first);
                            *state = State::Outgoing;
                        }
                        Err(
                            error @ (AddError::Topology(..)
                            | AddError::Unknown { .. }
                            | AddError::Order { .. }),
                        ) => {
                            lost.push((worker.clone(), spooled.report.number, error.to_string()));
                        }
                    }
                }
            }
            let mut batches = self.names.batches();
            for reports in batches.iter_mut().flat_map(|batch| &mut batch.reports) {
                // A joined report has several sequence numbers.
                if let Some(first) = firsts.get(&(reports.worker.clone(), reports.first)) {
                    reports.first = *first;
                }
            }
            self.outgoing.extend(batches);
        }
        for (worker, number, reason) in lost {
            self.dropped_reports += 1;
            warn!(topology = %self.topology, %worker, number, reason, so_far = self.dropped_reports, "metric report dropped");
            self.discard(&worker, |held| held.spooled.report.number == number);
        }
        !self.outgoing.is_empty()
    }

    /// Returns the outgoing reports to the waiting state, so that they are merged again.
    fn unmerge(&mut self) {
        self.outgoing.clear();
        for held in self.held.values_mut().flatten().filter(|held| held.state == State::Outgoing) {
            held.state = State::Waiting;
        }
    }

    /// Returns reports to the waiting state if `which` selects the time of their storage, and all
    /// outgoing reports with them.
    fn resend(&mut self, which: impl Fn(Monotonic) -> bool) {
        for held in self.held.values_mut().flatten() {
            match held.state {
                State::Stored { since, .. } if which(since) => held.state = State::Waiting,
                State::Stored { .. } | State::Waiting | State::Outgoing => {}
            }
        }
        self.unmerge();
    }

    fn set(&mut self, reports: &[SequenceRange], state: State) {
        for reports in reports {
            let held = self.held.get_mut(&reports.worker).into_iter().flatten();
            for held in
                held.filter(|held| (reports.first..=reports.last).contains(&held.spooled.report.number))
            {
                held.state = state;
            }
            if matches!(state, State::Stored { .. }) {
                let last = self.stored.entry(reports.worker.clone()).or_default();
                *last = (*last).max(reports.last);
            }
        }
    }

    /// Discards the committed reports, from the first of each launch on.
    fn discard_committed(&mut self, high_watermark: LogPosition) {
        let workers: Vec<WorkerId> = self.held.keys().cloned().collect();
        for worker in workers {
            let is_committed =
                |held: &&HeldReport| matches!(held.state, State::Stored { at, .. } if at <= high_watermark);
            let last = self.held.get(&worker).and_then(|held| held.iter().take_while(is_committed).last());
            let Some(last) = last.map(|held| held.spooled.report.number) else { continue };
            self.discard(&worker, |held| held.spooled.report.number <= last);
            self.record_committed(&worker, last);
        }
    }

    fn record_committed(&mut self, worker: &WorkerId, last: u64) {
        let committed = self.committed.entry(worker.clone()).or_default();
        *committed = (*committed).max(last);
    }

    fn discard(&mut self, worker: &WorkerId, which: impl Fn(&HeldReport) -> bool) {
        let Some(held) = self.held.get_mut(worker) else { return };
        held.retain(|held| {
            let goes = which(held);
            if goes {
                self.n_leaves = self.n_leaves.saturating_sub(held.spooled.report.leaves.len());
            }
            !goes
        });
        if held.is_empty() {
            self.held.remove(worker);
        }
    }
}
