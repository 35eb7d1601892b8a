//! The upload queue, as the leader sees it.

use super::MetricStore;
use crate::{Error, PayloadPage, QueueStatus, Upload, UploadKey, entry::Entry, history, queue::Flow};
use stormkeeper_metrics::{MetaType, MetricId, protocol::MetricMeta};
use stormkeeper_model::Term;
use stormkeeper_runtime::watch;

impl MetricStore {
    fn flow(&self) -> Flow {
        let options = &self.shared.options;
        Flow {
            uploading_max: options.uploading_max,
            timeout: options.upload_timeout,
            pause: options.upload_pause,
        }
    }

    /// The oldest ready entry that the uploader has not acknowledged; none when there is none,
    /// when it has as many as it may, or when it is to rest after it refused one. What becomes
    /// ready by time alone wakes nobody: ask again every now and then.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn next_upload(&self, uploader: &str) -> Result<Option<Upload>, Error> {
        let now = self.shared.options.clock.monotonic();
        Ok(self.shared.queue().next(uploader, now, self.flow()))
    }

    /// The uploader has uploaded it. Saying so again changes nothing.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`]: it will be uploaded again.
    pub async fn ack(&self, term: Term, uploader: &str, upload: UploadKey) -> Result<(), Error> {
        let (uploader, index) = (uploader.to_owned(), upload.index);
        self.write(move |writer| {
            if !writer.shared.queue().ack(&uploader, index).is_empty() {
                writer.append(term, &Entry::Ack { uploader: uploader.clone(), index })?;
            }
            writer.shared.queue().let_go(&uploader, index);
            Ok(())
        })
        .await
    }

    /// The uploader could not upload it: it gets it again after a pause.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn nack(&self, uploader: &str, upload: UploadKey, reason: &str) -> Result<(), Error> {
        let now = self.shared.options.clock.monotonic();
        self.shared.queue().nack(uploader, upload.index, now, self.flow(), reason);
        self.shared.tell_uploaders();
        Ok(())
    }

    /// What an upload holds, of the levels in `filter`, or of all when it is empty.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn payload(
        &self,
        key: &UploadKey,
        filter: &[MetaType],
        after: Option<MetricId>,
        limit: usize,
    ) -> Result<PayloadPage, Error> {
        let (key, filter) = (key.clone(), filter.to_vec());
        self.read(move |_, view| history::payload(view, &key, &filter, after, limit)).await
    }

    /// The oldest metas that the uploader does not know; none for one that is not an uploader.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn metas_since(&self, uploader: &str, limit: usize) -> Result<Vec<MetricMeta>, Error> {
        let Some(n) = self.shared.queue().metas_known_by(uploader) else { return Ok(Vec::new()) };
        self.read(move |_, view| history::registered_after(view, n, limit)).await
    }

    /// The uploader knows these, and all that were registered before them.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn ack_metas(&self, term: Term, uploader: &str, metas: &[MetricMeta]) -> Result<(), Error> {
        let (uploader, metas) = (uploader.to_owned(), metas.to_vec());
        self.write(move |writer| {
            let through = writer.registered_through(&metas)?;
            let known = writer.shared.queue().metas_known_by(&uploader);
            if known.is_some_and(|known| known < through) {
                writer.append(term, &Entry::AckMetas { uploader, through })?;
            }
            Ok(())
        })
        .await
    }

    /// Changes whenever there may be something to upload.
    pub fn queue_changed(&self) -> watch::Receiver<u64> {
        self.shared.queue_changed.subscribe()
    }

    /// How the queue stands.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn queue_status(&self) -> Result<QueueStatus, Error> {
        Ok(self.shared.queue().status())
    }
}
