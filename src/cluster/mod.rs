//! The typed cluster state over a [`crate::tree::Tree`].
//!
//! [`layout`] is the only file that spells a path; [`record`] holds what is stored there,
//! [`event`] what is told of what happened, and [`archive`] what of the metrics is safe;
//! [`view::ClusterView`] is one consistent copy of it all, which [`observer::Observer`] keeps fresh; [`store`] reads and writes what a daemon may touch about itself; and
//! [`presence::Presence`] keeps a process's ephemerals in the tree across sessions.
//! What only the leader may write goes through `election::FencedWriter`, never through here.

pub mod archive;
pub mod event;
pub mod layout;
pub mod observer;
pub mod presence;
pub mod record;
pub mod store;
pub mod view;
