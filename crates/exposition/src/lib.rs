//! Pages for Prometheus: families of samples, their names and units, and the formats in which they
//! are sent. Pure code.
//!
//! ```text
//!  full metric names ─▶ MeasuredSeries ─ with points ─▶ MeasuredFamilies ─┐
//!                                                                 ├─▶ Family … ─▶ Format::encode ─▶ page
//!  the cluster's numbers, described in `cluster` ─────────────────┘
//! ```
//!
//! - [`family`]: what all formats encode.
//! - [`format`](mod@format): text, OpenMetrics, protobuf, and the choice among them.
//! - [`measured`]: names, units and labels of the metrics of topologies, hosts and daemons.
//! - [`cluster`]: the families that a nimbus makes from its view of the cluster.
//! - [`spelling`]: names of users in the letters that Prometheus accepts.
//!
//! `docs/prometheus.md` lists all families.

pub mod cluster;
pub mod family;
pub mod format;
pub mod measured;
pub mod spelling;

pub use family::{Description, Distribution, Family, FamilyKind, Labels, Sample, SampleValue, Unit};
pub use format::Format;
pub use measured::{MeasuredFamilies, MeasuredSeries};
