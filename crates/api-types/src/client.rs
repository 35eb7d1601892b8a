//! Client of the nimbuses: finds a nimbus that answers, prefers the leader.
//!
//! Seeds are tried in the order given. A follower answers reads itself and forwards writes, so
//! any seed will do; a write goes to the leader directly if a seed names the leader.

mod error;
mod known;
mod logs;
mod metrics;
mod recovery;
mod response;

use std::{fmt, sync::Mutex, time::Duration};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

pub use error::{Attempt, Error};
use known::Known;
pub use logs::{BrokenDownload, LogAt, LogDownload, LogSearch};
pub use metrics::{MetricFilter, Page, Span};
use response::{read, refusal};

use crate::{
    authorized::AuthorizedClient,
    forward::{TERM, USER},
    http,
    message::{
        Accepted, ClusterSummary, Code, CredentialList, CredentialsRequest, DrainRequest, EventList,
        HostAccepted, KillRequest, NimbusList, OwnerList, RebalanceRequest, SubmitRequest, SupervisorList,
        TopologyDetail, TopologyErrors, TopologyList,
    },
    routes,
    seen::{Change, Seen, ZXID},
};
use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls, token::Token};
use stormkeeper_model::{BlobKey, HostName, Term, clock::Clock};

/// Timeouts of a client.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Limit for connecting to one nimbus.
    pub connect: Duration,
    /// Limit for one request and its response, a blob's upload included.
    pub request: Duration,
    /// Limit for waiting for a leader, over all tries. Zero asks every seed once.
    pub leader: Duration,
    /// Limit for waiting until a nimbus that has lost ZooKeeper answers reads again.
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

/// Pause between two rounds over all seeds while there is no leader. Short, because after a clean
/// stop the next leader is there within a fraction of a second.
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// Number of rounds after which a write that waits is reported: about a second.
const QUIET_ROUNDS: u32 = 4;

/// A client of the nimbuses of one cluster.
#[derive(Debug)]
pub struct Client {
    seeds: Vec<String>,
    timeouts: Timeouts,
    http: AuthorizedClient,
    clock: Clock,
    user: Option<String>,
    // Guards what the client has learned; held for a clone.
    known: Mutex<Known>,
    listener: Option<Box<dyn Listener>>,
}

/// Receives what a client learns about its requests while they run.
pub trait Listener: fmt::Debug + Send + Sync {
    /// A nimbus has executed a write in the transaction of `change`, or in an earlier one.
    fn written(&self, change: &Change);

    /// The nimbus at `nimbus` has answered a read from a view, last read `age` ago, that does not
    /// contain everything that the client has written or seen.
    fn behind(&self, nimbus: &str, age: Duration);

    /// No nimbus has executed a write, which is sent again for `limit`.
    fn waiting(&self, limit: Duration);
}

/// Policy for a request whose response was lost, so that it may have been executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnLostResponse {
    SendAgain,
    Fail,
}

/// Outcome of a request to one nimbus.
enum Outcome {
    Answered(reqwest::Response),
    /// Another nimbus may be asked: this one did not execute the request, or executing the request
    /// twice does no harm.
    TryNext(String),
    /// The nimbus did not execute the request, and may be able to soon.
    RetryLater(String),
    Failed(Error),
}

impl Outcome {
    /// The failed attempt at `nimbus`, if another may follow.
    fn attempt(self, nimbus: String) -> Option<Attempt> {
        match self {
            Self::TryNext(reason) => Some(Attempt { nimbus, reason, answered: false }),
            Self::RetryLater(reason) => Some(Attempt { nimbus, reason, answered: true }),
            Self::Answered(_) | Self::Failed(_) => None,
        }
    }
}

struct Request<'a> {
    method: Method,
    /// Path below the prefix of the own API.
    route: &'a str,
    body: Bytes,
    content_type: &'static str,
    on_lost_response: OnLostResponse,
    /// True for reads whose response must contain what the client has written or seen before.
    sees_writes: bool,
    /// Limit for the request and its response; that of the client if absent.
    limit: Option<Duration>,
}

impl Client {
    /// A client that tries `seeds` in their order, each `host:port`.
    ///
    /// # Errors
    /// [`Error::NoSeeds`] without a seed, [`Error::Setup`] if TLS or DNS cannot be set up.
    pub fn new(seeds: Vec<String>, timeouts: Timeouts) -> Result<Self, Error> {
        if seeds.is_empty() {
            return Err(Error::NoSeeds);
        }
        let (http, known) = (Self::http(timeouts, &ClientTls::off())?, Mutex::default());
        Ok(Self { seeds, timeouts, http, clock: Clock::new(), user: None, known, listener: None })
    }

