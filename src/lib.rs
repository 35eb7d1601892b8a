//! Stormkeeper: a ZooKeeper-coordinated control plane for stream topologies, in one binary.
//!
//! **Observe the tree, decide in pure code, act through fenced writes and owned processes, observe
//! again.**
//!
//! ```text
//!  submit ─HTTP─▶ nimbus leader ─fenced multi─▶ ZooKeeper ◀─watch─ supervisors ─spawn─▶ workers
//!                 nimbus followers ◀───watch──────┘  ▲                          │ tuples (TCP)
//!                      ▲ metric log, blobs (HTTP)    └── heartbeats (ephemerals) ┘
//!                      └──────────── metric batches, blobs (HTTP) ───────────────┘
//! ```
//!
//! This package is the binary: the command line ([`cli`]), the configuration ([`config`]) and
//! [`local`] mode, a whole cluster in one process. Everything else is a crate below `crates/`; each
//! may name only the crates in its manifest.
//!
//! # Reading order
//!
//! 1. [`stormkeeper_model`]: the domain as plain values.
//! 2. [`stormkeeper_coordination`]: the versioned tree, the records in it, the election.
//! 3. The pure cores: [`stormkeeper_nimbus::decide`], `scheduler::solve`, and the slot state machine
//!    of [`stormkeeper_supervisor`].
//! 4. The daemons around them: [`stormkeeper_nimbus`], [`stormkeeper_supervisor`],
//!    [`stormkeeper_worker`]. They do not know one another.
//! 5. Metrics, in the order of the path of a value: [`stormkeeper_metrics`] (instruments, reports,
//!    roll-up), `metric-shipping` (spool, sender), [`stormkeeper_metrics_service`] (ingest,
//!    replication, history, export), [`stormkeeper_metric_store`] (RocksDB).
//! 6. [`stormkeeper_topology_package`] and [`stormkeeper_api_types`]: the edges that authors and
//!    clients meet. [`stormkeeper_runtime`]: tasks, shutdown, telemetry.
//!
//! `docs/architecture.md` has the invariants, `docs/glossary.md` the terms, `docs/adr/` the reasons,
//! and `zk-layout.md` every znode.

pub mod cli;
pub mod config;
pub mod local;

#[cfg(test)]
mod tidy;
