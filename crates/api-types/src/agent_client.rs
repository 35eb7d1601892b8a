//! Client of the agents of supervisors, for nimbuses.

use std::time::Duration;

use reqwest::{Method, redirect::Policy};
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
use stormkeeper_model::SupervisorId;
use stormkeeper_runtime::error_chain;

/// Maximum bytes of a response: several times the limits that an agent has for lines and chunks.
const RESPONSE_BYTES_MAX: usize = 16 << 20;

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
        let unavailable = |reason: String| AgentError::Unavailable { address: address.to_owned(), reason };
        let path: String = route.iter().map(|part| format!("/{}", encoded(part))).collect();
        let url = format!("http://{address}{PREFIX}{path}");
        let request = self.http.request(Method::GET, url).query(query).timeout(limit);
        let request = match &self.forwarded_for {
            Some(address) => request.header(FORWARDED_FOR, address),
            None => request,
        };
        let response = self.http.send(request).await.map_err(|error| match error.is_timeout() {
            true => unavailable(format!("no answer within {} s", limit.as_secs())),
            false => unavailable(http::reason(&error)),
        })?;
        let (status, found) = (response.status(), response.headers().get(SUPERVISOR).cloned());
        let Some(found) = found else {
            return Err(unavailable("another program listens there".to_owned()));
        };
        if found.as_bytes() != supervisor.as_str().as_bytes() {
            let found = String::from_utf8_lossy(found.as_bytes()).into_owned();
            return Err(AgentError::Other { address: address.to_owned(), found });
        }
        let body = http::whole(address, response, RESPONSE_BYTES_MAX).await;
        let body = body.map_err(|error| unavailable(error_chain(&error)))?;
        if !status.is_success() {
            let rejected = serde_json::from_slice(&body).map(AgentError::Rejected);
            return Err(rejected.unwrap_or_else(|_| unavailable(format!("it answered {status}"))));
        }
        serde_json::from_slice(&body).map_err(|error| unavailable(format!("its answer is invalid: {error}")))
    }
}
