//! External stores of metrics: one trait to send to them, one to ask them, and a file for each.
//!
//! ```text
//!  archive ─ queue ─▶ runner (nimbus/measure) ─▶ MetricExporter ─▶ log, file, alimonitor, opentsdb
//!                                    └ PayloadSource: the payload, page by page
//!  a following nimbus ─▶ MetricQueryClient ─▶ the leader
//! ```
//!
//! - An uploader keeps nothing that matters: what it did not acknowledge comes again, also after
//!   a crash, so each writes in a way that bears repeating.
//! - It never blocks the threads of async tasks, and each of its waits has a bound. What it
//!   waits for costs its own backlog only.
//! - Which numbers a point has, and what they are called, is said once, in [`series`].
//!
//! `docs/metrics-plugins.md` tells how each is set up and how to add one.

pub mod options;
pub mod query;
pub mod registry;
pub mod series;
pub mod uploader;

pub use options::Options;
pub use query::{MetricQueryClient, QueryError, WhoLeads};
pub use registry::{Error, query_client, uploaders};
pub use uploader::{ExportError, MetricExporter, PayloadSource, Sent};
