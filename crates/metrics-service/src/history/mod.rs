//! History of topologies and tasks: which topology ran when, and in which worker each task ran.
//!
//! [`recorder`] is the leader's loop; [`diff`] compares the cluster with the recorded history and is
//! pure; [`backfill`] reconstructs from `/events` what happened while nobody recorded.

pub(crate) mod backfill;
pub(crate) mod diff;
pub(crate) mod recorder;
