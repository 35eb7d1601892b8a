//! Ingest of metric batches and registrations. Only the leader ingests.
//!
//! [`Ingest`] checks and stores a request; `limiter` bounds how many requests are in flight. A stored
//! batch wakes the commit task of the replication, and its response has the high watermark.

mod limiter;
mod requests;

pub use limiter::BodyPermit;
pub(crate) use requests::Ingest;
