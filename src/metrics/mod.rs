//! What is measured, and what becomes of it: pure but for the registry, which many tasks share.
//!
//! ```text
//!  instruments ─▶ Registry ─ cut ─▶ Snapshot ─ roll up, merge ─▶ Contribution ─▶ archive
//!   (leaves: stream, task,            (one worker,                 (some workers, every
//!    worker, connection)               leaves only)                 level up to cluster)
//! ```
//!
//! - Only the lowest level of a metric is counted while tuples flow. The levels above are made
//!   from it by the roll-up, in one place, so each is exactly the sum of the one below.
//! - A [`Point`] is what one metric has to say about one stretch of time. Points merge by one
//!   operation, associative and commutative, over tasks, workers and windows alike.
//! - A [`Snapshot`] is numbered by its worker. Whoever takes it in takes each number once.
//!
//! `docs/metrics.md` tells the whole story; `docs/design/metrics.md` why it is so.

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
