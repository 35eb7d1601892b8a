//! Logs of workers.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Response};

use super::{Client, Error, OnLostResponse, Request, encoded, topology_route};
use crate::{
    http,
    log_lines::LineFilter,
    message::logs::{LogChunk, LogPosition, TopologyLogLines, TopologyLogs},
};
use stormkeeper_model::{Port, SupervisorId, WorkerId};

/// Limit for the download of one file; a nimbus ends it before if its parts do not arrive.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// Limit for the next part of a file: longer than that of a nimbus for its agent.
const PART_TIMEOUT: Duration = Duration::from_secs(45);

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

/// Log file that is being downloaded.
#[derive(Debug)]
pub struct LogDownload(Response);

/// Error of a download that does not reach the end of the file.
#[derive(Debug, thiserror::Error)]
#[error("the download broke off: {reason}")]
pub struct BrokenDownload {
    /// Cause.
    pub reason: String,
}

impl LogDownload {
    /// Returns the next bytes; `None` at the end of the file.
    ///
    /// # Errors
    /// If the file ends too early, or its next part does not arrive in time.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BrokenDownload> {
        match tokio::time::timeout(PART_TIMEOUT, self.0.chunk()).await {
            Ok(read) => read.map_err(|error| BrokenDownload { reason: http::reason(&error) }),
            Err(_too_long) => {
                let reason = format!("nothing arrived within {} s", PART_TIMEOUT.as_secs());
                Err(BrokenDownload { reason })
            }
        }
    }
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

    /// Downloads a log file as it is on the disk of its host.
    pub async fn download_log(&self, topology: &str, log: &LogAt) -> Result<LogDownload, Error> {
        let LogAt { supervisor, port, worker, file } = log;
        let (supervisor, file, worker) =
            (encoded(supervisor.as_str()), encoded(file), encoded(worker.as_str()));
        let route = format!("/logs/{supervisor}/{port}/{file}/download?worker={worker}");
        let request = Request {
            method: Method::GET,
            route: &topology_route(topology, &route),
            body: Bytes::new(),
            content_type: "application/json",
            on_lost_response: OnLostResponse::SendAgain,
            sees_writes: false,
            limit: Some(DOWNLOAD_TIMEOUT),
        };
        let (_nimbus, response) = self.read(&request).await?;
        Ok(LogDownload(response))
    }
}
