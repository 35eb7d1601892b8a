//! Client of the agents of supervisors, for nimbuses.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{
        ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE,
    },
    redirect::Policy,
};
use serde::de::DeserializeOwned;

use crate::{
    authorized::AuthorizedClient,
    client::encoded,
    forward::FORWARDED_FOR,
    http,
    message::{ErrorBody, logs::SUPERVISOR},
    routes::PREFIX,
};
use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls};
use stormkeeper_model::{SupervisorId, TopologyId};
use stormkeeper_runtime::error_chain;

/// Maximum bytes of a response: several times the limits that an agent has for lines and chunks.
const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// Maximum bytes of a file: supervisors keep less of a log in one file.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// Limit for the begin of live numbers.
const LIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit for the next part of live numbers, of which an agent sends one each second.
const LIVE_PART_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit for the next part of a file.
const PART_TIMEOUT: Duration = Duration::from_secs(30);

/// Error of a request to an agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent rejected the request.
    #[error("{}", .0.message)]
    Rejected(ErrorBody),
    /// The agent of another supervisor answered.
    #[error(
        "the agent at {address} is of another supervisor, {found}: the two announce one address; set \
         supervisor.agent.host or supervisor.agent.port of one of them"
    )]
    Other {
        /// Address of the agent.
        address: String,
        /// The supervisor that answered.
        found: String,
    },
    /// There is no useful answer.
    #[error("its agent at {address} does not answer: {reason}")]
    Unavailable {
        /// Address of the agent.
        address: String,
        /// Cause.
        reason: String,
    },
}

/// Request for a file.
#[derive(Debug, Clone)]
pub struct FileRequest {
    /// `GET`, or `HEAD` for the headers alone.
    pub method: Method,
    /// Header `Range` of the client, if it has one.
    pub range: Option<HeaderValue>,
    /// Time until the begin of the response.
    pub limit: Duration,
}

/// Response of an agent with a file, a part of it, or the error for a range that it does not have.
pub struct AgentFile {
    /// Status: 200, 206 or 416.
    pub status: StatusCode,
    /// Headers about the length and the range; agents of builds before send none.
    pub headers: HeaderMap,
    /// The bytes.
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

/// Lines of an agent, which go on until the connection breaks.
pub struct AgentLines {
    /// Address of the agent.
    pub address: String,
    /// The lines, in parts of any length.
    pub parts: BoxStream<'static, io::Result<Bytes>>,
}

/// Headers of a file that are passed on.
const OF_FILES: [HeaderName; 4] = [ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE];

/// A client of agents. It follows no redirects: only the announced address is asked.
#[derive(Debug, Clone)]
pub struct AgentClient {
    http: AuthorizedClient,
    forwarded_for: Option<String>,
}

impl AgentClient {
    /// Creates a client.
    ///
    /// # Errors
    /// [`http::Error::Setup`].
    pub fn new(tls: &ClientTls) -> Result<Self, http::Error> {
        let http = AuthorizedClient::new(http::client().redirect(Policy::none()), tls);
        Ok(Self { http: http.map_err(http::Error::Setup)?, forwarded_for: None })
    }

    /// Proves who sends the requests.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { http: self.http.with_credentials(credentials), ..self }
    }

    /// Names the address of the client on whose behalf requests are sent, which has its own limits.
    pub fn for_client(self, address: Option<String>) -> Self {
        Self { forwarded_for: address, ..self }
    }

