//! Stormkeeper: a ZooKeeper-coordinated control plane for stream topologies, in one binary.
//!
//! This package is the binary: the command line, the configuration, and local mode. Everything
//! else is a crate below `crates/`.

pub mod cli;
pub mod config;
pub mod local;

#[cfg(test)]
mod tidy;
