//! Metric store of a nimbus: recorded metrics, their retention, and the queue of metrics that are
//! exported to external stores. `docs/design/metrics.md` explains the design.
//!
//! ```text
//!  leader's commands ─▶ bounded channel ─▶ writer thread ─▶ entry ─ apply ─▶ one write batch
//!  entries of a leader ─▶                     │                                  │ (RocksDB)
//!                                             └─ one sync per group of entries ─▶ answers
//!  readers (a bounded number at once, on threads that may block) ─────────────▶ RocksDB
//! ```
//!
//! - A write is acknowledged only after it is on disk.
//! - Every change of stored data is an entry of the metric log and goes through `apply`: the same
//!   entries make the same store on every nimbus.
//! - A database that cannot be opened is an error that says what to do. Data is never wiped.
//! - The database is RocksDB, or its twin in memory for simulations: [`Medium`].
//!
//! Start reading at [`MetricStore`].

mod admission;
mod apply;
mod buffered_minutes;
mod catalog;
mod entry;
pub mod error;
pub mod event;
pub mod export;
mod export_queue;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod history;
mod history_record;
#[cfg(any(test, feature = "test-support"))]
pub mod inspection;
mod key;
mod leader_ops;
mod log;
pub mod options;
mod point_merge;
pub mod query;
mod record;
mod register;
mod relaunch;
mod retention_clock;
mod span;
mod store;
mod totals;
mod writer;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use event::{HistoryEntry, HistoryEvent, TrackEntry};
pub use export::{ExportKey, ExportKind, ExportLease, ExporterStatus, PayloadPage, QueueStatus};
pub use handle::MetricStore;
pub use options::{Options, Retention};
pub use query::{
    DropCause, Drops, Fingerprint, IngestOutcome, LatestPage, LatestQuery, LatestRow, StoreStatus,
};
pub use span::{SUMS_MAX, SumQuery};
pub use store::{CheckpointSource, DirectoryChange, Medium, MemoryDisk};
pub use totals::{TOTALS_MAX, Total};
