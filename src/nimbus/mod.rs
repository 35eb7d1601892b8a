//! The deciding daemon: observes the cluster, decides with pure code, acts through fenced
//! writes.

pub mod decide;
pub mod liveness;
pub mod options;
pub mod plan;
pub mod policy;

pub use options::Options;
