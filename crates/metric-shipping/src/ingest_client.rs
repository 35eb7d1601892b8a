//! Client with which topology masters and supervisors send metrics to the leader.
//!
//! The client reads the leader from the tree, because followers reject metrics, and returns the
//! term to the caller before anything is sent: the content of a request depends on the term. A
//! request is tried a few times while the same nimbus leads; longer waits are left to the caller,
//! which may have other work. A repeated request is harmless: names and reports are ingested once.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use reqwest::StatusCode;
use serde::{Serialize, de::DeserializeOwned};

use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls};
use stormkeeper_api_types::{
    authorized::AuthorizedClient,
    forward::TERM,
    http,
    message::{Code, ErrorBody},
    routes,
};
use stormkeeper_coordination::cluster::{record::Leader, store::Store};
use stormkeeper_metrics::{
    messagepack,
    protocol::{BODY_BYTES_MAX, IngestRequest, IngestResponse, MSGPACK, RegisterRequest, RegisterResponse},
};
use stormkeeper_model::backoff::Delays;
use stormkeeper_runtime::error_chain;

/// Limit for one request and its response: registering ten thousand names takes a fraction of a
/// second, and a leader that needs longer than this limit is overloaded or broken.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of tries of one request: enough to find the leader after a clean change of leaders. If
/// there is no leader for longer, the caller waits.
const TRIES: usize = 4;

/// Delays between two tries: about a second in all, as long as a clean change of leaders takes.
const RETRY: Delays = Delays::between(Duration::from_millis(100), Duration::from_secs(1));

/// Limit on a response. Responses list ids and reports and are shorter; a longer response comes from
/// another program.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Error of sending metrics to the leader.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The HTTP client could not be created.
    #[error("cannot create the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// No leader accepted the request, or the response was lost: send the request again.
    #[error("no leader accepts metrics at the moment: {reason}")]
    Unavailable {
        /// Cause of the last failure.
        reason: String,
    },
    /// The leader rejected the request as invalid: a repeated request would be rejected too.
    #[error("{api} rejected the metrics: {reason}")]
    Refused {
        /// Address of the leader.
        api: String,
        /// Message of the leader.
        reason: String,
    },
    /// The request is larger than [`BODY_BYTES_MAX`]: it must be split.
    #[error("the request has {bytes} bytes, more than the limit of {BODY_BYTES_MAX}")]
    TooLarge {
        /// Size of the request.
        bytes: usize,
    },
}

impl IngestError {
    /// Converts the response of the nimbus at `api` that it did not execute the request. Only an
    /// invalid request would certainly be rejected again; after all other answers the request is
    /// retried: the leader may be in the middle of a change, or too old to know metrics.
    pub fn of_answer(api: &str, code: Code, reason: String) -> Self {
        match code {
            Code::InvalidRequest | Code::TooLarge => Self::Refused { api: api.to_owned(), reason },
            _ => Self::Unavailable { reason: format!("{api}: {reason}") },
        }
    }
}

/// Transport of metrics to the leader: by HTTP, or in the memory of a simulation.
#[async_trait]
pub trait IngestTransport: fmt::Debug + Send + Sync + 'static {
    /// Returns the current leader.
    ///
    /// # Errors
    /// [`IngestError::Unavailable`] if there is no leader, or the tree cannot be read.
    async fn leader(&self) -> Result<Leader, IngestError>;

    /// Registers names with a leader.
    ///
    /// # Errors
    /// [`IngestError`].
    async fn register(
        &self,
        leader: &Leader,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, IngestError>;

    /// Sends a metric batch to a leader.
    ///
    /// # Errors
    /// [`IngestError`].
    async fn ingest(&self, leader: &Leader, request: &IngestRequest) -> Result<IngestResponse, IngestError>;
}

/// Transport that sends to the leader of one tree, whatever tree the wrapped transport reads: metrics
/// must not go to the leader of another cluster.
#[derive(Debug)]
pub struct OwnLeaderOnly {
    inner: Arc<dyn IngestTransport>,
    store: Store,
}

impl OwnLeaderOnly {
    /// Wraps `inner` to read the leader from `store`.
    pub fn new(inner: Arc<dyn IngestTransport>, store: Store) -> Arc<Self> {
        Arc::new(Self { inner, store })
    }
}

#[async_trait]
impl IngestTransport for OwnLeaderOnly {
    async fn leader(&self) -> Result<Leader, IngestError> {
        read_leader(&self.store).await
    }

