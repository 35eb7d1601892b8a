//! Topologies outside of a cluster: the file that an author writes, the package that is
//! submitted, and the specification that a worker is launched with.
//!
//! - [`flux`]: the topology file (Flux YAML) to a [`stormkeeper_model::topology::Topology`].
//! - [`yaml`]: YAML with the position of every node, for errors that name line and column.
//! - [`package`]: one tar archive with `topology.json` and `resources/`, named by its sha256.
//! - [`program`]: the author's worker program, which describes its topology.
//! - [`executable`]: processor and C library that the author's worker program needs.
//! - [`entries`]: the check of a package's entries, for the submit and for unpacking.
//! - [`status_file`]: the format of the files with which a running worker tells its supervisor about itself.
//! - [`worker_restarts`]: the file in which a worker counts the restarts of its components.
//! - [`launch`]: the specification that a supervisor hands to a worker process.
//! - [`worker_report`]: the files in which a running worker reports to its supervisor.

pub mod entries;
pub mod executable;
pub mod flux;
pub mod launch;
pub mod package;
pub mod program;
pub mod status_file;
pub mod worker_report;
pub mod worker_restarts;
pub mod yaml;
