//! What a supervisor tells the worker process that it launches.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::model::{Slot, Timestamp, TopologyId, WorkerId, topology::Settings};

/// The name of the spec in a worker's directory.
pub const SPEC_FILE: &str = "worker.json";

/// Set for every process of a worker to the local directory of its supervisor. Together
/// with [`WORKER_VARIABLE`] it tells a supervisor which processes are its own.
pub const SUPERVISOR_DIR_VARIABLE: &str = "STORMKEEPER_SUPERVISOR_DIR";

/// Set for every process of a worker to the id of its launch.
pub const WORKER_VARIABLE: &str = "STORMKEEPER_WORKER";

/// One launch of a worker, as it stands in [`SPEC_FILE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The topology that it works for.
    pub topology: TopologyId,
    /// The slot that it fills.
    pub slot: Slot,
    /// The `start` of its assigned worker.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
    /// This launch.
    pub worker: WorkerId,
    /// The host that it is reached at.
    pub host: String,
    /// Its own directory: `heartbeat`, `pids/`, `logs/`.
    pub dir: PathBuf,
    /// The unpacked blob: `topology.json` and `resources/`.
    pub code: PathBuf,
    /// `topology.*` settings of the host's configuration, for what the topology leaves open.
    pub defaults: Settings,
    /// How often the local heartbeat file is written.
    #[serde(rename = "heartbeat_period_ms", with = "millis")]
    pub heartbeat_period: Duration,
    /// How often the beats of its tasks are refreshed at most.
    #[serde(rename = "task_beat_period_ms", with = "millis")]
    pub task_beat_period: Duration,
    /// How long a component that is silent is left alone, unless the topology says.
    #[serde(rename = "subprocess_timeout_ms", with = "millis")]
    pub subprocess_timeout: Duration,
    /// How often it reports its metrics; also at the end of each minute.
    #[serde(rename = "metric_report_period_ms", with = "millis", default = "minute")]
    pub metric_report_period: Duration,
    /// The configuration file that the supervisor was started with.
    pub config_file: Option<PathBuf>,
    /// The `key=value` settings that the supervisor was started with; they win over the file.
    pub overrides: Vec<String>,
}

/// The report period of a spec that an older supervisor wrote.
fn minute() -> Duration {
    Duration::from_secs(60)
}

/// A launch spec that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read the launch spec {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold a launch spec.
    #[error("{} is not a launch spec", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl LaunchSpec {
    /// Where the spec itself is kept.
    pub fn path(&self) -> PathBuf {
        self.dir.join(SPEC_FILE)
    }

    /// Reads the spec in the file at `path`. Blocks.
    ///
    /// # Errors
    /// [`ReadError`] when there is no such file or it holds something else.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let bytes = fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| ReadError::Invalid { path: path.to_owned(), source })
    }
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path) -> LaunchSpec {
        LaunchSpec {
            topology: "wc-1-100".parse().expect("valid id"),
            slot: Slot { supervisor: "a".parse().expect("valid id"), port: crate::model::Port(6700) },
            start: Timestamp::from_millis(5),
            worker: "w1".parse().expect("valid id"),
            host: "h".to_owned(),
            dir: dir.to_owned(),
            code: "/blobs/x".into(),
            defaults: Settings::from([("topology.debug".to_owned(), true.into())]),
            heartbeat_period: Duration::from_millis(1500),
            task_beat_period: Duration::from_secs(10),
            subprocess_timeout: Duration::from_secs(30),
            metric_report_period: Duration::from_secs(60),
            config_file: Some("/etc/storm.yaml".into()),
            overrides: vec!["ui.port=8081".to_owned()],
        }
    }

    #[test]
    fn a_spec_reads_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let spec = spec(dir.path());
        fs::write(spec.path(), serde_json::to_vec(&spec).expect("JSON")).expect("written");
        assert_eq!(LaunchSpec::read(&spec.path()).expect("readable"), spec);
    }

    #[test]
    fn what_is_no_spec_is_refused_with_its_path() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(SPEC_FILE);
        assert!(LaunchSpec::read(&path).expect_err("missing").to_string().contains("worker.json"));
        fs::write(&path, "{}").expect("written");
        assert!(LaunchSpec::read(&path).expect_err("invalid").to_string().contains("worker.json"));
    }
}
