//! Sending metrics to an external store.

pub mod alimonitor;
pub mod file;
mod http;
pub mod log;
pub mod opentsdb;
mod payload;

use std::{fmt::Debug, io, path::PathBuf, time::Duration};

use async_trait::async_trait;

use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::{PayloadPage, UploadKey};
use stormkeeper_metrics::{MetaType, MetricId, protocol::MetricMeta};

/// One external store that metrics are sent to.
///
/// A store that needs nothing but numbers has a name, its levels and [`upload`](Self::upload).
/// One call at a time is made on it. A call that takes too long is dropped by whoever made it,
/// which must leave the uploader fit for the next one.
#[async_trait]
pub trait MetricExporter: Send + Sync + Debug {
    /// What it is called in `nimbus.metric.uploader.class`, in logs and in the archive's queue.
    fn name(&self) -> &str;

    /// The levels that it wants; the others need not be read for it.
    fn levels(&self) -> &[MetaType] {
        &MetaType::ALL
    }

    /// Before anything else, and again after it failed.
    ///
    /// # Errors
    /// When the store cannot be used now; nothing is sent before this succeeded.
    async fn init(&self) -> Result<(), ExportError> {
        Ok(())
    }

    /// Metrics that were not told before. They may come again.
    ///
    /// # Errors
    /// They were not taken, and are told again.
    async fn register_metrics(&self, _metas: &[MetricMeta]) -> Result<(), ExportError> {
        Ok(())
    }

    /// Sends one entry of the queue, whose payload it reads from `source`, page by page. It may
    /// come again with the same values, or with corrected ones.
    ///
    /// # Errors
    /// It is not acknowledged, and comes again after a pause.
    async fn upload(&self, key: &UploadKey, source: &dyn PayloadSource) -> Result<Sent, ExportError>;

    /// Something happened: a topology started, a task moved.
    ///
    /// # Errors
    /// It was not taken. Events are not kept for a second try.
    async fn send_event(&self, _event: &metric_store::Event) -> Result<(), ExportError> {
        Ok(())
    }

    /// After everything else: leadership is over, or nimbus ends.
    async fn cleanup(&self) {}
}

/// Where an uploader reads the payload of an entry.
#[async_trait]
pub trait PayloadSource: Send + Sync {
    /// The page after the metric `after`; the first without one.
    ///
    /// # Errors
    /// [`ExportError::Payload`] when it cannot be read.
    async fn page(&self, after: Option<MetricId>) -> Result<PayloadPage, ExportError>;
}

/// What an acknowledged upload came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// How many the store took, as it counts them: metrics, or numbers of metrics.
    pub points: u64,
    /// How many it, or its rules, refused for good. They are not sent again.
    pub refused: u64,
}

/// Why a store did not take something.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The payload could not be read.
    #[error("the payload could not be read")]
    Payload(#[source] metric_store::Error),
    /// The store could not be reached, or the connection broke.
    #[error("no answer from {url}")]
    Unreachable {
        /// The store.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The store took too long.
    #[error("{url} did not answer within {waited:?}")]
    TimedOut {
        /// The store.
        url: String,
        /// How long it had.
        waited: Duration,
    },
    /// The store answered, but not that it took it.
    #[error("{url} answered {status}: {said}")]
    Answered {
        /// The store.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        said: String,
    },
    /// The store took a part only, and may take the rest later.
    #[error("{url} did not take {n} points for now: {said}")]
    Throttled {
        /// The store.
        url: String,
        /// How many.
        n: u64,
        /// What it said of the first.
        said: String,
    },
    /// A file could not be used.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was written before is not done yet, and nobody waits for it any more.
    #[error("still busy with {}", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Something could not be put in the store's form.
    #[error("{what} could not be written as {form}")]
    Unwritable {
        /// What.
        what: &'static str,
        /// As what.
        form: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

#[cfg(test)]
pub(super) mod tests;
