//! Metrics: instruments, names, points and their roll-up. Pure code, except for the registry,
//! which many tasks share.
//!
//! ```text
//!  instruments ─▶ Registry ─ collect ─▶ report ─ roll up, merge ─▶ metric batch ─▶ metric store
//!   (leaves: stream, task,               (one worker,               (some workers, every
//!    worker, connection)                  leaves only)               level up to cluster)
//! ```
//!
//! - Only the lowest level of a metric is counted while tuples flow. The roll-up computes the
//!   levels above from it, in one place, so each level is exactly the sum of the level below.
//! - A [`Point`] is the value of one metric over one interval of time. Points merge by one
//!   operation, associative and commutative, over tasks, workers and windows alike.
//! - A report ([`Snapshot`]) has a sequence number of its worker. The leader ingests each sequence
//!   number once.
//!
//! `docs/metrics.md` describes metrics for users; `docs/design/metrics.md` explains the design.

pub mod buckets;
pub mod builtin;
pub mod client;
pub mod codec;
pub mod contribution;
pub mod control;
pub mod id;
pub mod instrument;
pub mod merge;
pub mod minute;
pub mod name;
pub mod percentile;
pub mod point;
pub mod protocol;
pub mod registry;
pub mod rollup;
pub mod snapshot;
pub mod window;

#[cfg(test)]
mod tests;

pub use buckets::Buckets;
pub use builtin::Builtin;
pub use client::MetricClient;
pub use contribution::Contribution;
pub use control::Control;
pub use id::MetricId;
pub use merge::Merger;
pub use minute::Minute;
pub use name::{MetaType, MetricName, MetricType, Subject};
pub use point::Point;
pub use registry::{CutRequest, Registry};
pub use snapshot::{Leaf, Snapshot};
pub use window::Window;
