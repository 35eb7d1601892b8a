//! Stormkeeper: a ZooKeeper-coordinated control plane for stream topologies.
//!
//! The design in one sentence: **observe the tree, decide with pure code, act through fenced
//! writes and owned processes, observe again.**
//!
//! Each module uses only the modules above it (checked by the `tidy` test). The three daemons
//! (`nimbus`, `supervisor`, `worker`) never import one another; they meet in `cluster`, `model`
//! and `rpc`.

// The domain as plain values.
pub mod model;

// Time as a value that is passed in.
pub mod clock;

// Jittered exponential backoff.
pub mod backoff;

// Owned tasks, shutdown, logging.
pub mod daemon;

// A bare versioned tree with sessions, ephemerals, watches and multi.
pub mod tree;

// The typed cluster state over the tree.
pub mod cluster;

// Leader election and fenced writes.
pub mod election;

// Pure placement of tasks in slots.
pub mod schedule;

// Pure streaming: values, tuples, groupings.
pub mod tuple;

// Pure metrics code: names, points, windows, and the registry of a process.
pub mod metrics;

// Messages between daemons and clients over HTTP.
pub mod rpc;

// Metric store of a nimbus, in RocksDB.
pub mod archive;

// Exporters to external metric stores.
pub mod plugin;

// The deciding daemon.
pub mod nimbus;

// The agent of one machine.
pub mod supervisor;

// Code that runs inside a worker process.
pub mod worker;

// Configuration: `storm.yaml`, command line and environment over defaults.
pub mod config;

// Topology file format (flux).
pub mod flux;

// REST routes of a nimbus.
pub mod api;

// Local mode: a whole cluster in one process.
pub mod local;

// Command line interface, one file per command.
pub mod cli;

#[cfg(test)]
mod tidy;

// Builders and waits for tests.
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
