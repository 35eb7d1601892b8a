//! External stores of metrics: one trait for exporters, and a file for each implementation in
//! [`backends`].
//!
//! ```text
//!  metric store ─ queue ─▶ exporter task ─▶ MetricExporter ─▶ log, file, alimonitor, opentsdb
//!                                    └ PayloadSource: the payload, page by page
//! ```
//!
//! - An exporter keeps no state that matters: an entry that it did not acknowledge is sent again,
//!   also after a crash, so each exporter writes in a way that tolerates repetition.
//! - An exporter never blocks the threads of async tasks, and each of its waits is bounded. A slow
//!   store delays only its own backlog.
//! - The numbers of a point and their names are defined once, in [`series`].
//!
//! `docs/exporters.md` explains how to configure each exporter and how to add one.

pub mod backends;
pub mod options;
pub mod registry;
pub mod series;

pub use backends::{ExportCounts, ExportError, MetricExporter, PayloadSource};
pub use options::ExporterOptions;
pub use registry::{Error, exporters, query_client};
