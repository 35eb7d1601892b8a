//! Stormkeeper: a ZooKeeper-coordinated control plane for stream topologies.
//!
//! One sentence to keep: **observe the tree, decide with pure code, act through fenced
//! writes and owned processes, observe again.**
//!
//! The modules, each using only those above it (the `tidy` test compares). The three
//! daemons (`nimbus`, `supervisor`, `worker`) never import one another; they meet in
//! `cluster`, `model` and `rpc`.

// The domain as plain values.
pub mod model;

// Time as a value that is passed in.
pub mod clock;

// Jittered exponential backoff.
pub mod backoff;

// Owned tasks, shutdown, logs.
pub mod daemon;

// A bare versioned tree with sessions, ephemerals, watches and multi.
pub mod tree;

// The typed cluster state over the tree.
pub mod cluster;

// Who leads, and fenced writes.
pub mod election;

// Pure placement of tasks in slots.
pub mod schedule;

// Pure streaming: values, tuples, groupings.
pub mod tuple;

// Pure measuring: names, points, windows, and the registry of a process.
pub mod metrics;

// What daemons and clients say to each other by HTTP.
pub mod rpc;

// The metric memory of a nimbus, in RocksDB.
pub mod archive;

// External stores of metrics.
pub mod plugin;

// The deciding daemon.
pub mod nimbus;

// The agent of one machine.
pub mod supervisor;

// Inside a worker process.
pub mod worker;

// `storm.yaml`, command line and environment over defaults.
pub mod config;

// The topology file.
pub mod flux;

// The REST routes of a nimbus.
pub mod api;

// A whole cluster in one process.
pub mod local;

// One file per command.
pub mod cli;

#[cfg(test)]
mod tidy;

// Builders and waits for tests.
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
