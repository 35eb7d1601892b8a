//! Logs of workers.

use super::{Client, Error, encoded, topology_route};
use crate::{
    log_lines::LineFilter,
    message::logs::{LogChunk, LogPosition, TopologyLogLines, TopologyLogs},
};
use stormkeeper_model::{Port, SupervisorId, WorkerId};

/// Selection of lines of the workers of a topology.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSearch {
    /// Condition on the lines.
    pub filter: LineFilter,
    /// Host of the workers, or id of their supervisor; all when absent.
    pub host: Option<String>,
    /// Port of the worker; all when absent.
    pub port: Option<Port>,
    /// Number of last lines of each launch.
    pub last: usize,
    /// True to search all launches on all supervisors, and not only the newest of each assigned port.
    pub past: bool,
}

/// A log of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogAt {
    /// The supervisor.
    pub supervisor: SupervisorId,
    /// Port of the slot.
    pub port: Port,
    /// The launch.
    pub worker: WorkerId,
    /// Name of the log.
    pub file: String,
}

impl Client {
    /// Lists the logs of the workers of a topology; of all supervisors if `all`.
    pub async fn logs(&self, topology: &str, all: bool) -> Result<TopologyLogs, Error> {
        self.get(&topology_route(topology, if all { "/logs?all=true" } else { "/logs" })).await
    }

    /// Returns the last lines of the logs of a topology that satisfy a filter.
    pub async fn search_logs(&self, topology: &str, search: &LogSearch) -> Result<TopologyLogLines, Error> {
        let LogSearch { filter, host, port, last, past } = search;
        let mut query = format!("last={last}&past={past}");
        let texts = [
            ("text", filter.text.clone()),
            ("component", filter.component.as_ref().map(ToString::to_string)),
            ("host", host.clone()),
            ("port", port.map(|port| port.to_string())),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", encoded(&value)));
            }
        }
        self.get(&topology_route(topology, &format!("/logs/search?{query}"))).await
    }

    /// Returns the part of a log at a position. An empty position is the beginning of the log.
    pub async fn read_log(
        &self,
        topology: &str,
        log: &LogAt,
        position: &LogPosition,
    ) -> Result<LogChunk, Error> {
        let LogAt { supervisor, port, worker, file } = log;
        let (supervisor, file, worker) =
            (encoded(supervisor.as_str()), encoded(file), encoded(worker.as_str()));
        let LogPosition { identity, offset } = position;
        let identity = encoded(identity);
        let query = format!("worker={worker}&offset={offset}&identity={identity}");
        self.get(&topology_route(topology, &format!("/logs/{supervisor}/{port}/{file}?{query}"))).await
    }
}
