//! Fuzz bodies: one function per parser of bytes that other programs wrote. Each parses any bytes
//! and asserts properties of the result, and panics if one does not hold.
//!
//! | body | bytes | writer |
//! | --- | --- | --- |
//! | [`multilang_frame`] | stdout of a component | the author's program |
//! | [`worker_wire`] | a TCP connection to a worker | anybody who reaches the port |
//! | [`point_codec`] | stored points | an earlier or later version, a failing disk |
//! | [`metric_log_entry`] | entries of the metric log | the leader |
//! | [`spool_report`] | the spool of a dead worker | the worker, a failing disk |
//! | [`metric_name`] | names of metrics in requests | workers, users of the API |
//! | [`package_tar`] | a topology package | the author's computer |
//! | [`topology_yaml`] | the topology file | the author |
//! | [`storm_yaml`] | the configuration file | the operator |
//! | [`znode_record`] | records in ZooKeeper | every daemon, any version; operators |
//!
//! `tests/corpus.rs` runs all of them on stable Rust; `fuzz/` at the top of the checkout runs them
//! under cargo-fuzz. Properties are about results, so no body reads a clock.

mod metrics;
mod package;
mod records;
mod worker;
mod yaml;

pub use metrics::{metric_log_entry, metric_name, point_codec, spool_report};
pub use package::package_tar;
pub use records::znode_record;
pub use worker::{multilang_frame, worker_wire};
pub use yaml::{storm_yaml, topology_yaml};

/// Largest error text: errors are logged and sent to other processes, whatever the input was.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// Checks that an error says something, and does not repeat a large input.
#[track_caller]
fn check_error(error: &str) {
    assert!(!error.is_empty(), "an error without a text");
    assert!(error.len() <= ERROR_BYTES_MAX, "an error of {} bytes", error.len());
}

/// Directory in memory if there is one: bodies that need files write them for every input.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}
