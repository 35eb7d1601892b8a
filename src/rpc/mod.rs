//! What daemons and clients say to each other: by HTTP, and through the launch spec.

pub mod launch;