    async fn register(
        &self,
        leader: &Leader,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, IngestError> {
        self.inner.register(leader, request).await
    }

    async fn ingest(&self, leader: &Leader, request: &IngestRequest) -> Result<IngestResponse, IngestError> {
        self.inner.ingest(leader, request).await
    }
}

/// Sends metrics to the leader by HTTP. Clones share their connections.
#[derive(Debug, Clone)]
pub struct IngestClient {
    http: AuthorizedClient,
    store: Store,
}

impl IngestClient {
    /// A client that reads the leader from the tree of `store`.
    ///
    /// # Errors
    /// [`IngestError::Setup`].
    pub fn new(store: Store) -> Result<Self, IngestError> {
        Self::over(&ClientTls::off(), store)
    }

    /// As [`new`](Self::new), with requests over TLS.
    ///
    /// # Errors
    /// [`IngestError::Setup`].
    pub fn over(tls: &ClientTls, store: Store) -> Result<Self, IngestError> {
        let http = AuthorizedClient::new(http::client().timeout(REQUEST_TIMEOUT), tls);
        Ok(Self { http: http.map_err(IngestError::Setup)?, store })
    }

    /// Sends every request with `credentials`.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { http: self.http.with_credentials(credentials), ..self }
    }

    async fn post<B, A>(&self, leader: &Leader, route: &str, request: &B) -> Result<A, IngestError>
    where
        B: Serialize + Sync,
        A: DeserializeOwned,
    {
        let body = rmp_serde::to_vec(request).expect("messages are plain values");
        if body.len() > BODY_BYTES_MAX {
            return Err(IngestError::TooLarge { bytes: body.len() });
        }
        let body = bytes::Bytes::from(body);
        let mut backoff = RETRY.backoff();
        let mut tries = 1;
        loop {
            match self.ask(leader, route, body.clone()).await {
                Err(IngestError::Unavailable { .. }) if tries < TRIES => {}
                tried => return tried,
            }
            tries += 1;
            tokio::time::sleep(backoff.next_delay()).await;
            let now = self.leader().await?;
            if now.term != leader.term {
                let reason = format!("{} leads now, in term {}", now.nimbus, now.term.0);
                return Err(IngestError::Unavailable { reason });
            }
        }
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        leader: &Leader,
        route: &str,
        body: bytes::Bytes,
    ) -> Result<A, IngestError> {
        let api = &leader.api;
        let unavailable = |reason| Err(IngestError::Unavailable { reason: format!("{api}: {reason}") });
        let with = |request: reqwest::RequestBuilder| {
            request
                .header(reqwest::header::CONTENT_TYPE, MSGPACK)
                // A nimbus that has seen a later term than this answers with that term.
                .header(TERM, leader.term.0)
                .body(body.clone())
        };
        let response = match routes::send(&self.http, reqwest::Method::POST, (api, route), with).await {
            Ok(response) => response,
            Err(error) => return unavailable(error_chain(&error)),
        };
        let status = response.status();
        let term = response.headers().get(TERM).and_then(|value| value.to_str().ok()?.parse().ok());
        if term.is_some_and(|term: i32| term != leader.term.0) {
            // Whatever the response is, the nimbus may have lost entries of the term that we know.
            return unavailable("the nimbus is in another term now".to_owned());
        }
        if response.content_length().is_some_and(|length| length > ANSWER_BYTES_MAX) {
            return unavailable("the response is too long to come from a nimbus".to_owned());
        }
        let bytes = match response.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return unavailable(error_chain(&error)),
        };
        if status.is_success() {
            return match messagepack::decode(&bytes) {
                Ok(answer) => Ok(answer),
                Err(error) => unavailable(format!("cannot parse the response: {error}")),
            };
        }
        let error = serde_json::from_slice::<ErrorBody>(&bytes);
        let reason = error.as_ref().map_or_else(|_| status.to_string(), |error| error.message.clone());
        Err(match error {
            Ok(error) => IngestError::of_answer(api, error.code, reason),
            Err(_) if is_permanent(status) => IngestError::Refused { api: api.clone(), reason },
            Err(_) => IngestError::Unavailable { reason: format!("{api}: {reason}") },
        })
    }
}

/// Reads the leader that metrics must be sent to.
///
/// # Errors
///
/// [`IngestError::Unavailable`] if there is no leader, or if ZooKeeper cannot be read.
pub async fn read_leader(store: &Store) -> Result<Leader, IngestError> {
    let reason = match store.leader().await {
        Ok(Some(leader)) => return Ok(leader),
        Ok(None) => "there is no leader".to_owned(),
        Err(error) => format!("cannot read the leader from ZooKeeper: {error}"),
    };
    Err(IngestError::Unavailable { reason })
}

