//! The domain as plain values: topologies, assignments, statuses, ids.
//!
//! Nothing here does I/O, reads a clock or is async. Every id is a type that cannot contain an
//! invalid value: text is parsed once, at the edge, by [`std::str::FromStr`].
//!
//! Start with [`topology::Topology`] (the author's graph), then [`assignment::Assignment`]
//! (placement of its tasks) and [`status::TopologyStatus`] (its lifecycle).

pub mod absent;
pub mod address;
pub mod assignment;
pub mod backoff;
pub mod clock;
pub mod clock_difference;
pub mod error;
pub mod event;
pub mod fair_share;
pub mod heartbeat;
pub mod id;
pub mod log_control;
pub mod log_position;
pub mod metric_control;
pub mod platform;
pub mod resources;
pub mod restarts;
pub mod secret_text;
pub mod settings;
pub mod spelling;
pub mod status;
pub mod suggest;
pub mod task_set;
#[cfg(any(test, feature = "test-support"))]
pub mod test_support;
pub mod text;
pub mod time;
pub mod topology;
pub mod tuple_samples;
pub mod unsupported_keys;
pub mod update;
pub mod validate;

pub use id::{
    BlobKey, ComponentId, HostName, InvalidId, NimbusId, Port, Slot, StreamId, SupervisorId, TaskId, Term,
    TopologyId, TopologyName, TreeId, WorkerId, Zxid,
};
pub use log_position::LogPosition;
pub use time::Timestamp;

/// Fields of a stored record that this version of the program does not know.
pub type UnknownFields = serde_json::Map<String, serde_json::Value>;
