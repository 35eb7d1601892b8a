//! From the metric reports of a process to the leading nimbus.
//!
//! - [`spool`]: reports on disk, kept until the leader has committed them.
//! - [`sender`]: a pure state machine that batches spooled reports and decides what to send next.
//! - [`ingest_client`]: the transport of batches to the leader, and its HTTP client.

pub mod ingest_client;
pub mod sender;
pub mod spool;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
