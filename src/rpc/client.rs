//! A client of the nimbuses: finds one that answers, prefers the leader.
//!
//! Seeds are tried in the order given. A nimbus that follows answers reads itself and
//! forwards writes, so that any seed will do; a write goes to the leader directly when a
//! seed says who that is.

mod metrics;

use std::{fmt, sync::Mutex, time::Duration};

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

pub use metrics::{MetricFilter, Page, Span};

use crate::{
    clock::Clock,
    model::{BlobKey, HostName, Term},
    rpc::{
        forward::{TERM, USER},
        message::{
            Accepted, ClusterSummary, Code, DrainRequest, ErrorBody, EventList, HostAccepted, KillRequest,
            NimbusList, RebalanceRequest, SubmitRequest, SupervisorList, TopologyDetail, TopologyErrors,
            TopologyList,
        },
    },
};

/// How long a client waits.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection to one nimbus.
    pub connect: Duration,
    /// For one request and its answer, a blob's upload included.
    pub request: Duration,
    /// For a leader to be there, over all tries. Zero asks every seed once.
    pub leader: Duration,
    /// For a nimbus that answers, but has lost ZooKeeper for the moment, to read again.
    pub recovery: Duration,
}

impl Default for Timeouts {
    /// Three seconds to connect, a minute for a request, thirty seconds for a failover, fifteen for
    /// ZooKeeper to come back.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            request: Duration::from_secs(60),
            leader: Duration::from_secs(30),
            recovery: Duration::from_secs(15),
        }
    }
}

/// Between two rounds of asking every seed while there is no leader. Short, as a successor
/// leads within a fraction of a second after a clean stop.
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// The most bytes of an answer that is not ours which an error quotes.
const QUOTED_BYTES_MAX: usize = 200;

/// A client of the nimbuses of one cluster.
#[derive(Debug)]
pub struct Client {
    seeds: Vec<String>,
    timeouts: Timeouts,
    http: reqwest::Client,
    clock: Clock,
    user: Option<String>,
    // Guards what is known of leaders; held for a clone.
    known: Mutex<Known>,
}

/// What a client knows of leaders.
#[derive(Debug, Default)]
struct Known {
    /// The latest term that any nimbus has told of.
    term: Option<Term>,
    /// Where its leader answers.
    leader: Option<String>,
}

/// Why a request brought no answer, or another one than was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No seed was given.
    #[error("no nimbus is configured (nimbus.seeds is empty)")]
    NoSeeds,
    /// The client could not be made.
    #[error("the HTTP client could not be made")]
    Setup(#[source] reqwest::Error),
    /// No nimbus could be asked.
    #[error("no nimbus answered: {}", Attempts(.tried))]
    Unreachable {
        /// Every one tried, with the reason.
        tried: Vec<Attempt>,
    },
    /// A nimbus refused.
    #[error("{}", .body.message)]
    Refused {
        /// Which one.
        nimbus: String,
        /// The HTTP status.
        status: u16,
        /// Its answer.
        body: ErrorBody,
    },
    /// The connection broke after a write was sent.
    #[error("{nimbus} did not answer in time, and the request may have taken effect: {reason}")]
    Unanswered {
        /// Which one was asked.
        nimbus: String,
        /// What went wrong.
        reason: String,
    },
    /// What answered is no nimbus of ours.
    #[error("{nimbus} answered {status} with something that is not ours: {quote}")]
    Foreign {
        /// Which address.
        nimbus: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer.
        quote: String,
    },
}

/// One nimbus that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its address.
    pub nimbus: String,
    /// What went wrong.
    pub reason: String,
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Attempt { nimbus, reason }) in self.0.iter().enumerate() {
            write!(f, "{}{nimbus} ({reason})", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Error {
    /// The answer of the nimbus that refused.
    pub fn refusal(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused { body, .. } => Some(body),
            Self::NoSeeds
            | Self::Setup(_)
            | Self::Unreachable { .. }
            | Self::Unanswered { .. }
            | Self::Foreign { .. } => None,
        }
    }

    fn code(&self) -> Option<Code> {
        self.refusal().map(|body| body.code)
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { body, .. } => body.hint.clone(),
            Self::NoSeeds => {
                Some("set nimbus.seeds in storm.yaml or pass -c nimbus.seeds=HOST:PORT".to_owned())
            }
            Self::Unreachable { .. } => {
                Some("start a nimbus, or check nimbus.seeds and the port of its API (ui.port)".to_owned())
            }
            Self::Unanswered { .. } => Some("look with `stormkeeper list` before trying again".to_owned()),
            Self::Foreign { .. } => {
                Some("another program listens there; check nimbus.seeds and ui.port".to_owned())
            }
            Self::Setup(_) => None,
        }
    }
}

