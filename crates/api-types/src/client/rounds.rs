//! Requests to one nimbus after the other, in rounds, until one of them answers.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Client,
    error::{Attempt, Error},
    response::{read, refusal},
};
use crate::{
    forward::{TERM, USER},
    http,
    message::Code,
    routes,
    seen::ZXID,
};
use stormkeeper_model::Term;

/// Pause between two rounds over all seeds while there is no leader. Short, because after a clean
/// stop the next leader is there within a fraction of a second.
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// Number of rounds after which a write that waits is reported: about a second.
const QUIET_ROUNDS: u32 = 4;

/// Policy for a request whose response was lost, so that it may have been executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnLostResponse {
    SendAgain,
    Fail,
}

/// Outcome of a request to one nimbus.
pub(super) enum Outcome {
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
    pub(super) fn attempt(self, nimbus: String) -> Option<Attempt> {
        match self {
            Self::TryNext(reason) => Some(Attempt { nimbus, reason, answered: false }),
            Self::RetryLater(reason) => Some(Attempt { nimbus, reason, answered: true }),
            Self::Answered(_) | Self::Failed(_) => None,
        }
    }
}

pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Path below the prefix of the own API.
    pub(super) route: &'a str,
    pub(super) body: Bytes,
    pub(super) content_type: &'static str,
    pub(super) on_lost_response: OnLostResponse,
    /// True for reads whose response must contain what the client has written or seen before.
    pub(super) sees_writes: bool,
    /// Limit for the request and its response; that of the client if absent.
    pub(super) limit: Option<Duration>,
}

impl Client {
    pub(super) async fn post<B, A>(
        &self,
        route: &str,
        body: &B,
        on_lost_response: OnLostResponse,
    ) -> Result<A, Error>
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

    pub(super) async fn get<A: DeserializeOwned>(&self, route: &str) -> Result<A, Error> {
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
    pub(super) async fn read(&self, request: &Request<'_>) -> Result<(String, reqwest::Response), Error> {
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
    pub(super) async fn write(&self, request: Request<'_>) -> Result<(String, reqwest::Response), Error> {
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

    pub(super) async fn ask(&self, nimbus: &str, request: &Request<'_>) -> Outcome {
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