#[async_trait]
impl IngestTransport for IngestClient {
    async fn leader(&self) -> Result<Leader, IngestError> {
        read_leader(&self.store).await
    }

    async fn register(
        &self,
        leader: &Leader,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, IngestError> {
        self.post(leader, "/metrics/register", request).await
    }

    async fn ingest(&self, leader: &Leader, request: &IngestRequest) -> Result<IngestResponse, IngestError> {
        self.post(leader, "/metrics/ingest", request).await
    }
}

/// Returns whether a response without an error code is a certain rejection.
fn is_permanent(status: StatusCode) -> bool {
    status == StatusCode::PAYLOAD_TOO_LARGE || status == StatusCode::BAD_REQUEST
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Router, body::Bytes, http::StatusCode, response::IntoResponse as _, routing::post};

    use super::*;
    use stormkeeper_coordination::{
        cluster::{layout, record},
        tree::{CreateMode, Tree as _, memory::MemoryTree},
    };
    use stormkeeper_metrics::{
        MetricId,
        protocol::{Registered, Registration},
    };
    use stormkeeper_model::Term;
    use stormkeeper_runtime::tasks::{OnExit, Tasks};

    /// A leader that answers the first `n_refusals` requests with `refusal`, then registers.
    async fn leader(tasks: &Tasks, n_refusals: usize, refusal: (StatusCode, &'static str)) -> IngestClient {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api = listener.local_addr().expect("bound").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move |body: Bytes| async move {
            if asked.fetch_add(1, Ordering::Relaxed) < n_refusals {
                return refusal.into_response();
            }
            let request: RegisterRequest = rmp_serde::from_slice(&body).expect("a request");
            let registrations = request
                .registrations
                .iter()
                .map(|registration| Registered::Accepted(registration.id))
                .collect();
            let answer =
                rmp_serde::to_vec(&RegisterResponse { results: registrations }).expect("plain values");
            ([(TERM, "7")], answer).into_response()
        };
        let routes = Router::new().route("/api/stormkeeper/v1/metrics/register", post(answer));
        tasks.start("nimbus", OnExit::Ignore, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        let tree = MemoryTree::new().connect();
        let leader = Leader {
            nimbus: "n".parse().expect("valid"),
            api,
            term: Term(7),
            unknown_fields: Default::default(),
        };
        let data = record::encode(&leader);
        tree.create(&layout::leader(), &data, CreateMode::Persistent).await.expect("created");
        IngestClient::new(Store::new(tree)).expect("made")
    }

    async fn register(client: &IngestClient) -> Result<RegisterResponse, IngestError> {
        let registrations = vec![Registration { name: "x".to_owned(), id: MetricId(5) }];
        let request = RegisterRequest { topology: "t-1-1".parse().expect("valid"), registrations };
        client.register(&client.leader().await?, &request).await
    }

    #[tokio::test]
    async fn a_request_reaches_the_leader_with_its_term() {
        let tasks = Tasks::default();
        let client = leader(&tasks, 0, (StatusCode::OK, "")).await;
        assert_eq!(client.leader().await.expect("there").term, Term(7));
        let answer = register(&client).await.expect("registered");
        assert_eq!(answer, RegisterResponse { results: vec![Registered::Accepted(MetricId(5))] });
    }

    #[tokio::test]
    async fn a_request_is_retried_while_the_leader_changes() {
        let tasks = Tasks::default();
        let refusal = r#"{"code":"no_leader","message":"not me"}"#;
        let client = leader(&tasks, 2, (StatusCode::SERVICE_UNAVAILABLE, refusal)).await;
        register(&client).await.expect("registered in the end");
        let client = leader(&tasks, 99, (StatusCode::SERVICE_UNAVAILABLE, refusal)).await;
        let error = register(&client).await.expect_err("no leader accepts it");
        assert!(
            matches!(&error, IngestError::Unavailable { reason } if reason.contains("not me")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_invalid_request_is_not_retried() {
        let tasks = Tasks::default();
        let refusal = r#"{"code":"invalid_request","message":"nonsense"}"#;
        let client = leader(&tasks, 1, (StatusCode::BAD_REQUEST, refusal)).await;
        let error = register(&client).await.expect_err("rejected");
        assert!(matches!(error, IngestError::Refused { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_leader_is_an_error_after_a_few_tries() {
        let client = IngestClient::new(Store::new(MemoryTree::new().connect())).expect("made");
        let error = register(&client).await.expect_err("no leader");
        assert!(error.to_string().contains("no leader"), "{error}");
    }
}
