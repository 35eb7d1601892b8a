//! Launch spec: the file with which a supervisor configures a worker process.

mod connections;

pub use connections::{Connections, Listen, ZooKeeper};

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::package::PROGRAM;
use stormkeeper_model::{Slot, Timestamp, TopologyId, WorkerId, task_set::TaskSet, topology::Settings};

/// Format of the spec that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// File name of the spec in a worker's directory.
pub const SPEC_FILE: &str = "worker.json";

/// Environment variable of every process of a worker: the local directory of its supervisor.
/// Together with [`WORKER_VARIABLE`] it identifies the processes of a supervisor.
pub const SUPERVISOR_DIR_VARIABLE: &str = "STORMKEEPER_SUPERVISOR_DIR";

/// Environment variable of every process of a worker: the id of its launch.
pub const WORKER_VARIABLE: &str = "STORMKEEPER_WORKER";

/// Environment variable of every process of a component: the id of the component.
pub const COMPONENT_VARIABLE: &str = "STORMKEEPER_COMPONENT";

/// Environment variable of every process of a component: the path of [`CREDENTIALS_FILE`].
pub const CREDENTIALS_VARIABLE: &str = "STORMKEEPER_CREDENTIALS_FILE";

/// Name of the file with the credentials of the topology, a JSON object, in a worker's directory. It is
/// missing without a cluster secret.
pub const CREDENTIALS_FILE: &str = "credentials.json";

/// Name of the file with the users as which a worker connects to ZooKeeper, in its directory.
pub const USERS_FILE: &str = "zookeeper.users";

/// Name of the copy of the certificate and the key for ZooKeeper, for a worker that runs as another user,
/// in its directory. One file, so that the worker never reads the key of another certificate.
pub const ZOOKEEPER_IDENTITY_FILE: &str = "zookeeper.pem";

/// Setting in the handshake of a component: the path of [`CREDENTIALS_FILE`].
pub const CREDENTIALS_SETTING: &str = "stormkeeper.credentials.file";

/// Beginning of the name of the memory (memfd) that holds the heartbeat of a worker; the id of the
/// launch follows.
pub const HEARTBEAT_MEMORY: &str = "stormkeeper-heartbeat-";

/// Time for which a worker without an owner runs on, unless its supervisor sets it.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// One launch of a worker, as stored in [`SPEC_FILE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The topology of the worker.
    pub topology: TopologyId,
    /// The slot of the worker.
    pub slot: Slot,
    /// The `start` of the worker in the assignment.
    #[serde(rename = "start_ms")]
    pub start: Timestamp,
    /// Tasks of the worker, for a supervisor that recovers its ledger; empty in a spec of an older
    /// supervisor. The worker itself reads its assignment.
    #[serde(default, skip_serializing_if = "TaskSet::is_empty")]
    pub tasks: TaskSet,
    /// Id of this launch.
    pub worker: WorkerId,
    /// Host name under which other workers connect.
    pub host: String,
    /// The worker's own directory: `heartbeat`, `pids/`, `logs/`.
    pub dir: PathBuf,
    /// The unpacked topology package: `topology.json` and `resources/`.
    pub code: PathBuf,
    /// Defaults for `topology.*` settings, from the host's configuration.
    pub defaults: Settings,
    /// Period of writing the local heartbeat file.
    #[serde(rename = "heartbeat_period_ms", with = "millis")]
    pub heartbeat_period: Duration,
    /// Minimum period between two heartbeats of a task.
    #[serde(rename = "task_heartbeat_period_ms", with = "millis")]
    pub task_heartbeat_period: Duration,
    /// Time after which a silent component counts as hung, unless the topology sets it.
    #[serde(rename = "subprocess_timeout_ms", with = "millis")]
    pub subprocess_timeout: Duration,
    /// Period of metric reports; a report is also made at the end of each minute.
    #[serde(rename = "metric_report_period_ms", with = "millis", default = "minute")]
    pub metric_report_period: Duration,
    /// The supervisor's configuration file.
    pub config_file: Option<PathBuf>,
    /// The supervisor's `key=value` settings, which override the file.
    pub overrides: Vec<String>,
    /// Names of the supervisor's environment variables that the worker does not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld_variables: Vec<String>,
    /// Time after which the worker ends if its directory was removed, its supervisor is gone and
    /// ZooKeeper is not reached.
    #[serde(rename = "abandoned_after_ms", with = "millis", default = "abandoned_after")]
    pub abandoned_after: Duration,
    /// Owner of the topology, for a supervisor that recovers its ledger; empty in a spec of an older
    /// supervisor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Directory of what the supervisor writes for the worker, as this spec; without one, `dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<PathBuf>,
    /// User of this host as whom the worker runs; without one, that of its supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<WorkerUser>,
    /// Connections of the worker; none in a spec of an older supervisor, whose worker reads the
    /// configuration itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
}

/// User of a host as whom a worker runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerUser {
    /// Name.
    pub name: String,
    /// Id.
    pub uid: u32,
    /// Id of its group; it has no others.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// The time for a spec of an older supervisor.
fn abandoned_after() -> Duration {
    ABANDONED_AFTER
}

/// The report period for a spec of an older supervisor.
fn minute() -> Duration {
    Duration::from_secs(60)
}

/// Error of reading a launch spec.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the launch spec {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A newer supervisor wrote the file.
    #[error(
        "the launch spec {} has format {found}, and this build reads up to format {FORMAT}: the supervisor and \
         the program that it launches must be of one build",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u32,
    },
    /// The file does not contain a launch spec.
    #[error("{} is not a launch spec", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
}

