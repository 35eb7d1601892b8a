//! Export queue, for the leader.

use super::MetricStore;
use crate::{
    Error, ExportKey, ExportLease, PayloadPage, QueueStatus, entry::Entry, export_queue::LeasePolicy, history,
};
use stormkeeper_metrics::{MetaType, MetricId, protocol::MetricMeta};
use stormkeeper_model::Term;
use stormkeeper_runtime::watch;

impl MetricStore {
    fn lease_policy(&self) -> LeasePolicy {
        let options = &self.shared.options;
        LeasePolicy { timeout: options.lease_timeout, pause: options.nack_pause }
    }

    /// Leases the oldest ready entry that the exporter has not acknowledged. Returns `None` if there
    /// is none, if the exporter has a lease already, or if it is paused after a nack. The end of a
    /// pause does not change [`MetricStore::queue_changed`]: callers must poll now and then.
    ///
    /// # Errors
    /// None so far; reserved for a closed store.
    pub async fn lease_export(&self, exporter: &str) -> Result<Option<ExportLease>, Error> {
        let now = self.shared.options.clock.monotonic();
        Ok(self.shared.queue().next(exporter, now, self.lease_policy()))
    }

    /// Acknowledges an exported entry. Acknowledging it again has no effect.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`]: the entry will be exported again.
    pub async fn ack(&self, term: Term, exporter: &str, export: ExportKey) -> Result<(), Error> {
        let (exporter, number) = (exporter.to_owned(), export.number);
        self.write(move |writer| {
            if !writer.shared.queue().ack(&exporter, number).is_empty() {
                writer.append(term, &Entry::Ack { exporter: exporter.clone(), number })?;
            }
            writer.shared.queue().release(&exporter, number);
            Ok(())
        })
        .await
    }

    /// Returns an entry that could not be exported; the exporter leases it again after a pause.
    ///
    /// # Errors
    /// None so far; reserved for a closed store.
    pub async fn nack(&self, exporter: &str, export: ExportKey, reason: &str) -> Result<(), Error> {
        let now = self.shared.options.clock.monotonic();
        self.shared.queue().nack(exporter, export.number, now, self.lease_policy(), reason);
        self.shared.notify_exporters();
        Ok(())
    }

    /// Returns a page of an export's points, of the levels in `filter`, or of all if it is empty.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn payload(
        &self,
        key: &ExportKey,
        filter: &[MetaType],
        after: Option<MetricId>,
        limit: usize,
    ) -> Result<PayloadPage, Error> {
        let (key, filter) = (key.clone(), filter.to_vec());
        self.read(move |_, view| history::payload(view, &key, &filter, after, limit)).await
    }

    /// Returns the oldest metas that the exporter has not acknowledged; none if it is not an exporter.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn metas_since(&self, exporter: &str, limit: usize) -> Result<Vec<MetricMeta>, Error> {
        let Some(n) = self.shared.queue().metas_known_by(exporter) else { return Ok(Vec::new()) };
        self.read(move |_, view| history::registered_after(view, n, limit)).await
    }

    /// Acknowledges these metas, and all that were registered before them.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn ack_metas(&self, term: Term, exporter: &str, metas: &[MetricMeta]) -> Result<(), Error> {
        let (exporter, metas) = (exporter.to_owned(), metas.to_vec());
        self.write(move |writer| {
            let through = writer.registered_through(&metas)?;
            let known = writer.shared.queue().metas_known_by(&exporter);
            if known.is_some_and(|known| known < through) {
                writer.append(term, &Entry::AckMetas { exporter, through })?;
            }
            Ok(())
        })
        .await
    }

    /// Returns a value that changes whenever an entry may have become ready.
    pub fn queue_changed(&self) -> watch::Receiver<u64> {
        self.shared.queue_changed.subscribe()
    }

    /// Returns the status of the queue.
    ///
    /// # Errors
    /// None so far; reserved for a closed store.
    pub async fn queue_status(&self) -> Result<QueueStatus, Error> {
        Ok(self.shared.queue().status())
    }
}
