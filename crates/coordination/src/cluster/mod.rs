//! The typed cluster state over a [`crate::tree::Tree`].
//!
//! - [`layout`]: the paths; no other file spells a path.
//! - [`layout_version`]: the check that a tree has the layout of this build;
//!   [`checked_tree::CheckedTree`] makes no request before this check.
//! - [`tree_id`]: the identity of the tree, and the memory of a daemon about its own tree.
//! - [`record`]: the records that are stored in znodes.
//! - [`reported_problem`]: problems that a supervisor reports of itself and of its workers.
//! - [`event`]: the event list of the cluster.
//! - [`failure`]: recent failures that a supervisor reports in its record.
//! - [`metric_log`]: the replication state of the metric log.
//! - [`view::ClusterView`]: one consistent copy of the state, kept fresh by [`observer::Observer`].
//! - [`users`]: the users of the tree, and which znodes each of them may write.
//! - [`store`]: typed reads, and the writes that a daemon makes about itself.
//! - [`presence::Presence`]: a process's ephemerals, kept in the tree across sessions.
//!
//! Records that only the leader may write are written through `election::FencedWriter`, never
//! through this module.

pub mod checked_tree;
pub mod event;
pub mod failure;
pub mod layout;
pub mod layout_version;
pub mod metric_log;
pub mod observer;
pub mod presence;
pub mod record;
#[cfg(test)]
mod record_contract_tests;
pub mod reported_problem;
pub mod store;
pub mod tree_id;
pub mod users;
pub mod view;