impl LaunchSpec {
    /// Directory of what the supervisor writes for the worker.
    pub fn files_dir(&self) -> &Path {
        self.files.as_deref().unwrap_or(&self.dir)
    }

    /// Path of the file with the credentials of the topology.
    pub fn credentials(&self) -> PathBuf {
        self.files_dir().join(CREDENTIALS_FILE)
    }

    /// Path of the topology's own worker program, if it has one. Blocks.
    pub fn worker_program(&self) -> Option<PathBuf> {
        Some(self.code.join(PROGRAM)).filter(|program| program.is_file())
    }

    /// Path of the spec's file.
    pub fn path(&self) -> PathBuf {
        self.files_dir().join(SPEC_FILE)
    }

    /// Encodes the spec as the content of its file.
    ///
    /// # Errors
    /// If a path of the spec is not valid UTF-8.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(&Encoded { v: FORMAT, spec: self })
    }

    /// Reads the spec in the file at `path`. Blocks.
    ///
    /// # Errors
    /// [`ReadError`] if there is no such file or its content is invalid.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let bytes = fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        let invalid = |source| ReadError::Invalid { path: path.to_owned(), source };
        // Read alone, because the rest of a newer format may have another shape.
        let FormatOnly { v: found } = serde_json::from_slice(&bytes).map_err(invalid)?;
        if found > FORMAT {
            return Err(ReadError::Newer { path: path.to_owned(), found });
        }
        serde_json::from_slice(&bytes).map_err(invalid)
    }
}

#[derive(Serialize)]
struct Encoded<'a> {
    v: u32,
    #[serde(flatten)]
    spec: &'a LaunchSpec,
}

#[derive(Deserialize)]
struct FormatOnly {
    v: u32,
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
            slot: Slot { supervisor: "a".parse().expect("valid id"), port: stormkeeper_model::Port(6700) },
            start: Timestamp::from_millis(5),
            worker: "w1".parse().expect("valid id"),
            host: "h".to_owned(),
            dir: dir.to_owned(),
            code: "/blobs/x".into(),
            defaults: Settings::from([("topology.debug".to_owned(), true.into())]),
            heartbeat_period: Duration::from_millis(1500),
            task_heartbeat_period: Duration::from_secs(10),
            subprocess_timeout: Duration::from_secs(30),
            metric_report_period: Duration::from_secs(60),
            config_file: Some("/etc/storm.yaml".into()),
            overrides: vec!["ui.port=8081".to_owned()],
            tasks: TaskSet::range(1, 3),
            withheld_variables: Vec::new(),
            abandoned_after: Duration::from_secs(3600),
            owner: String::new(),
            files: None,
            user: None,
            connections: Some(Connections {
                zookeeper: ZooKeeper {
                    servers: vec!["h:2181".to_owned()],
                    root: "/stormkeeper".to_owned(),
                    session_timeout: Duration::from_secs(20),
                    request_timeout: Duration::from_secs(15),
                    authorities: Some("/etc/ca.pem".into()),
                    identity: None,
                },
                shared_tree: None,
                sends_metrics: false,
                listen: Listen::Preferred(std::net::Ipv4Addr::LOCALHOST.into()),
                unfinished_frame_bytes: 1 << 20,
            }),
        }
    }

    #[test]
    fn a_spec_survives_writing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let spec = spec(dir.path());
        fs::write(spec.path(), spec.encode().expect("JSON")).expect("written");
        assert_eq!(LaunchSpec::read(&spec.path()).expect("readable"), spec);
        let text = fs::read_to_string(spec.path()).expect("text");
        assert!(text.starts_with("{\n  \"v\": 1,\n  \"topology\""), "{text}");
    }

    #[test]
    fn spec_with_which_a_supervisor_of_the_first_build_started_a_worker_is_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(SPEC_FILE);
        // As that build wrote it, for a worker that still runs when its supervisor is upgraded.
        let text = r#"{ "v": 1, "topology": "wc-1-100", "slot": { "supervisor": "a", "port": 6700 }, "start_ms": 5,
            "worker": "w1", "host": "h", "dir": "/data/workers/w1", "code": "/blobs/x", "defaults": {},
            "heartbeat_period_ms": 1500, "task_heartbeat_period_ms": 10000, "subprocess_timeout_ms": 30000,
            "config_file": null, "overrides": [] }"#;
        fs::write(&path, text).expect("written");
        let read = LaunchSpec::read(&path).expect("readable");
        let defaults = (read.metric_report_period, read.abandoned_after);
        assert_eq!(defaults, (Duration::from_secs(60), Duration::from_secs(3600)));
        assert_eq!((read.tasks, read.owner, read.files), (TaskSet::default(), String::new(), None));
        assert_eq!((read.slot.port.0, read.user, read.connections), (6700, None, None));
    }

    #[test]
    fn a_missing_or_invalid_spec_is_rejected_with_its_path() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(SPEC_FILE);
        assert!(LaunchSpec::read(&path).expect_err("missing").to_string().contains("worker.json"));
        for invalid in ["{}", r#"{"v":1}"#] {
            fs::write(&path, invalid).expect("written");
            assert!(LaunchSpec::read(&path).expect_err("invalid").to_string().contains("worker.json"));
        }
        fs::write(&path, r#"{"v":2,"jobs":[]}"#).expect("written");
        let newer = LaunchSpec::read(&path).expect_err("newer").to_string();
        assert!(newer.contains("worker.json has format 2, and this build reads up to format 1"), "{newer}");
    }
}
