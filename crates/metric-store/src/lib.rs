//! The metric memory of a nimbus: what was measured, for how long it is kept, and what is still
//! to be sent to external stores. `docs/design/metrics.md` tells how it works.
//!
//! ```text
//!  leader's commands ─▶ bounded channel ─▶ writer thread ─▶ entry ─ apply ─▶ one write batch
//!  entries of a leader ─▶                     │                                  │ (RocksDB)
//!                                             └─ one sync for a group of them ─▶ answers
//!  readers (a bounded number at once, on threads that may block) ─────────────▶ RocksDB
//! ```
//!
//! - Nothing is answered as stored before it is on the disk.
//! - Whatever changes what is stored is an entry of the log, and `apply` is its only way
//!   in: the same entries make the same archive on every nimbus.
//! - What cannot be opened is an error that says what to do. Nothing is ever wiped.
//!
//! Start reading at [`MetricStore`].

mod apply;
mod catalog;
mod entry;
pub mod error;
pub mod event;
mod expiry;
mod handle;
mod history;
mod intake;
mod key;
mod leading;
mod log;
pub mod options;
pub mod query;
mod queue;
mod record;
mod register;
mod store;
mod stored;
mod told;
pub mod upload;
mod writer;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use event::{Event, HistoryEntry, TrackEntry};
pub use handle::MetricStore;
pub use options::{Options, Retention};
pub use query::{DropCause, Drops, Fingerprint, LatestPage, LatestQuery, LatestRow, Status, Taken};
pub use upload::{PayloadPage, QueueStatus, Upload, UploadKey, UploadKind, UploaderStatus};
