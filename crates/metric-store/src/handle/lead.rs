//! Writes of a leader, each with its term.

use std::sync::Arc;

use super::MetricStore;
use crate::{Error, HistoryEvent, IngestOutcome, entry::Entry, leader_ops};
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute,
    protocol::{NAMES_MAX, RegisterRequest, RegisterResponse},
};
use stormkeeper_model::{Term, TopologyId};

/// Maximum number of events or ids of one entry.
const AT_ONCE_MAX: usize = 10_000;

impl MetricStore {
    /// Registers names. Registering a name again has no effect.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`NAMES_MAX`] names, [`Error::Busy`],
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn register(&self, term: Term, request: RegisterRequest) -> Result<RegisterResponse, Error> {
        if request.registrations.len() > NAMES_MAX {
            let n = request.registrations.len();
            return Err(Error::Invalid(format!(
                "{n} names in one registration request; the maximum is {NAMES_MAX}"
            )));
        }
        self.write_or_refuse(move |writer| leader_ops::register(writer, term, &request)).await
    }

    /// Ingests a metric batch, as a whole or not at all. A batch that was stored before is not
    /// counted again.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a malformed batch, [`Error::Busy`], [`Error::StaleTerm`],
    /// [`Error::Write`].
    pub async fn ingest(&self, term: Term, batch: MetricBatch) -> Result<IngestOutcome, Error> {
        let n_points = u32::try_from(batch.points.len()).unwrap_or(u32::MAX);
        let permit =
            Arc::clone(&self.points).try_acquire_many_owned(n_points.max(1)).map_err(|_| Error::Busy)?;
        self.write_or_refuse(move |writer| {
            let taken = leader_ops::ingest(writer, term, batch);
            drop(permit);
            taken
        })
        .await
    }

    /// Closes all minutes up to `through` for export, and removes expired topologies. Returns the
    /// number of entries added to the export queue. Must be called once a minute.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn close_minutes(&self, term: Term, through: Minute) -> Result<usize, Error> {
        self.write(move |writer| writer.close_minutes(term, through)).await
    }

    /// Records events in the track of tasks and the history of topologies. An event that was
    /// recorded before has no effect.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn record_events(&self, term: Term, events: Vec<HistoryEvent>) -> Result<(), Error> {
        self.write(move |writer| {
            for events in events.chunks(AT_ONCE_MAX) {
                writer.append(term, &Entry::Events(events.to_vec()))?;
            }
            Ok(())
        })
        .await
    }

    /// Removes metas of a topology. Their points expire by retention; a batch with points of a
    /// removed meta is answered with [`IngestOutcome::UnknownMetrics`].
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn forget(&self, term: Term, ids: (TopologyId, Vec<MetricId>)) -> Result<(), Error> {
        let (topology, ids) = ids;
        self.write(move |writer| {
            for ids in ids.chunks(AT_ONCE_MAX) {
                writer
                    .append(term, &Entry::Forget { topology: topology.clone(), ids: Some(ids.to_vec()) })?;
            }
            Ok(())
        })
        .await
    }
}
