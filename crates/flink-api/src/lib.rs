//! Flink's metric REST API in terms of a Stormkeeper cluster, without I/O.
//!
//! | Flink | Stormkeeper |
//! | --- | --- |
//! | job manager | the leading nimbus |
//! | task manager | a worker |
//! | job | a topology |
//! | vertex | a component |
//! | subtask | a task, by its rank among the tasks of its component |
//!
//! `docs/flink-api.md` lists every path. The bodies are functions from plain values to JSON, so
//! that each of Flink's field names is spelled in one place.

mod aggregate;
pub mod backpressure;
pub mod body;
mod error;
mod id;
mod job;
pub mod metric;
mod query;
pub mod schema;
mod state;

pub use aggregate::Aggregate;
pub use error::Error;
pub use id::FlinkId;
pub use job::{Job, PlanInput, RecordCounts, Subtask, Vertex, WorkerAddress};
pub use metric::{Distribution, MetricNumber, MetricTable, Reading};
pub use query::{Query, SubtaskRanges};
pub use state::{JobState, TaskState};