    fn http(timeouts: Timeouts, tls: &ClientTls) -> Result<AuthorizedClient, Error> {
        let http = http::client().connect_timeout(timeouts.connect).timeout(timeouts.request);
        AuthorizedClient::new(http, tls).map_err(Error::Setup)
    }

    /// Sends requests over TLS.
    ///
    /// # Errors
    /// [`Error::Setup`].
    pub fn over(self, tls: &ClientTls) -> Result<Self, Error> {
        let http = Self::http(self.timeouts, tls)?;
        Ok(Self { http: http.with_credentials(self.http.credentials()), ..self })
    }

    /// Lets every read see the changes `seen`, which an earlier client has written.
    pub fn after(self, seen: Seen) -> Self {
        seen.iter().for_each(|change| self.known().seen.record(change.clone()));
        self
    }

    /// The latest changes that this client has written or seen.
    pub fn seen(&self) -> Seen {
        self.known().seen.clone()
    }

    /// Reports to `listener` what the client learns about its writes.
    pub fn reporting_to(mut self, listener: Box<dyn Listener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Sets the user name that the cluster's list of events shows for requests of this client.
    pub fn as_user(mut self, user: String) -> Self {
        self.user = Some(user);
        self
    }

    /// Sends the token of a person or program with every request.
    pub fn with_token(mut self, token: Option<Token>) -> Self {
        let credentials = token.map_or(Credentials::None, Credentials::Token);
        self.http = self.http.with_credentials(credentials);
        self
    }

    /// Stores a blob on the leader, which announces it. Storing it again changes nothing.
    ///
    /// # Errors
    /// As every method: [`Error`].
    pub async fn put_blob(&self, key: &BlobKey, bytes: Bytes) -> Result<(), Error> {
        let request = Request {
            method: Method::PUT,
            route: &format!("/blobs/{key}"),
            body: bytes,
            content_type: "application/octet-stream",
            on_lost_response: OnLostResponse::SendAgain,
            sees_writes: false,
            limit: None,
        };
        self.write(request).await.map(drop)
    }

    /// Submits the topology of a stored blob.
    pub async fn submit(&self, request: &SubmitRequest) -> Result<Accepted, Error> {
        // A repeated submit would be rejected because of the name of the first, which misleads.
        self.post("/topology/submit", request, OnLostResponse::Fail).await
    }

    /// Lists all topologies in short.
    pub async fn list(&self) -> Result<TopologyList, Error> {
        self.get("/topology/summary").await
    }

    /// Returns one topology by id or name.
    pub async fn show(&self, topology: &str) -> Result<TopologyDetail, Error> {
        self.get(&topology_route(topology, "")).await
    }

    /// Activates a topology: its spouts run.
    pub async fn activate(&self, topology: &str) -> Result<Accepted, Error> {
        self.post(&topology_route(topology, "/activate"), &serde_json::json!({}), OnLostResponse::SendAgain)
            .await
    }

    /// Deactivates a topology: its spouts stop.
    pub async fn deactivate(&self, topology: &str) -> Result<Accepted, Error> {
        self.post(&topology_route(topology, "/deactivate"), &serde_json::json!({}), OnLostResponse::SendAgain)
            .await
    }

    /// Places a topology's tasks again after a wait.
    pub async fn rebalance(&self, topology: &str, request: &RebalanceRequest) -> Result<Accepted, Error> {
        self.post(&topology_route(topology, "/rebalance"), request, OnLostResponse::Fail).await
    }

    /// Removes a topology after a wait.
    pub async fn kill(&self, topology: &str, request: &KillRequest) -> Result<Accepted, Error> {
        self.post(&topology_route(topology, "/kill"), request, OnLostResponse::Fail).await
    }

    /// Returns the names of a topology's credentials.
    pub async fn credentials(&self, topology: &str) -> Result<CredentialList, Error> {
        self.get(&topology_route(topology, "/credentials")).await
    }

    /// Sets and removes credentials of a topology.
    pub async fn change_credentials(
        &self,
        topology: &str,
        request: &CredentialsRequest,
    ) -> Result<Accepted, Error> {
        // A repeated removal would be rejected, as the credential is no longer there.
        let on_lost = match request.remove.is_empty() {
            true => OnLostResponse::SendAgain,
            false => OnLostResponse::Fail,
        };
        self.post(&topology_route(topology, "/credentials"), request, on_lost).await
    }

    /// Returns the recorded errors of a topology's tasks.
    pub async fn errors(&self, topology: &str) -> Result<TopologyErrors, Error> {
        self.get(&topology_route(topology, "/errors")).await
    }

    /// Returns the cluster's numbers and its leader.
    pub async fn cluster(&self) -> Result<ClusterSummary, Error> {
        self.get("/cluster/summary").await
    }

    /// Returns what the owners of topologies use and may use.
    pub async fn owners(&self) -> Result<OwnerList, Error> {
        self.get("/owner/summary").await
    }

    /// Returns the last `limit` events, newest first; only those of `topology`, if given.
    pub async fn events(&self, topology: Option<&str>, limit: Option<usize>) -> Result<EventList, Error> {
        let limit = limit.map(|limit| format!("limit={limit}"));
        let topology = topology.map(|topology| format!("topology={}", encoded(topology)));
        let query: Vec<String> = limit.into_iter().chain(topology).collect();
        self.get(&format!("/cluster/events?{}", query.join("&"))).await
    }

    /// Drains a host: its workers move to other hosts.
    pub async fn drain(&self, host: &HostName, request: &DrainRequest) -> Result<HostAccepted, Error> {
        self.post(&format!("/host/{}/drain", encoded(host.as_str())), request, OnLostResponse::SendAgain)
            .await
    }

    /// Ends the drain of a host.
    pub async fn undrain(&self, host: &HostName) -> Result<HostAccepted, Error> {
        // A repeated undrain would be rejected, as the host is no longer drained.
        let route = format!("/host/{}/undrain", encoded(host.as_str()));
        self.post(&route, &serde_json::json!({}), OnLostResponse::Fail).await
    }

    /// Returns the live nimbuses as one nimbus sees them; only that nimbus is asked.
    pub async fn nimbuses_seen_by(&self, nimbus: &str) -> Result<NimbusList, Error> {
        let request = Request {
            method: Method::GET,
            route: "/nimbus/summary",
            body: Bytes::new(),
            content_type: "application/json",
            on_lost_response: OnLostResponse::SendAgain,
            // The caller asks what this nimbus has seen by itself.
            sees_writes: false,
            limit: None,
        };
        self.ask_one(nimbus, &request).await
    }

    /// Returns the live supervisors.
    pub async fn supervisors(&self) -> Result<SupervisorList, Error> {
        self.get("/supervisor/summary").await
    }

    /// Returns the live nimbuses.
    pub async fn nimbuses(&self) -> Result<NimbusList, Error> {
        self.get("/nimbus/summary").await
    }

    async fn post<B, A>(&self, route: &str, body: &B, on_lost_response: OnLostResponse) -> Result<A, Error>
    where
        B: Serialize + Sync,
        A: DeserializeOwned,
    {
        let body = serde_json::to_vec(body).expect("messages are maps with text keys").into();
        let request = Request {
            method: Method::POST,
            route,
            body,
            content_type: "application/json",
            on_lost_response,
            sees_writes: false,
            limit: None,
        };
        read(self.write(request).await?).await
    }

    async fn get<A: DeserializeOwned>(&self, route: &str) -> Result<A, Error> {
        let request = Request {
            method: Method::GET,
            route,
            body: Bytes::new(),
            content_type: "application/json",
            on_lost_response: OnLostResponse::SendAgain,
            sees_writes: true,
            limit: None,
        };
        read(self.read(&request).await?).await
    }

    /// Sends a read to one nimbus after the other until one answers it.
    async fn read(&self, request: &Request<'_>) -> Result<(String, reqwest::Response), Error> {
        let deadline = self.clock.monotonic().plus(self.timeouts.recovery);
        loop {
            let (mut tried, mut is_recovering, mut not_here) = (Vec::new(), false, None);
            // The leader of an earlier write has what was written; a follower may be a moment behind.
            for nimbus in self.known_addresses() {
                match self.ask(&nimbus, request).await {
                    Outcome::Answered(response) => return Ok((nimbus, response)),
                    Outcome::TryNext(reason) => {
                        if self.known_leader().as_ref() == Some(&nimbus) {
                            // The leader may be gone for good; from now on the seeds are tried first.
                            self.forget_leader();
                        }
                        tried.push(Attempt { nimbus, reason, answered: false });
                    }
                    Outcome::RetryLater(reason) => {
                        is_recovering = true;
                        tried.push(Attempt { nimbus, reason, answered: true });
                    }
                    // Each nimbus has its own metric store: the next one may have the data.
                    // And a nimbus that was led to another tree does not speak for the others.
                    Outcome::Failed(error)
                        if matches!(error.code(), Some(Code::NoMetricStore | Code::AnotherTree)) =>
                    {
                        not_here = Some(error);
                    }
                    Outcome::Failed(error) => return Err(error),
                }
            }
            if let Some(error) = not_here {
                return Err(error);
            }
            if !is_recovering || self.clock.monotonic().plus(ROUND_PAUSE) > deadline {
                return Err(Error::Unreachable { tried });
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Sends a write to the leader, else to any nimbus, until a nimbus accepts it or the wait for
    /// a leader is over.
    async fn write(&self, request: Request<'_>) -> Result<(String, reqwest::Response), Error> {
        let deadline = self.clock.monotonic().plus(self.timeouts.leader);
        let mut rounds = 0;
        loop {
            rounds += 1;
            let (mut tried, mut not_here) = (Vec::new(), None);
            for nimbus in self.addresses().await {
                match self.ask(&nimbus, &request).await {
                    Outcome::Answered(response) => return Ok((nimbus, response)),
                    Outcome::Failed(error) if error.code() == Some(Code::AnotherTree) => {
                        not_here = Some(error)
                    }
                    outcome @ (Outcome::TryNext(_) | Outcome::RetryLater(_)) => {
                        tried.extend(outcome.attempt(nimbus));
                    }
                    Outcome::Failed(error) => return Err(error),
                }
            }
            self.forget_leader();
            if let Some(error) = not_here {
                return Err(error);
            }
            if self.clock.monotonic().plus(ROUND_PAUSE) > deadline {
                return Err(Error::Unreachable { tried });
            }
            if rounds == QUIET_ROUNDS
                && let Some(listener) = &self.listener
            {
                listener.waiting(self.timeouts.leader);
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    async fn ask(&self, nimbus: &str, request: &Request<'_>) -> Outcome {
        let seen = self.known().seen.header().filter(|_| request.sees_writes);
        let prepared = |mut prepared: reqwest::RequestBuilder| {
            prepared = prepared.header(reqwest::header::CONTENT_TYPE, request.content_type);
            if let Some(user) = &self.user {
                prepared = prepared.header(USER, user);
            }
            if let Some(seen) = &seen {
                prepared = prepared.header(ZXID, seen);
            }
            if let Some(limit) = request.limit {
                prepared = prepared.timeout(limit);
            }
            prepared.body(request.body.clone())
        };
        let sent = routes::send(&self.http, request.method.clone(), (nimbus, request.route), prepared);
        let response = match sent.await {
            Ok(response) => response,
            Err(error)
                if error.is_connect()
                    || error.is_builder()
                    || request.on_lost_response == OnLostResponse::SendAgain =>
            {
                return Outcome::TryNext(http::reason(&error));
            }
            Err(error) => {
                return Outcome::Failed(Error::Unanswered {
                    nimbus: nimbus.to_owned(),
                    reason: http::reason(&error),
                });
            }
        };
        let term = response.headers().get(TERM).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(term) = term {
            self.record_leader(Term(term), None);
        }
        self.record_view(nimbus, request, response.headers());
        if response.status().is_success() {
            return Outcome::Answered(response);
        }
        let error = refusal(nimbus, response).await;
        match error.refusal().map(|body| body.code) {
            // Each of these codes means that nothing was changed.
            Some(Code::NoLeader | Code::NotReady | Code::TreeUnavailable) => {
                Outcome::RetryLater(error.to_string())
            }
            _ => Outcome::Failed(error),
        }
    }
}

fn topology_route(topology: &str, rest: &str) -> String {
    format!("/topology/{}{rest}", encoded(topology))
}

/// Percent-encodes a text as one part of a URL's path.
pub fn encoded(part: &str) -> String {
    /// All bytes except the unreserved characters of RFC 3986.
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(part, RESERVED).to_string()
}

/// Returns the text of a percent-encoded part of a URL's path; what is no UTF-8 is replaced.
pub fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_characters_of_a_path_are_encoded() {
        assert_eq!(encoded("wc-1.2_3~Z"), "wc-1.2_3~Z");
        assert_eq!(encoded("a b/ä?%::1"), "a%20b%2F%C3%A4%3F%25%3A%3A1");
    }
}
