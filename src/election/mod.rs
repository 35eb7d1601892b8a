//! Who leads, and the only way to write what the leader owns.
//!
//! A [`Candidate`] stands: one transaction creates the ephemeral `/leader` and writes `/term`
//! at the version it read; the new version of `/term` is the **term**. The winner gets a
//! [`Leadership`], and only that makes a [`FencedWriter`], whose every commit first checks
//! `/term` at its own version. A deposed leader may not know it is one (a pause, a lost
//! connection): its writes fail all the same, they do not land.
//!
//! The term is on a persistent znode because an ephemeral that is created again starts at
//! version 0, so its version cannot tell an old leader from a new one.

mod candidate;
mod leadership;
#[cfg(test)]
mod tests;

pub use candidate::{Campaign, Candidate};
pub use leadership::{FencedWriter, Leadership, WriteError};
