//! Leader election, and the only way to write znodes that the leader owns.
//!
//! A [`Candidate`] campaigns: one transaction creates the ephemeral `/leader` and writes `/term` at
//! the version that the candidate has read; the new version of `/term` is the **term**. The winner
//! gets a [`Leadership`], which alone can create a [`FencedWriter`]. Every commit of a
//! `FencedWriter` first checks that `/term` still has the version of its own term. A deposed leader
//! may not know that it is deposed (a pause, a lost connection): its writes fail without effect.
//!
//! The term is the version of a persistent znode, because an ephemeral that is created again starts
//! at version 0, so its version cannot distinguish an old leader from a new leader. A `/term` that
//! was deleted by hand begins at version 0 too; the election that creates it again writes it until
//! its version is above every term before, in the same transaction.

mod candidate;
mod identity;
mod leadership;
#[cfg(test)]
mod tests;

pub use candidate::{CampaignOutcome, Candidate, raise_term};
pub use identity::keep_tree_id;
pub use leadership::{FencedWriter, Leadership, WriteError};
