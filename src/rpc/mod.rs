//! Messages between daemons and clients: bodies of requests and answers over HTTP, the client of
//! nimbus, forwarding and blob transfer between nimbuses, the launch spec of a worker, the spool
//! and the shipping of its metric reports, and the topology package.

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
