//! What daemons and clients say to each other: the bodies of requests and answers over
//! HTTP, the client that asks a nimbus, what passes requests and blobs between nimbuses, the spec that a worker is launched with, what
//! it leaves of its metrics, and the blob that a topology travels in.

pub mod blobs;
pub mod bundle;
pub mod client;
pub mod cuts;
pub mod delivery;
pub mod forward;
pub mod launch;
pub mod message;
pub mod metrics;
pub mod metrics_client;
pub mod metrics_sync;
#[cfg(test)]
pub(crate) mod tests;
