//! Tests with real processes: ZooKeeper, nimbuses, supervisors, workers, `kill -9`.

mod bad_input;
mod chaos;
mod cluster;
mod compose;
mod counting;
mod deleted_records;
mod exact_counts;
mod failing_hosts;
mod frozen_leader;
mod hidden_processes;
mod history;
mod life;
mod live_control;
mod local_dir;
mod log_pairs;
mod lost_disk;
mod lost_host;
mod old_layout;
mod opentsdb;
mod quiet_failover;
mod recovery;
mod relaunched_readings;
mod tree_contract;
mod unhealthy_workers;
mod victoria_metrics;
mod zk_layout_sample;