/// Whether a request may be sent again when its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Safe,
    Never,
}

/// What one nimbus made of a request.
enum Tried {
    Answered(reqwest::Response),
    /// It surely did nothing: the next one may be asked.
    NotTaken(String),
    /// It did nothing, and may do it soon.
    NotNow(String),
    Failed(Error),
}

struct Request<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    content_type: &'static str,
    repeat: Repeat,
}

impl Client {
    /// A client that asks `seeds` in their order, each `host:port`.
    ///
    /// # Errors
    /// [`Error::NoSeeds`] without a seed, [`Error::Setup`] when TLS or DNS cannot be set up.
    pub fn new(seeds: Vec<String>, timeouts: Timeouts) -> Result<Self, Error> {
        if seeds.is_empty() {
            return Err(Error::NoSeeds);
        }
        let http = reqwest::Client::builder()
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.request)
            // A proxy of the environment knows nothing of the cluster's hosts.
            .no_proxy()
            .build()
            .map_err(Error::Setup)?;
        Ok(Self { seeds, timeouts, http, clock: Clock::new(), user: None, known: Mutex::default() })
    }

    /// Says who asks, for the cluster's list of events.
    pub fn as_user(mut self, user: String) -> Self {
        self.user = Some(user);
        self
    }

    /// Stores a blob on the leader, which announces it. Storing it again changes nothing.
    ///
    /// # Errors
    /// As every method: [`Error`].
    pub async fn put_blob(&self, key: &BlobKey, bytes: Bytes) -> Result<(), Error> {
        let request = Request {
            method: Method::PUT,
            path: &format!("/api/v1/blobs/{key}"),
            body: bytes,
            content_type: "application/octet-stream",
            repeat: Repeat::Safe,
        };
        self.write(request).await.map(drop)
    }

    /// Runs the topology of a stored blob.
    pub async fn submit(&self, request: &SubmitRequest) -> Result<Accepted, Error> {
        // A second submit would be refused as a name in use, which tells the user a lie.
        self.post("/api/v1/topology/submit", request, Repeat::Never).await
    }

    /// Every topology in short.
    pub async fn list(&self) -> Result<TopologyList, Error> {
        self.get("/api/v1/topology/summary").await
    }

    /// One topology by id or name.
    pub async fn show(&self, topology: &str) -> Result<TopologyDetail, Error> {
        self.get(&topology_path(topology, "")).await
    }

    /// Lets spouts run.
    pub async fn activate(&self, topology: &str) -> Result<Accepted, Error> {
        self.post(&topology_path(topology, "/activate"), &serde_json::json!({}), Repeat::Safe).await
    }

    /// Stops spouts.
    pub async fn deactivate(&self, topology: &str) -> Result<Accepted, Error> {
        self.post(&topology_path(topology, "/deactivate"), &serde_json::json!({}), Repeat::Safe).await
    }

    /// Places tasks anew after a wait.
    pub async fn rebalance(&self, topology: &str, request: &RebalanceRequest) -> Result<Accepted, Error> {
        self.post(&topology_path(topology, "/rebalance"), request, Repeat::Never).await
    }

    /// Removes a topology after a wait.
    pub async fn kill(&self, topology: &str, request: &KillRequest) -> Result<Accepted, Error> {
        self.post(&topology_path(topology, "/kill"), request, Repeat::Never).await
    }

    /// The errors kept of a topology's tasks.
    pub async fn errors(&self, topology: &str) -> Result<TopologyErrors, Error> {
        self.get(&topology_path(topology, "/errors")).await
    }

    /// The cluster in numbers, and who leads.
    pub async fn cluster(&self) -> Result<ClusterSummary, Error> {
        self.get("/api/v1/cluster/summary").await
    }

    /// What happened lately, newest first: the last `limit`, of one topology if it is named.
    pub async fn events(&self, topology: Option<&str>, limit: Option<usize>) -> Result<EventList, Error> {
        let limit = limit.map(|limit| format!("limit={limit}"));
        let topology = topology.map(|topology| format!("topology={}", encoded(topology)));
        let query: Vec<String> = limit.into_iter().chain(topology).collect();
        self.get(&format!("/api/v1/cluster/events?{}", query.join("&"))).await
    }

    /// Has the workers of a host leave it.
    pub async fn drain(&self, host: &HostName, request: &DrainRequest) -> Result<HostAccepted, Error> {
        self.post(&format!("/api/v1/host/{}/drain", encoded(host.as_str())), request, Repeat::Safe).await
    }

    /// Lets a host be used again.
    pub async fn undrain(&self, host: &HostName) -> Result<HostAccepted, Error> {
        // A second one would be refused, as the host is not drained then.
        let path = format!("/api/v1/host/{}/undrain", encoded(host.as_str()));
        self.post(&path, &serde_json::json!({}), Repeat::Never).await
    }

    /// The live nimbuses as one of them sees them, which is asked and no other.
    pub async fn nimbuses_seen_by(&self, nimbus: &str) -> Result<NimbusList, Error> {
        let request = Request {
            method: Method::GET,
            path: "/api/v1/nimbus/summary",
            body: Bytes::new(),
            content_type: "application/json",
            repeat: Repeat::Safe,
        };
        match self.ask(nimbus, &request).await {
            Tried::Answered(response) => read((nimbus.to_owned(), response)).await,
            Tried::NotTaken(reason) | Tried::NotNow(reason) => {
                Err(Error::Unreachable { tried: vec![Attempt { nimbus: nimbus.to_owned(), reason }] })
            }
            Tried::Failed(error) => Err(error),
        }
    }

    /// The live supervisors.
    pub async fn supervisors(&self) -> Result<SupervisorList, Error> {
        self.get("/api/v1/supervisor/summary").await
    }

    /// The live nimbuses.
    pub async fn nimbuses(&self) -> Result<NimbusList, Error> {
        self.get("/api/v1/nimbus/summary").await
    }

    async fn post<B, A>(&self, path: &str, body: &B, repeat: Repeat) -> Result<A, Error>
    where
        B: Serialize + Sync,
        A: DeserializeOwned,
    {
        let body = serde_json::to_vec(body).expect("messages are maps with text keys").into();
        let request = Request { method: Method::POST, path, body, content_type: "application/json", repeat };
        read(self.write(request).await?).await
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, Error> {
        let request = Request {
            method: Method::GET,
            path,
            body: Bytes::new(),
            content_type: "application/json",
            repeat: Repeat::Safe,
        };
        let deadline = self.clock.monotonic().plus(self.timeouts.recovery);
        loop {
            let (mut tried, mut is_recovering, mut without_archive) = (Vec::new(), false, None);
            // The leader of an earlier write has what was written; a follower may be a moment behind.
            for nimbus in self.known_addresses() {
                match self.ask(&nimbus, &request).await {
                    Tried::Answered(response) => return read((nimbus, response)).await,
                    Tried::NotTaken(reason) => {
                        if self.known_leader().as_ref() == Some(&nimbus) {
                            // It may be gone for good; the seeds are asked first from now on.
                            self.forget_leader();
                        }
                        tried.push(Attempt { nimbus, reason });
                    }
                    Tried::NotNow(reason) => {
                        is_recovering = true;
                        tried.push(Attempt { nimbus, reason });
                    }
                    // Each has an archive of its own: the next one may have what was asked for.
                    Tried::Failed(error) if error.code() == Some(Code::NoArchive) => {
                        without_archive = Some(error);
                    }
                    Tried::Failed(error) => return Err(error),
                }
            }
            if let Some(error) = without_archive {
                return Err(error);
            }
            if !is_recovering || self.clock.monotonic().plus(ROUND_PAUSE) > deadline {
                return Err(Error::Unreachable { tried });
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Sends a write to the leader, else to any nimbus, until one takes it or the wait for
    /// a leader is over.
    async fn write(&self, request: Request<'_>) -> Result<(String, reqwest::Response), Error> {
        let deadline = self.clock.monotonic().plus(self.timeouts.leader);
        loop {
            let mut tried = Vec::new();
            for nimbus in self.addresses().await {
                match self.ask(&nimbus, &request).await {
                    Tried::Answered(response) => return Ok((nimbus, response)),
                    Tried::NotTaken(reason) | Tried::NotNow(reason) => tried.push(Attempt { nimbus, reason }),
                    Tried::Failed(error) => return Err(error),
                }
            }
            self.forget_leader();
            if self.clock.monotonic().plus(ROUND_PAUSE) > deadline {
                return Err(Error::Unreachable { tried });
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// The leader, when a seed knows it, and then the seeds.
    async fn addresses(&self) -> Vec<String> {
        if self.known_leader().is_none()
            && let Some(leader) = self.cluster().await.ok().and_then(|cluster| cluster.leader)
        {
            self.learn(leader.term, Some(leader.api));
        }
        self.known_addresses()
    }

    /// The leader that was last found, if any, and then the seeds.
    fn known_addresses(&self) -> Vec<String> {
        let leader = self.known_leader();
        let seeds = self.seeds.iter().filter(|seed| leader.as_ref() != Some(*seed)).cloned();
        leader.iter().cloned().chain(seeds).collect()
    }

    fn known_leader(&self) -> Option<String> {
        self.known().leader.clone()
    }

    fn forget_leader(&self) {
        self.known().leader = None;
    }

    /// Takes in what a nimbus tells of the leader. One that has not heard of the latest term
    /// yet would send us to a leader of the past, so it is not believed.
    fn learn(&self, term: Term, leader: Option<String>) {
        let mut known = self.known();
        if known.term.is_none_or(|latest| term > latest) {
            *known = Known { term: Some(term), leader };
        } else if known.term == Some(term) && leader.is_some() {
            known.leader = leader;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no one panics while holding what is known of leaders")
    }

    async fn ask(&self, nimbus: &str, request: &Request<'_>) -> Tried {
        let mut prepared = self
            .http
            .request(request.method.clone(), format!("http://{nimbus}{}", request.path))
            .header(reqwest::header::CONTENT_TYPE, request.content_type)
            .body(request.body.clone());
        if let Some(user) = &self.user {
            prepared = prepared.header(USER, user);
        }
        let response = match prepared.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() || error.is_builder() || request.repeat == Repeat::Safe => {
                return Tried::NotTaken(chain(&error));
            }
            Err(error) => {
                return Tried::Failed(Error::Unanswered { nimbus: nimbus.to_owned(), reason: chain(&error) });
            }
        };
        let term = response.headers().get(TERM).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(term) = term {
            self.learn(Term(term), None);
        }
        if response.status().is_success() {
            return Tried::Answered(response);
        }
        let error = refusal(nimbus, response).await;
        match error.refusal().map(|body| body.code) {
            // Each says that nothing was changed.
            Some(Code::NoLeader | Code::NotReady | Code::TreeUnavailable) => Tried::NotNow(error.to_string()),
            _ => Tried::Failed(error),
        }
    }
}

fn topology_path(topology: &str, rest: &str) -> String {
    format!("/api/v1/topology/{}{rest}", encoded(topology))
}

/// A text as one part of a URL's path.
pub(crate) fn encoded(part: &str) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            _ => write!(text, "%{byte:02X}").expect("writing to a string does not fail"),
        }
    }
    text
}

async fn read<A: DeserializeOwned>((nimbus, response): (String, reqwest::Response)) -> Result<A, Error> {
    let status = response.status();
    let bytes = match response.bytes().await {
        Ok(bytes) => bytes,
        Err(error) => return Err(Error::Unanswered { nimbus, reason: chain(&error) }),
    };
    serde_json::from_slice(&bytes).map_err(|_| foreign(nimbus, status, &bytes))
}

async fn refusal(nimbus: &str, response: reqwest::Response) -> Error {
    let status = response.status();
    // An answer cut short is still an answer with a status, which is what the error tells.
    let bytes = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => Error::Refused { nimbus: nimbus.to_owned(), status: status.as_u16(), body },
        Err(_) => foreign(nimbus.to_owned(), status, &bytes),
    }
}

fn foreign(nimbus: String, status: StatusCode, bytes: &[u8]) -> Error {
    let quote = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES_MAX)]).into_owned();
    Error::Foreign { nimbus, status: status.as_u16(), quote }
}

/// An error with its causes in one line; reqwest's own text stops at "error sending request".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
