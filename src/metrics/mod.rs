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

pub mod contribution;
pub mod id;
pub mod minute;
pub mod name;
pub mod point;
pub mod snapshot;
pub mod window;

pub use contribution::Contribution;
pub use id::MetricId;
pub use minute::Minute;
pub use name::{MetaType, MetricName, MetricType, Subject};
pub use point::Point;
pub use snapshot::{Leaf, Snapshot};
pub use window::Window;
