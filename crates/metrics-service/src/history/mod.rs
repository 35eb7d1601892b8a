//! History of topologies and tasks: which topology ran when, and in which worker each task ran.
//!
//! [`History`] and [`record_history`] are the leader's loop; `diff` compares the cluster with the
//! recorded history and is pure; `backfill` reconstructs from `/events` what happened while nobody
//! recorded.

mod backfill;
mod diff;
mod recorder;

pub(crate) use recorder::{History, record_history};
