//! What daemons and clients say to each other: the bodies of requests and answers over
//! HTTP, the client that asks a nimbus, and the spec that a worker is launched with.

pub mod client;
pub mod launch;
pub mod message;
