//! Storm's UI REST API v1 as data: the bodies with Storm's field names and JSON types, and pure
//! functions that make them from the cluster view and from measured values.
//!
//! - [`Window`] is the time over which a page counts, [`Wanted`] the values that a page needs, and
//!   [`Values`] these values as read from a metric store.
//! - [`Cluster`] makes the pages that need no measured values, [`TopologyPage`] those of a topology.
//! - [`Rebalance`] and [`Operation`] are the bodies of writes, [`Failure`] that of every error.
//! - [`schema`] describes the bodies for the OpenAPI document.
//!
//! `docs/storm-api.md` describes each path and the deliberate differences from Storm.

mod cluster;
mod component;
mod failure;
mod graph;
mod jsonp;
mod numbers;
mod owners;
pub mod schema;
mod streams;
mod supervisors;
#[cfg(test)]
mod test_world;
#[cfg(test)]
mod tests;
mod text;
mod topologies;
mod topology;
mod totals;
mod window;
mod writes;

pub use cluster::Cluster;
pub use failure::Failure;
pub use jsonp::Callback;
pub use numbers::{EXECUTORS_MAX, Values, Wanted, WantedValue};
pub use topology::TopologyPage;
pub use totals::Totals;
pub use window::{InvalidWindow, Window};
pub use writes::{Operation, Rebalance};
