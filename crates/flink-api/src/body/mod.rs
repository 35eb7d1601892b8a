//! Bodies of all paths but those of metrics, with Flink's field names.

mod cluster;
mod empty;
mod job;
mod vertex;
mod worker;

pub use cluster::{ClusterCounts, applications, config, job_manager_configuration, overview};
pub use empty::*;
pub use job::{
    ExceptionEntry, application, exceptions, execution_result, job_application, job_config, job_details,
    job_list, job_overview, plan, status,
};
pub use vertex::{subtask, subtask_accumulators, subtask_times, task_managers_of_vertex, vertex_details};
pub use worker::{WorkerDetails, logs, task_manager, task_managers};
