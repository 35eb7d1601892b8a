//! Export of metrics to external stores.

pub mod alimonitor;
pub mod file;
mod http;
pub mod log;
pub mod opentsdb;
mod payload;

use std::{fmt::Debug, io, path::PathBuf, time::Duration};

use async_trait::async_trait;

use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::{ExportKey, PayloadPage};
use stormkeeper_metrics::{MetaType, MetricId, protocol::MetricMeta};

/// Exporter to one external store.
///
/// A store that needs only numbers implements the name, the levels and [`export`](Self::export).
/// Calls are never concurrent. The caller drops a call that takes too long, after which the exporter
/// must be able to handle the next call.
#[async_trait]
pub trait MetricExporter: Send + Sync + Debug {
    /// Returns the name in `nimbus.metric.uploader.class`, in logs and in the export queue.
    fn name(&self) -> &str;

    /// Returns the exported levels; other levels need not be read.
    fn levels(&self) -> &[MetaType] {
        &MetaType::ALL
    }

    /// Called before any other call, and again after a failure.
    ///
    /// # Errors
    /// If the store cannot be used now; nothing is sent before this succeeds.
    async fn init(&self) -> Result<(), ExportError> {
        Ok(())
    }

    /// Receives metrics that were not registered with this exporter before. May be repeated.
    ///
    /// # Errors
    /// If the metrics were not accepted; the call is repeated.
    async fn register_metrics(&self, _metas: &[MetricMeta]) -> Result<(), ExportError> {
        Ok(())
    }

    /// Sends one entry of the queue, whose payload it reads from `source`, page by page. An entry may
    /// be sent again with the same or with corrected values.
    ///
    /// # Errors
    /// If the entry was not stored; it is sent again after a pause.
    async fn export(&self, key: &ExportKey, source: &dyn PayloadSource) -> Result<ExportCounts, ExportError>;

    /// Sends an event, such as the start of a topology or the move of a task.
    ///
    /// # Errors
    /// If the event was not accepted. Events are not repeated.
    async fn send_event(&self, _event: &metric_store::HistoryEvent) -> Result<(), ExportError> {
        Ok(())
    }

    /// Returns the reason why the store, or the exporter's rules, last rejected points for good.
    fn last_rejection(&self) -> Option<String> {
        None
    }

    /// Last call, when leadership or nimbus ends.
    async fn cleanup(&self) {}
}

/// Source of the payload of an entry.
#[async_trait]
pub trait PayloadSource: Send + Sync {
    /// Returns the page after the metric `after`, or the first page.
    ///
    /// # Errors
    /// [`ExportError::Payload`] if the payload cannot be read.
    async fn page(&self, after: Option<MetricId>) -> Result<PayloadPage, ExportError>;
}

/// Counts of an acknowledged export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportCounts {
    /// Number of metrics, or of numbers of metrics, that the store accepted.
    pub points: u64,
    /// Number that the store, or the exporter's rules, rejected for good. They are not sent again.
    pub refused: u64,
}

/// Error of an export to an external store.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The payload cannot be read.
    #[error("cannot read the payload")]
    Payload(#[source] metric_store::Error),
    /// The store is unreachable, or the connection was closed.
    #[error("no response from {url}")]
    Unreachable {
        /// URL of the store.
        url: String,
        /// Cause.
        source: reqwest::Error,
    },
    /// The store did not answer in time.
    #[error("{url} did not answer within {waited:?}")]
    TimedOut {
        /// URL of the store.
        url: String,
        /// Timeout of the request.
        waited: Duration,
    },
    /// The store answered with an error.
    #[error("{url} answered {status}: {message}")]
    Answered {
        /// URL of the store.
        url: String,
        /// HTTP status.
        status: u16,
        /// Begin of the response body.
        message: String,
    },
    /// The store accepted only a part, and may accept the rest later.
    #[error("{url} did not accept {n} points for now: {message}")]
    Throttled {
        /// URL of the store.
        url: String,
        /// Number of points that were not accepted.
        n: u64,
        /// Response for the first such point.
        message: String,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// Failed operation, as an infinitive.
        doing: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// An earlier write, whose call was dropped, is still running.
    #[error("an earlier write to {} is still running", path.display())]
    Busy {
        /// Path of the file.
        path: PathBuf,
    },
    /// A value cannot be encoded in the form of the store.
    #[error("cannot encode {what} as {form}")]
    Unwritable {
        /// Kind of value.
        what: &'static str,
        /// Form of the store.
        form: &'static str,
        /// Cause.
        source: serde_json::Error,
    },
}

#[cfg(test)]
pub(super) mod tests;
