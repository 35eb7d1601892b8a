//! Brings metrics to the leading nimbus, for topology masters and supervisors.
//!
//! The leader is looked up in the tree, as no follower takes metrics, and the caller is told its
//! term before anything is sent: what to send depends on it. A request is repeated a few times
//! while the same nimbus leads; more patience is the caller's, who knows what else to do
//! meanwhile. Sending one again is always right: names and cuts are taken once.

use std::time::Duration;

use reqwest::StatusCode;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    backoff::Backoff,
    cluster::{record::Leader, store::Store},
    rpc::{
        client::chain,
        forward::TERM,
        message::{Code, ErrorBody},
        metrics::{
            BODY_BYTES_MAX, ContributeAnswer, ContributeRequest, MSGPACK, RegisterAnswer, RegisterRequest,
        },
    },
};

/// For a connection to the leader; it is a neighbour.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For one request and its answer: registering ten thousand names takes a fraction of a second,
/// and a leader that takes longer than this is not well.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often one request is tried. A leader that is only changing over is found by then; for one
/// that stays away the caller waits.
const TRIES: usize = 4;

/// Between two tries: about a second in all, as long as a clean change of leaders takes.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// An answer lists ids and cuts and is never this long; more would be another program's.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why metrics could not be brought to the leader.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made")]
    Setup(#[source] reqwest::Error),
    /// Nobody took the request, or the answer was lost: send it again.
    #[error("the leading nimbus takes no metrics now: {reason}")]
    Unavailable {
        /// What went wrong the last time.
        reason: String,
    },
    /// The leader cannot make sense of the request: sending it again would not help.
    #[error("{api} refuses the metrics: {reason}")]
    Refused {
        /// The leader.
        api: String,
        /// What it says.
        reason: String,
    },
    /// The request is over [`BODY_BYTES_MAX`]: it must be made smaller.
    #[error("a request of {bytes} bytes is larger than a nimbus takes, {BODY_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Brings metrics to the leading nimbus. Clones share their connections.
#[derive(Debug, Clone)]
pub struct MetricsClient {
    http: reqwest::Client,
    store: Store,
}

impl MetricsClient {
    /// A client that finds the leader in the tree of `store`.
    ///
    /// # Errors
    /// [`MetricsError::Setup`].
    pub fn new(store: Store) -> Result<Self, MetricsError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // Nimbuses are neighbours; a proxy of the environment is meant for the world.
            .no_proxy()
            .build()
            .map_err(MetricsError::Setup)?;
        Ok(Self { http, store })
    }

    /// Who leads now.
    ///
    /// # Errors
    /// [`MetricsError::Unavailable`] when nobody does, or the tree does not tell.
    pub async fn leader(&self) -> Result<Leader, MetricsError> {
        let reason = match self.store.leader().await {
            Ok(Some(leader)) => return Ok(leader),
            Ok(None) => "there is no leader".to_owned(),
            Err(error) => format!("who leads is not known: {error}"),
        };
        Err(MetricsError::Unavailable { reason })
    }

    /// Makes names known to a leader.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub async fn register(
        &self,
        leader: &Leader,
        request: &RegisterRequest,
    ) -> Result<RegisterAnswer, MetricsError> {
        self.post(leader, "/api/v1/metrics/register", request).await
    }

    /// Brings a contribution to a leader.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub async fn contribute(
        &self,
        leader: &Leader,
        request: &ContributeRequest,
    ) -> Result<ContributeAnswer, MetricsError> {
        self.post(leader, "/api/v1/metrics/contribute", request).await
    }

    async fn post<B, A>(&self, leader: &Leader, path: &str, request: &B) -> Result<A, MetricsError>
    where
        B: Serialize + Sync,
        A: DeserializeOwned,
    {
        let body = rmp_serde::to_vec(request).expect("messages are plain values");
        if body.len() > BODY_BYTES_MAX {
            return Err(MetricsError::TooLarge { bytes: body.len() });
        }
        let body = bytes::Bytes::from(body);
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new())
            .expect("the constants are in order and above zero");
        let mut tries = 1;
        loop {
            match self.ask(leader, path, body.clone()).await {
                Err(MetricsError::Unavailable { .. }) if tries < TRIES => {}
                tried => return tried,
            }
            tries += 1;
            tokio::time::sleep(backoff.next_delay()).await;
            let now = self.leader().await?;
            if now.term != leader.term {
                let reason = format!("{} leads now, in term {}", now.nimbus, now.term.0);
                return Err(MetricsError::Unavailable { reason });
            }
        }
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        leader: &Leader,
        path: &str,
        body: bytes::Bytes,
    ) -> Result<A, MetricsError> {
        let api = &leader.api;
        let unavailable = |reason| Err(MetricsError::Unavailable { reason: format!("{api}: {reason}") });
        let request = self
            .http
            .post(format!("http://{api}{path}"))
            .header(reqwest::header::CONTENT_TYPE, MSGPACK)
            // One that has heard of a later term than this is to say so.
            .header(TERM, leader.term.0)
            .body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return unavailable(chain(&error)),
        };
        let status = response.status();
        let term = response.headers().get(TERM).and_then(|value| value.to_str().ok()?.parse().ok());
        if term.is_some_and(|term: i32| term != leader.term.0) {
            // Whatever it says, it may have lost what it had in the term that we know of.
            return unavailable("it is in another term now".to_owned());
        }
        if response.content_length().is_some_and(|length| length > ANSWER_BYTES_MAX) {
            return unavailable("its answer is too long to be a nimbus's".to_owned());
        }
        let bytes = match response.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return unavailable(chain(&error)),
        };
        if status.is_success() {
            return match rmp_serde::from_slice(&bytes) {
                Ok(answer) => Ok(answer),
                Err(error) => unavailable(format!("its answer cannot be read: {error}")),
            };
        }
        let error = serde_json::from_slice::<ErrorBody>(&bytes);
        let reason = error.as_ref().map_or_else(|_| status.to_string(), |error| error.message.clone());
        match is_hopeless(status, error.ok().map(|error| error.code)) {
            true => Err(MetricsError::Refused { api: api.clone(), reason }),
            false => unavailable(reason),
        }
    }
}

