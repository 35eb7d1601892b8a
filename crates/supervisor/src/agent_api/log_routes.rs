//! Routes of the logs. Every part of a request is parsed into a type before a file is touched.

use std::{
    io::{self, Seek as _, SeekFrom},
    net::SocketAddr,
};

use axum::{
    Extension, Json,
    body::Body,
    extract::{ConnectInfo, FromRequestParts, Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    response::Response,
};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::{
    AgentApi, SampleReader,
    searches::{SearchClient, WAIT_MAX},
};
use crate::worker_logs::{CHUNK_BYTES_MAX, Launch, LogName, Scan};
use stormkeeper_api_types::{
    forward::FORWARDED_FOR,
    log_lines::{InvalidSearch, LineFilter, number_of_lines},
    message::{
        Code,
        logs::{AgentLogs, LogChunk, LogLines, WorkerLines, WorkerLogs},
    },
};
use stormkeeper_model::{InvalidId, Port, TopologyId, WorkerId, id::quoted};
use stormkeeper_runtime::blocking;
use stormkeeper_serving::{
    error::Rejection,
    query::{ValidQuery, invalid_parameter},
    range::Part,
};

/// Maximum number of launches in a list; older ones are counted.
const LISTED_MAX: usize = 300;

/// Maximum number of launches that one search reads.
const SEARCHED_MAX: usize = 100;

/// Default length of a chunk.
const CHUNK_BYTES: u64 = 64 << 10;

/// Default number of last lines of each launch.
const LINES: usize = 100;

/// Bytes that a download reads at once.
const DOWNLOAD_BYTES: usize = 64 << 10;

/// Parts of a path.
pub(super) struct ValidPath<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for ValidPath<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let read: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        read.map(|Path(path)| Self(path)).map_err(|rejection| invalid(rejection.body_text()))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchQuery {
    /// Text that the lines contain.
    text: Option<String>,
    /// Component that the lines name.
    component: Option<String>,
    /// Port of a slot.
    port: Option<u16>,
    /// Launch of a worker.
    worker: Option<String>,
    /// Number of last lines of each launch.
    last: Option<usize>,
    /// True to search all launches, and not only the newest of each port.
    #[serde(default)]
    past: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChunkQuery {
    /// Launch of the worker; the newest if absent.
    worker: Option<String>,
    /// Number of bytes before the part.
    #[serde(default)]
    offset: u64,
    /// Identity of the file, from the response before.
    identity: Option<String>,
    /// Maximum number of bytes.
    length: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DownloadQuery {
    /// Launch of the worker; the newest if absent.
    worker: Option<String>,
}

pub(super) async fn list(
    State(api): State<AgentApi>,
    ValidPath(topology): ValidPath<String>,
) -> Result<Json<AgentLogs>, Rejection> {
    let topology: TopologyId = parsed(&topology)?;
    let (running, store, named) = (api.running(), api.store.clone(), topology.clone());
    let listed = blocking::run(move || {
        let launches = store.launches(&topology)?;
        let omitted = launches.len().saturating_sub(LISTED_MAX);
        let logs = |Launch { worker, port, .. }| {
            let (running, (files, refused)) = (running.contains(&worker), store.files(&worker));
            WorkerLogs { port, worker, running, files, refused }
        };
        io::Result::Ok((launches.into_iter().take(LISTED_MAX).map(logs).collect(), omitted))
    });
    let (workers, omitted): (Vec<WorkerLogs>, usize) = listed.await.map_err(|error| unreadable(&error))?;
    if workers.is_empty() {
        return Err(no_launch(&api.host, &named));
    }
    Ok(Json(AgentLogs { supervisor: api.supervisor, host: api.host, workers, omitted }))
}

pub(super) async fn search(
    State(api): State<AgentApi>,
    ValidPath(topology): ValidPath<String>,
    ValidQuery(query): ValidQuery<SearchQuery>,
    parts: Parts,
) -> Result<Json<LogLines>, Rejection> {
    let topology: TopologyId = parsed(&topology)?;
    let worker: Option<WorkerId> = query.worker.as_deref().map(parsed).transpose()?;
    let filter = LineFilter::parse(query.text.clone(), query.component.as_deref()).map_err(invalid_search)?;
    let n_last = number_of_lines(query.last, LINES).map_err(invalid_search)?;
    let of_worker = worker.clone();
    let forwarded_for = parts.headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let client = SearchClient::new(peer, forwarded_for);
    let permit = api.searches.begin(client).await.ok_or_else(busy)?;
    let (running, store) = (api.running(), api.store.clone());
    let mut scan = Scan::new(filter, n_last, api.clock.clone());
    let named = topology.clone();
    let searched = blocking::run(move || {
        // Held until the search has ended, also if its client has gone.
        let _permit = permit;
        let launches = store.launches(&topology)?;
        let has_any = !launches.is_empty();
        let launches =
            launches.into_iter().filter(|launch| query.port.is_none_or(|port| launch.port == Port(port)));
        let mut launches: Vec<Launch> =
            launches.filter(|launch| worker.as_ref().is_none_or(|worker| launch.worker == *worker)).collect();
        if !query.past && worker.is_none() {
            launches.dedup_by_key(|launch| launch.port);
        }
        let n_more = launches.len().saturating_sub(SEARCHED_MAX);
        let lines = |Launch { worker, port, .. }| {
            let (running, found) = (running.contains(&worker), scan.search(&store, &worker));
            WorkerLines { port, worker, running, lines: found.lines, next: found.next }
        };
        let workers: Vec<WorkerLines> = launches.into_iter().take(SEARCHED_MAX).map(lines).collect();
        let of_launches = (n_more > 0).then(|| format!("{n_more} more launches were not searched"));
        io::Result::Ok((workers, has_any, scan.incomplete().or(of_launches)))
    });
    let (workers, has_any, incomplete) = searched.await.map_err(|error| unreadable(&error))?;
    match workers.is_empty() {
        true if has_any => return Err(no_such_launch(&api.host, &named, (query.port.map(Port), of_worker))),
        true => return Err(no_launch(&api.host, &named)),
        false => {}
    }
    Ok(Json(LogLines { supervisor: api.supervisor, host: api.host, workers, incomplete }))
}

pub(super) async fn chunk(
    State(api): State<AgentApi>,
    ValidPath((topology, port, file)): ValidPath<(String, String, String)>,
    ValidQuery(query): ValidQuery<ChunkQuery>,
    Extension(reader): Extension<SampleReader>,
) -> Result<Json<LogChunk>, Rejection> {
    let meant = Meant::new(&topology, &port, &file, query.worker.as_deref())?.checked(reader)?;
    let (running, store) = (api.running(), api.store.clone());
    let read = blocking::run(move || {
        let launch = meant.launch(&api)?;
        let position = (query.offset, query.identity.as_deref());
        let length = query.length.unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES_MAX);
        let read = store.chunk(&launch.worker, meant.file, position, length);
        read.map(|read| (launch.worker, read)).map_err(|error| meant.missing(&error))
    });
    let (worker, read) = read.await?;
    Ok(Json(LogChunk {
        running: running.contains(&worker),
        worker,
        file: read.name.to_string(),
        offset: read.offset,
        size: read.size,
        next: read.next,
        lost: read.lost,
        end: read.end,
        text: read.text,
    }))
}

pub(super) async fn download(
    State(api): State<AgentApi>,
    ValidPath((topology, port, file)): ValidPath<(String, String, String)>,
    ValidQuery(query): ValidQuery<DownloadQuery>,
    Extension(reader): Extension<SampleReader>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let meant = Meant::new(&topology, &port, &file, query.worker.as_deref())?.checked(reader)?;
    let opened = blocking::run(move || {
        let launch = meant.launch(&api)?;
        let mut opened = api.store.open(&launch.worker, meant.file).map_err(|error| meant.missing(&error))?;
        let part = Part::asked(&method, &headers, opened.size);
        opened.file.seek(SeekFrom::Start(part.first())).map_err(|error| meant.missing(&error))?;
        Ok::<_, Rejection>((launch.worker, opened, part))
    });
    let (worker, opened, part) = opened.await?;
    let name = file_name(&worker, opened.name);
    let mut response = part.response(|| {
        // The file may grow for ever.
        let bytes = tokio::fs::File::from_std(opened.file).take(part.length());
        Body::from_stream(ReaderStream::with_capacity(bytes, DOWNLOAD_BYTES))
    });
    if response.status().is_success() {
        let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
        let disposition = disposition.unwrap_or(HeaderValue::from_static("attachment"));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// Returns a name for a downloaded file, of characters that no header has to escape.
fn file_name(worker: &WorkerId, log: LogName) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
    format!("{worker}-{log}").chars().map(plain).collect()
}

/// Log file that a request means.
struct Meant {
    topology: TopologyId,
    port: Port,
    file: LogName,
    worker: Option<WorkerId>,
}

impl Meant {
    fn new(topology: &str, port: &str, file: &str, worker: Option<&str>) -> Result<Self, Rejection> {
        let number = port.parse().map_err(|_| invalid(format!("{} is no port", quoted(port))));
        let unknown = |_| {
            let message = format!("{} is no log of a worker", quoted(file));
            Rejection::new(Code::UnknownLog, message, Some("the list of logs has the names of the files"))
        };
        Ok(Self {
            topology: parsed(topology)?,
            port: Port(number?),
            file: file.parse().map_err(unknown)?,
            worker: worker.map(parsed).transpose()?,
        })
    }

    /// Refuses samples to a sender who may not read them.
    fn checked(self, SampleReader(may_read_samples): SampleReader) -> Result<Self, Rejection> {
        match may_read_samples || !self.file.has_samples() {
            true => Ok(self),
            false => {
                let message =
                    "the tuples of samples need a token of the role operator that is not limited to an owner";
                let hint = Some(
                    "`stormkeeper sample` reads them through a nimbus, also for the owner of the topology",
                );
                Err(Rejection::new(Code::Forbidden, message, hint))
            }
        }
    }

    /// Returns the launch. Blocks.
    fn launch(&self, api: &AgentApi) -> Result<Launch, Rejection> {
        let found = api.store.find(&self.topology, self.port, self.worker.clone());
        found
            .map_err(|error| unreadable(&error))?
            .ok_or_else(|| no_such_launch(&api.host, &self.topology, (Some(self.port), self.worker.clone())))
    }

    fn missing(&self, error: &io::Error) -> Rejection {
        let message = format!("the log {} of the worker cannot be read: {error}", self.file);
        Rejection::new(Code::UnknownLog, message, None)
    }
}

/// Advice for a launch whose directory is not there.
const KEPT: &str = "the directories of the last 20 ended workers of a supervisor are kept";

/// Response if no worker of a topology ran here, or all that did are forgotten.
fn no_launch(host: &str, topology: &TopologyId) -> Rejection {
    let message = format!("{host} has no logs of workers of {topology}");
    Rejection::new(Code::UnknownTopology, message, Some(KEPT))
}

/// Response if a topology has no launch at a port, or not the one that is asked for.
fn no_such_launch(
    host: &str,
    topology: &TopologyId,
    (port, worker): (Option<Port>, Option<WorkerId>),
) -> Rejection {
    let worker = worker.map(|worker| format!(" {worker}")).unwrap_or_default();
    let port = port.map(|port| format!(" at port {port}")).unwrap_or_default();
    let message = format!("{host} has no log of a worker{worker} of {topology}{port}");
    Rejection::new(Code::UnknownLog, message, Some(KEPT))
}

fn invalid_search(InvalidSearch { parameter, value, reason }: InvalidSearch) -> Rejection {
    invalid_parameter(parameter, &value, &reason)
}

pub(super) fn parsed<T: std::str::FromStr<Err = InvalidId>>(text: &str) -> Result<T, Rejection> {
    text.parse().map_err(|error: InvalidId| invalid(error.to_string()))
}

fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(Code::InvalidRequest, message, None)
}

fn busy() -> Rejection {
    let message = format!("other searches took longer than {} s", WAIT_MAX.as_secs());
    Rejection::new(Code::NotReady, message, Some("try again later"))
}

/// Response if the directories of workers cannot be listed.
fn unreadable(error: &io::Error) -> Rejection {
    let message = format!("the directories of the workers cannot be listed: {error}");
    tracing::warn!(%error, "the directories of the workers cannot be listed");
    Rejection::new(Code::Internal, message, Some("check the disk of the supervisor's data directory"))
}
