//! Requests to one nimbus, whatever the others say: the recovery of a lost tree.

use bytes::Bytes;
use reqwest::Method;
use serde::de::DeserializeOwned;

use super::{Client, Error, OnLostResponse, Request, read, rounds::Outcome};
use crate::message::{Recovered, RecoveryRequest, RecoveryStatus};

/// Path of the requests.
const ROUTE: &str = "/recovery";

impl Client {
    /// Returns the API addresses from the configuration.
    pub fn seeds(&self) -> &[String] {
        &self.seeds
    }

    /// Returns what the nimbus at `nimbus` could recover.
    pub async fn recovery_of(&self, nimbus: &str) -> Result<RecoveryStatus, Error> {
        let request = Request {
            method: Method::GET,
            route: ROUTE,
            body: Bytes::new(),
            content_type: "application/json",
            on_lost_response: OnLostResponse::SendAgain,
            sees_writes: false,
            limit: None,
        };
        self.ask_one(nimbus, &request).await
    }

    /// Brings the copy of the nimbus at `nimbus` back.
    pub async fn recover(&self, nimbus: &str, request: &RecoveryRequest) -> Result<Recovered, Error> {
        let request = Request {
            method: Method::POST,
            route: ROUTE,
            body: serde_json::to_vec(request).expect("messages are maps with text keys").into(),
            content_type: "application/json",
            // A repeated recovery is rejected, as there is nothing left to recover.
            on_lost_response: OnLostResponse::Fail,
            sees_writes: false,
            limit: None,
        };
        self.ask_one(nimbus, &request).await
    }

    pub(super) async fn ask_one<A: DeserializeOwned>(
        &self,
        nimbus: &str,
        request: &Request<'_>,
    ) -> Result<A, Error> {
        match self.ask(nimbus, request).await {
            Outcome::Answered(response) => read((nimbus.to_owned(), response)).await,
            outcome @ (Outcome::TryNext(_) | Outcome::RetryLater(_)) => {
                Err(Error::Unreachable { tried: outcome.attempt(nimbus.to_owned()).into_iter().collect() })
            }
            Outcome::Failed(error) => Err(error),
        }
    }
}
