//! Metrics service of a nimbus: the leader ingests metrics and exports them, followers replicate
//! the metric log.
//!
//! ```text
//!  topology masters, supervisors         other nimbuses          external stores
//!          │ batches, names                │ log, checkpoints          ▲ minutes, events
//!  ┌───────▼───────┐  wakes commit ┌───────▼───────┐           ┌───────┴───────┐
//!  │    ingest     ├──────────────▶│  replication  │           │    export     │
//!  └───────▲───────┘               └───────┬───────┘           └───────▲───────┘
//!          │ own batches                   │ entries                   │ events
//!  ┌───────┴───────┐               ┌───────▼───────┐           ┌───────┴───────┐
//!  │ self metrics  │               │ metric store  │◀──────────┤    history    │
//!  └───────────────┘               └───────────────┘           └───────────────┘
//! ```
//!
//! [`MetricsService`] owns five parts and starts their tasks. Each part has its own state, and gets
//! the rest when it is made: the cluster (`cluster`), the metric store (`store_access`), and the
//! connections to other processes ([`MetricsClients`]). All parts but the replication follow and lead by
//! what the replication says (`Replication::as_leader`).
//!
//! - The metrics service must not delay the rest of nimbus: its tasks are a set of their own, a
//!   task that panics is restarted, and a metric store that cannot be opened is opened again while
//!   nimbus runs without metrics.
//! - The leader publishes the high watermark in ZooKeeper before the leader reports a position as
//!   committed (`replication::high_watermark`). A new leader first fetches the entries that its log
//!   is missing (`replication::takeover`), and waits for replicas that have missing committed entries
//!   (`replication::takeover_decision`). Committed entries therefore survive a change of the leader.
//! - While a nimbus leads, only its own entries enter its log; while a nimbus follows, only entries
//!   of its leader do. A task that applies entries of another nimbus holds
//!   `Replication::apply_lock`.
//!
//! Reading order: `service` (the parts and their tasks), `leader` (the tasks of a leadership),
//! `replication` (its `commit` defines the terms), `ingest`, `history`, `export`, `self_metrics`.

mod clients;
mod cluster;
mod counters;
mod error;
mod export;
mod history;
mod ingest;
mod leader;
mod options;
pub mod query;
mod replication;
mod self_metrics;
mod service;
mod status;
mod store_access;
mod topology_source;

pub use clients::{Error, MetricsClients};
pub use error::RequestError;
pub use export::exporters;
pub use ingest::BodyPermit;
pub use leader::Leading;
pub use options::{Intervals, MetricOptions};
pub use replication::checkpoint::Checkpoint;
pub use self_metrics::Stopwatch;
pub use service::{MetricsService, Setup};
pub use status::{CounterValues, ExporterActivity, ExporterState, Lag, MetricsStatus, ReplicaState};
pub use topology_source::TopologySource;
