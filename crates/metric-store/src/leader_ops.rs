//! Operations of the writer for a leader: it decides here, and each decision is a log entry.

#[cfg(feature = "injected-bugs")]
use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use super::{
    DropCause, Drops, Error, IngestOutcome,
    admission::{self, Decision, Span},
    catalog::METAS_MAX,
    entry::Entry,
    key::{self, Table},
    point_merge,
    record::{self, MetaRecord, ReportRecord},
    register::{PROBES_MAX, Registry},
    relaunch,
    store::View,
    writer::{Shared, Writer},
};
#[cfg(feature = "injected-bugs")]
use stormkeeper_metrics::batch::SequenceRange;
use stormkeeper_metrics::{
    MetricBatch, MetricId, MetricName, Minute, Point, Window,
    protocol::{RegisterRequest, RegisterResponse},
    rollup,
};
use stormkeeper_model::{Term, TopologyId, WorkerId};
#[cfg(feature = "injected-bugs")]
use stormkeeper_runtime::injected_bugs::{InjectedBug, is_injected};

/// Returns the name of a registered metric.
pub(super) fn name_of(shared: &Shared, view: &View<'_>, id: MetricId) -> Result<Option<MetricName>, Error> {
    let topology = {
        let catalog = shared.catalog();
        let Some(known) = catalog.get(id) else { return Ok(None) };
        catalog.at(known.topology).id.clone()
    };
    let value = view.get(Table::State, &key::meta(&topology, id))?;
    Ok(value.map(|bytes| record::decode::<MetaRecord>("a meta", &bytes)).transpose()?.map(|meta| meta.name))
}

/// Returns an id for each registration, and adds the new names.
pub(super) fn register(
    writer: &mut Writer,
    term: Term,
    request: &RegisterRequest,
) -> Result<RegisterResponse, Error> {
    writer.check_term_and_exporters(term)?;
    let shared = Arc::clone(&writer.shared);
    let decision = shared.store.with(|view| {
        Registry {
            topology: &request.topology,
            id_of: shared.options.id_of,
            name_of: |id| name_of(&shared, view, id),
            n_known: &|topology| shared.catalog().fingerprint(topology).count,
            per_topology_max: shared.options.names_per_topology_max as u64,
            n_free: METAS_MAX.saturating_sub(shared.catalog().len()) as u64,
        }
        .decide(&request.registrations)
    })?;
    if !decision.new.is_empty() || !decision.drops.is_empty() {
        log_drops(&request.topology, &decision.drops);
        let topology = request.topology.clone();
        writer.append(term, &Entry::Metas { topology, metas: decision.new, drops: decision.drops })?;
    }
    Ok(RegisterResponse { results: decision.answers })
}

/// The last report of each launch that the leader of one term has stored: all that a leader with
/// the injected bug remembers.
#[cfg(feature = "injected-bugs")]
#[derive(Debug, Default)]
pub(super) struct StoredInTerm {
    term: Option<Term>,
    last: BTreeMap<WorkerId, u64>,
}

#[cfg(feature = "injected-bugs")]
impl StoredInTerm {
    fn of(&mut self, term: Term) -> BTreeMap<WorkerId, u64> {
        if self.term != Some(term) {
            *self = Self { term: Some(term), last: BTreeMap::new() };
        }
        self.last.clone()
    }

    fn add(&mut self, reports: &[SequenceRange]) {
        self.last.extend(reports.iter().map(|reports| (reports.worker.clone(), reports.last)));
    }
}

/// Stores a metric batch, or returns why it was not stored.
pub(super) fn ingest(writer: &mut Writer, term: Term, batch: MetricBatch) -> Result<IngestOutcome, Error> {
    writer.check_term_and_exporters(term)?;
    let shared = Arc::clone(&writer.shared);
    let (topology, reports) = (batch.topology.clone(), batch.reports.clone());
    let options = &shared.options;
    let span = Span::new(Minute::of(options.clock.now()), options.retention.minutes(Window::M1));
    writer.launches.begin(term, span.last());
    #[cfg(feature = "injected-bugs")]
    let of_term = writer.stored_in_term.of(term);
    let decision = shared.store.with(|view| {
        let catalog = shared.catalog();
        let last_report = |worker: &WorkerId| {
            #[cfg(feature = "injected-bugs")]
            if is_injected(InjectedBug::ForgetsStoredReports) {
                return Ok(of_term.get(worker).copied());
            }
            let value = view.get(Table::State, &key::report(&topology, worker))?;
            let record =
                value.map(|bytes| record::decode::<ReportRecord>("the last report of a launch", &bytes));
            Ok(record.transpose()?.map(|record| record.last))
        };
        // The lookups of names lock the catalog for reading once more. That cannot wait for a writer:
        // only this thread locks it for writing.
        let stored = StoredReadings { shared: &shared, view };
        admission::decide(batch, span, |id| catalog.get(id), last_report, (&writer.launches, &stored))
    })?;
    match decision {
        Decision::Accept { minute, points, drops, readings } => {
            log_drops(&topology, &drops);
            #[cfg(feature = "injected-bugs")]
            writer.stored_in_term.add(&reports);
            writer.append(term, &Entry::Batch { topology, minute, reports, points, drops })?;
            writer.launches.record(&readings, span.now);
            Ok(IngestOutcome::Accepted(writer.last))
        }
        Decision::Duplicate => Ok(IngestOutcome::Accepted(writer.last)),
        Decision::Overlaps(stored) => Ok(IngestOutcome::Overlapping(stored)),
        Decision::Unregistered(ids) => Ok(IngestOutcome::UnknownMetrics(ids)),
    }
}

/// What the store has of replaced readings.
struct StoredReadings<'a> {
    shared: &'a Shared,
    view: &'a View<'a>,
}

impl relaunch::Stored for StoredReadings<'_> {
    fn point(&self, leaf: MetricId, minute: Minute) -> Result<Option<Point>, Error> {
        let bytes = self.view.get(Table::Points, &key::point(leaf, Window::M1, minute))?;
        Ok(bytes.and_then(|bytes| point_merge::decode(&bytes)))
    }

    fn above(&self, leaf: MetricId) -> Result<Vec<MetricId>, Error> {
        let Some(name) = name_of(self.shared, self.view, leaf)? else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for above in rollup::ancestors(&name) {
            let text = above.to_string();
            for id in (0..PROBES_MAX).map(|probe| (self.shared.options.id_of)(&text, probe)) {
                if name_of(self.shared, self.view, id)?.as_ref() == Some(&above) {
                    ids.push(id);
                    break;
                }
            }
        }
        Ok(ids)
    }
}

/// Logs the drops; they are counted in the entry.
fn log_drops(topology: &TopologyId, drops: &Drops) {
    for (cause, n) in drops {
        let what = match cause {
            DropCause::MissingReport => "reports never arrived",
            DropCause::FromFuture | DropCause::TooOld => "points are counted for another minute",
            DropCause::InvalidName | DropCause::TooManyNames => "names were rejected",
            DropCause::IdTaken => "names received another id",
            DropCause::NotFinite | DropCause::WrongKind => "points were dropped",
            DropCause::QueueFull => "entries of the export queue were dropped",
        };
        warn!(%topology, cause = cause.word(), n, "metrics: {what}");
    }
}
