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
//! - A report ([`MetricReport`]) has a sequence number of its worker. The leader ingests each sequence
//!   number once.
//!
//! `docs/metrics.md` describes metrics for users; `docs/design/metrics.md` explains the design.

pub mod batch;
pub mod buckets;
pub mod builtin;
pub mod codec;
pub mod control;
pub mod id;
pub mod instrument;
pub mod live;
pub mod merge;
pub mod messagepack;
pub mod minute;
pub mod name;
pub mod percentile;
pub mod point;
pub mod protocol;
pub mod registry;
pub mod report;
pub mod rollup;
pub mod user;
pub mod window;

#[cfg(test)]
mod tests;

pub use batch::MetricBatch;
pub use buckets::Buckets;
pub use builtin::Builtin;
pub use control::Control;
pub use id::MetricId;
pub use merge::Merger;
pub use minute::Minute;
pub use name::{MetaType, MetricName, MetricType, Subject};
pub use point::Point;
pub use registry::{CollectRequest, Reading, Registry};
pub use report::{Leaf, MetricReport};
pub use user::UserMetrics;
pub use window::Window;
