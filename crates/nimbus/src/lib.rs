//! The coordinating daemon: observes the cluster, decides in pure code, acts through fenced
//! writes.
//!
//! ```text
//!  tree ─▶ Observer ─▶ ClusterView ─▶ decide ─▶ Plan ─▶ apply ─▶ FencedWriter ─▶ tree
//!                          │            ▲
//!                          └▶ Liveness ─┘             Handle ◀─ API, local mode
//! ```
//!
//! Start reading at [`decide()`](decide::decide()), which is pure, then `leader.rs`, the loop
//! around it, and [`daemon`], which assembles a nimbus.
//!
//! Invariants: only the nimbus that holds a [`stormkeeper_coordination::election::Leadership`]
//! writes leader-owned records; every such write is fenced; a healthy task is not moved unless an
//! operator asked for it; no topology is removed because one of its records is missing or
//! unreadable.

pub mod api;
mod apply;
mod blobs;
mod candidacy;
pub mod change;
mod check_turn;
pub mod credentials;
pub mod daemon;
pub mod decide;
pub mod drain;
mod dry_run;
pub mod failing_problem;
pub mod handle;
pub mod host_problem;
mod leader;
pub mod liveness;
mod log_levels;
#[cfg(test)]
mod metrics_tests;
pub mod options;
mod other_trees;
pub mod plan;
pub mod policy;
mod quota;
mod reachable;
pub mod refusal;
mod role;
mod samples;
mod submit;
mod table_check;
#[cfg(test)]
mod tests;
mod tracking;
mod tree_copy;
mod twin;
mod update;
mod uploaders;
mod worker_program;

pub use daemon::{Error, Nimbus, start};
pub use handle::Handle;
pub use leader::LeaderStatus;
pub use options::Options;