/// Whether the same request would be refused again. What is not surely so is tried again: a
/// leader that is being replaced, an older one that does not know of metrics yet.
fn is_hopeless(status: StatusCode, code: Option<Code>) -> bool {
    match code {
        Some(Code::InvalidRequest | Code::TooLarge) => true,
        Some(_) => false,
        None => status == StatusCode::PAYLOAD_TOO_LARGE || status == StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Router, body::Bytes, http::StatusCode, response::IntoResponse as _, routing::post};

    use super::*;
    use crate::{
        cluster::{layout, record},
        daemon::tasks::{Ending, Tasks},
        metrics::MetricId,
        model::Term,
        rpc::metrics::{Claim, Registered},
        tree::{CreateMode, Tree as _, memory::MemoryTree},
    };

    /// A leader that answers the first `n_refusals` requests with `refusal`, then registers.
    async fn leader(tasks: &Tasks, n_refusals: usize, refusal: (StatusCode, &'static str)) -> MetricsClient {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api = listener.local_addr().expect("bound").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move |body: Bytes| async move {
            if asked.fetch_add(1, Ordering::Relaxed) < n_refusals {
                return refusal.into_response();
            }
            let request: RegisterRequest = rmp_serde::from_slice(&body).expect("a request");
            let claims = request.claims.iter().map(|claim| Registered::As(claim.id)).collect();
            let answer = rmp_serde::to_vec(&RegisterAnswer { claims }).expect("plain values");
            ([(TERM, "7")], answer).into_response()
        };
        let routes = Router::new().route("/api/v1/metrics/register", post(answer));
        tasks.start("nimbus", Ending::Normal, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        let tree = MemoryTree::new().connect();
        let leader = Leader { nimbus: "n".parse().expect("valid"), api, term: Term(7) };
        let data = record::encode(&leader);
        tree.create(&layout::leader(), &data, CreateMode::Persistent).await.expect("created");
        MetricsClient::new(Store::new(tree)).expect("made")
    }

    async fn register(client: &MetricsClient) -> Result<RegisterAnswer, MetricsError> {
        let claims = vec![Claim { name: "x".to_owned(), id: MetricId(5) }];
        let request = RegisterRequest { topology: "t-1-1".parse().expect("valid"), claims };
        client.register(&client.leader().await?, &request).await
    }

    #[tokio::test]
    async fn the_leader_is_found_and_its_term_is_told() {
        let tasks = Tasks::default();
        let client = leader(&tasks, 0, (StatusCode::OK, "")).await;
        assert_eq!(client.leader().await.expect("there").term, Term(7));
        let answer = register(&client).await.expect("registered");
        assert_eq!(answer, RegisterAnswer { claims: vec![Registered::As(MetricId(5))] });
    }

    #[tokio::test]
    async fn a_leader_that_is_changing_over_is_asked_again() {
        let tasks = Tasks::default();
        let refusal = r#"{"code":"no_leader","message":"not me"}"#;
        let client = leader(&tasks, 2, (StatusCode::SERVICE_UNAVAILABLE, refusal)).await;
        register(&client).await.expect("registered in the end");
        let client = leader(&tasks, 99, (StatusCode::SERVICE_UNAVAILABLE, refusal)).await;
        let error = register(&client).await.expect_err("nobody takes it");
        assert!(
            matches!(&error, MetricsError::Unavailable { reason } if reason.contains("not me")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_not_repeated() {
        let tasks = Tasks::default();
        let refusal = r#"{"code":"invalid_request","message":"nonsense"}"#;
        let client = leader(&tasks, 1, (StatusCode::BAD_REQUEST, refusal)).await;
        let error = register(&client).await.expect_err("refused");
        assert!(matches!(error, MetricsError::Refused { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_leader_it_gives_up_soon() {
        let client = MetricsClient::new(Store::new(MemoryTree::new().connect())).expect("made");
        let error = register(&client).await.expect_err("nobody there");
        assert!(error.to_string().contains("no leader"), "{error}");
    }
}
