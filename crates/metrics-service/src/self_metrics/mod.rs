//! Self metrics of a nimbus, collected once a minute as any worker does: reports of the nimbus' own
//! launch with sequence numbers, sent to the leader, or stored by the leader itself.
//!
//! [`NimbusInstruments`] has the instruments, some of which the ingest updates; [`report`] collects
//! and sends them.

mod instruments;
mod reporter;

pub use instruments::Stopwatch;
pub(crate) use instruments::{IngestInstruments, NimbusInstruments};
pub(crate) use reporter::{SelfMetrics, report};
