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
mod rounds;

use std::{fmt, sync::Mutex, time::Duration};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;

pub use error::{Attempt, Error};
use known::Known;
pub use logs::{BrokenDownload, LogAt, LogDownload, LogSearch};
pub use metrics::{MetricFilter, Page, Span};
use response::read;
use rounds::{OnLostResponse, Request};

use crate::{
    authorized::AuthorizedClient,
    http,
    message::{
        Accepted, ClusterSummary, CredentialList, CredentialsRequest, DrainRequest, EventList, HostAccepted,
        KillRequest, LogLevelRequest, LogLevels, NimbusList, OwnerList, RebalanceRequest, SampleList,
        SampleRequest, SubmitRequest, SupervisorList, TopologyDetail, TopologyErrors, TopologyList,
        UpdateRequest, live::TopologyLive,
    },
    seen::{Change, Seen},
};
use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls, token::Token};
use stormkeeper_model::{BlobKey, HostName, clock::Clock};

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

    /// Returns the live numbers of a topology; with `rates`, those of all workers. A nimbus of an earlier
    /// build refuses with [`Code::NoSuchRoute`](crate::message::Code::NoSuchRoute).
    pub async fn live(&self, topology: &str, rates: bool) -> Result<TopologyLive, Error> {
        self.get(&topology_route(topology, &format!("/live?rates={rates}"))).await
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

    /// Begins to run another package in a running topology.
    pub async fn update(&self, topology: &str, request: &UpdateRequest) -> Result<Accepted, Error> {
        self.post(&topology_route(topology, "/update"), request, OnLostResponse::Fail).await
    }

    /// Returns the log levels of a topology's components that are in effect.
    pub async fn log_levels(&self, topology: &str) -> Result<LogLevels, Error> {
        self.get(&topology_route(topology, "/log-levels")).await
    }

    /// Sets or ends a log level.
    pub async fn set_log_level(&self, topology: &str, request: &LogLevelRequest) -> Result<Accepted, Error> {
        // A repeat sets the same level again.
        self.post(&topology_route(topology, "/log-levels"), request, OnLostResponse::SendAgain).await
    }

    /// Returns the samples of tuples that have not ended.
    pub async fn samples(&self, topology: &str) -> Result<SampleList, Error> {
        self.get(&topology_route(topology, "/samples")).await
    }

    /// Begins or ends a sample of the tuples of a component.
    pub async fn sample(&self, topology: &str, request: &SampleRequest) -> Result<Accepted, Error> {
        // A repeat begins the same sample again.
        self.post(&topology_route(topology, "/samples"), request, OnLostResponse::SendAgain).await
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
