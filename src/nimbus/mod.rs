//! The deciding daemon: observes the cluster, decides with pure code, acts through fenced
//! writes.

pub mod options;

pub use options::Options;
