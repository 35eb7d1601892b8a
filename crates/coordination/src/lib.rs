//! The cluster state: a versioned tree, the typed records in it, and the election of a leader.
//!
//! - [`tree`]: the bare tree with sessions, ephemerals, watches and transactions; in memory or in
//!   ZooKeeper, under one contract.
//! - [`cluster`]: the only code that spells a path of the tree or decodes a record.
//! - [`election`]: leadership as a value; the only way to write what leaders own.

pub mod cluster;
pub mod election;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
pub mod tree;
