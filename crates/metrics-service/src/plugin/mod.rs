//! External stores of metrics: one trait for exporters, one for query clients, and a file for each
//! implementation.
//!
//! ```text
//!  metric store ─ queue ─▶ exporter task ─▶ MetricExporter ─▶ log, file, alimonitor, opentsdb
//!                                    └ PayloadSource: the payload, page by page
//!  a follower ─▶ MetricQueryClient ─▶ the leader
//! ```
//!
//! - An exporter keeps no state that matters: an entry that it did not acknowledge is sent again,
//!   also after a crash, so each exporter writes in a way that tolerates repetition.
//! - An exporter never blocks the threads of async tasks, and each of its waits is bounded. A slow
//!   store delays only its own backlog.
//! - The numbers of a point and their names are defined once, in [`series`].
//!
//! `docs/metrics-plugins.md` explains how to configure each exporter and how to add one.

pub mod options;
pub mod query;
pub mod registry;
pub mod series;
pub mod uploader;

pub use options::Options;
pub use query::{MetricQueryClient, QueryError, WhoLeads};
pub use registry::{Error, query_client, uploaders};
pub use uploader::{ExportError, MetricExporter, PayloadSource, Sent};
