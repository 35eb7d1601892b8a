//! Replication of the metric log between nimbuses.
//!
//! [`Replication`] is the state of one nimbus; the other files are its methods, one subject each:
//!
//! - [`commit`]: pure rules of the high watermark, with the table that maps the terms to Kafka's and
//!   Raft's. Start here.
//! - [`high_watermark`]: reads and publishes the state at `/metric-log`.
//! - [`takeover_decision`] (pure) and [`takeover`]: a new leader completes its log, or records an
//!   unclean takeover.
//! - [`follower`] and [`checkpoint`]: a follower fetches entries or the whole database.
//! - [`server`]: answers the requests of other nimbuses.
//! - [`meta_publish`] and [`meta_check`]: fingerprints of the metric metas, published by the leader
//!   and compared by followers.

pub(crate) mod checkpoint;
mod commit;
pub(crate) mod follower;
pub(crate) mod high_watermark;
pub(crate) mod meta_check;
pub(crate) mod meta_publish;
#[cfg(test)]
mod model_test;
mod server;
mod state;
mod takeover;
mod takeover_decision;

pub(crate) use state::Replication;