    /// Sends `GET {route}{query}` to the agent of `supervisor` at `address`, and reads the response for
    /// at most `limit`.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        (supervisor, address): (&SupervisorId, &str),
        route: &[&str],
        query: &[(&str, String)],
        limit: Duration,
    ) -> Result<T, AgentError> {
        let reading = async {
            let response = self.ask((supervisor, address), route, query).await?;
            whole(address, response).await
        };
        let body = tokio::time::timeout(limit, reading).await.map_err(|_too_long| late(address, limit))??;
        let invalid = |error| unavailable(address, format!("its answer is invalid: {error}"));
        serde_json::from_slice(&body).map_err(invalid)
    }

    /// Asks for a file as [`get`](Self::get) does, and returns its bytes as they arrive: the begin within
    /// `limit`, each further part within 30 s, at most 4 GiB in all.
    ///
    /// # Errors
    /// [`AgentError`]. The bytes end with an error if they break off.
    pub async fn file(
        &self,
        (supervisor, address): (&SupervisorId, &str),
        route: &[&str],
        query: &[(&str, String)],
        FileRequest { method, range, limit }: FileRequest,
    ) -> Result<AgentFile, AgentError> {
        let asked = self.send((supervisor, address), (method, route, query), |request| match range {
            Some(range) => request.header(RANGE, range),
            None => request,
        });
        let response =
            tokio::time::timeout(limit, asked).await.map_err(|_too_long| late(address, limit))??;
        let status = response.status();
        let response = match status {
            StatusCode::RANGE_NOT_SATISFIABLE => response,
            _ => accepted(address, response).await?,
        };
        let known = |name: HeaderName| response.headers().get(&name).cloned().map(|value| (name, value));
        let headers = OF_FILES.into_iter().filter_map(known).collect();
        let bytes = stream::try_unfold((response, FILE_BYTES_MAX), async |(mut response, left)| {
            let part = tokio::time::timeout(PART_TIMEOUT, response.chunk()).await?;
            let Some(part) = part.map_err(io::Error::other)? else { return Ok(None) };
            let left = left.checked_sub(part.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
            Ok(Some((part, (response, left))))
        });
        Ok(AgentFile { status, headers, bytes: bytes.boxed() })
    }

    /// Asks for the live numbers of the workers of a topology. The parts end with an error if none has come
    /// for 5 s.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn live(
        &self,
        (supervisor, address): (&SupervisorId, &str),
        topology: &TopologyId,
    ) -> Result<AgentLines, AgentError> {
        let route = ["live", topology.as_str()];
        let asked = self.ask((supervisor, address), &route, &[]);
        let response = tokio::time::timeout(LIVE_TIMEOUT, asked).await;
        let response = response.map_err(|_too_long| late(address, LIVE_TIMEOUT))??;
        let parts = stream::try_unfold(response, async |mut response| {
            let part = tokio::time::timeout(LIVE_PART_TIMEOUT, response.chunk()).await?;
            Ok(part.map_err(io::Error::other)?.map(|part| (part, response)))
        });
        Ok(AgentLines { address: address.to_owned(), parts: parts.boxed() })
    }

    /// Sends a request, and returns the response if it is one of the supervisor, and no rejection.
    async fn ask(
        &self,
        (supervisor, address): (&SupervisorId, &str),
        route: &[&str],
        query: &[(&str, String)],
    ) -> Result<Response, AgentError> {
        let asked = (Method::GET, route, query);
        accepted(address, self.send((supervisor, address), asked, |request| request).await?).await
    }

    /// Sends a request, and returns the response if it is one of the supervisor.
    async fn send(
        &self,
        (supervisor, address): (&SupervisorId, &str),
        (method, route, query): (Method, &[&str], &[(&str, String)]),
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, AgentError> {
        let path: String = route.iter().map(|part| format!("/{}", encoded(part))).collect();
        let url = format!("http://{address}{PREFIX}{path}");
        let request = with(self.http.request(method, url).query(query));
        let request = match &self.forwarded_for {
            Some(address) => request.header(FORWARDED_FOR, address),
            None => request,
        };
        let response =
            self.http.send(request).await.map_err(|error| unavailable(address, http::reason(&error)))?;
        let Some(found) = response.headers().get(SUPERVISOR).cloned() else {
            return Err(unavailable(address, "another program listens there".to_owned()));
        };
        if found.as_bytes() != supervisor.as_str().as_bytes() {
            let found = String::from_utf8_lossy(found.as_bytes()).into_owned();
            return Err(AgentError::Other { address: address.to_owned(), found });
        }
        Ok(response)
    }
}

/// Returns a response that is no rejection.
async fn accepted(address: &str, response: Response) -> Result<Response, AgentError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let rejected = serde_json::from_slice(&whole(address, response).await?).map(AgentError::Rejected);
    Err(rejected.unwrap_or_else(|_| unavailable(address, format!("it answered {status}"))))
}

fn unavailable(address: &str, reason: String) -> AgentError {
    AgentError::Unavailable { address: address.to_owned(), reason }
}

fn late(address: &str, limit: Duration) -> AgentError {
    unavailable(address, format!("no answer within {} s", limit.as_secs()))
}

async fn whole(address: &str, response: Response) -> Result<Vec<u8>, AgentError> {
    let body = http::whole(address, response, RESPONSE_BYTES_MAX).await;
    body.map_err(|error| unavailable(address, error_chain(&error)))
}
