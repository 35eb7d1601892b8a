//! What the leader of a term writes.

use std::sync::Arc;

use super::MetricStore;
use crate::{Error, Event, Taken, entry::Entry, leading};
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute,
    protocol::{NAMES_MAX, RegisterRequest, RegisterResponse},
};
use stormkeeper_model::{Term, TopologyId};

/// The most events or ids of one entry.
const AT_ONCE_MAX: usize = 10_000;

impl MetricStore {
    /// Makes names known. Registering one again changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`NAMES_MAX`] names, [`Error::Busy`],
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn register(&self, term: Term, request: RegisterRequest) -> Result<RegisterResponse, Error> {
        if request.registrations.len() > NAMES_MAX {
            let n = request.registrations.len();
            return Err(Error::Invalid(format!(
                "{n} names in one registration; at most {NAMES_MAX} are taken"
            )));
        }
        self.write_or_refuse(move |writer| leading::register(writer, term, &request)).await
    }

    /// Takes in a batch, as a whole or not at all; one that was taken before is not
    /// taken again.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one without sense, [`Error::Busy`], [`Error::StaleTerm`],
    /// [`Error::Write`].
    pub async fn ingest(&self, term: Term, batch: MetricBatch) -> Result<Taken, Error> {
        let n_points = u32::try_from(batch.points.len()).unwrap_or(u32::MAX);
        let permit =
            Arc::clone(&self.points).try_acquire_many_owned(n_points.max(1)).map_err(|_| Error::Busy)?;
        self.write_or_refuse(move |writer| {
            let taken = leading::ingest(writer, term, batch);
            drop(permit);
            taken
        })
        .await
    }

    /// Makes all minutes up to `through` ready to be uploaded, and lets go what is expired.
    /// Answers how many entries the upload queue has more. To be called once a minute.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn close_minutes(&self, term: Term, through: Minute) -> Result<usize, Error> {
        self.write(move |writer| writer.close_minutes(term, through)).await
    }

    /// Takes events into the track of tasks and the history of topologies. What was told before
    /// changes nothing.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn tell(&self, term: Term, events: Vec<Event>) -> Result<(), Error> {
        self.write(move |writer| {
            for events in events.chunks(AT_ONCE_MAX) {
                writer.append(term, &Entry::Events(events.to_vec()))?;
            }
            Ok(())
        })
        .await
    }

    /// Lets go metas of a topology. Their history goes with its time; a batch to one of
    /// them is answered by [`Taken::Unregistered`].
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
