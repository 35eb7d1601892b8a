//! Writes: the same changes as those of the own API, with Storm's bodies.

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, request::Parts},
    response::Response,
};
use serde::Serialize;

use super::{
    answer::{Answer, reply},
    params::{Params, PathOf},
};
pub(super) use crate::api::translated::own_request;
use crate::{
    api::{
        Api,
        error::{ApiError, parse},
        translated::{self, Written, written},
        writes::read_body,
    },
    change::Change,
};
use stormkeeper_api_types::message::{Code, KillRequest, RebalanceRequest};
use stormkeeper_serving::origin::ON_PURPOSE;
use stormkeeper_storm_api::{Operation, Rebalance};

pub(super) async fn activate(api: &Api, topology: &str, request: Request) -> Answer {
    let (parts, _) = checked(request).await?;
    change(api, topology, (Change::Activate, &serde_json::json!({})), &parts).await
}

pub(super) async fn deactivate(api: &Api, topology: &str, request: Request) -> Answer {
    let (parts, _) = checked(request).await?;
    change(api, topology, (Change::Deactivate, &serde_json::json!({})), &parts).await
}

pub(super) async fn rebalance(
    State(api): State<Api>,
    PathOf((topology, wait)): PathOf<(String, String)>,
    request: Request,
) -> Answer {
    let (parts, body) = checked(request).await?;
    let options: Rebalance = if body.is_empty() { Rebalance::default() } else { parse(&body)? };
    let own = RebalanceRequest {
        wait_secs: Some(seconds(&wait)?),
        workers: options.workers(),
        parallelism: options.parallelism(),
        restart: false,
    };
    change(&api, &topology, (Change::Rebalance(own.clone()), &own), &parts).await
}

pub(super) async fn kill(
    State(api): State<Api>,
    PathOf((topology, wait)): PathOf<(String, String)>,
    request: Request,
) -> Answer {
    let (parts, _) = checked(request).await?;
    let own = KillRequest { wait_secs: Some(seconds(&wait)?) };
    change(&api, &topology, (Change::Kill(own.clone()), &own), &parts).await
}

/// Reads the body of a write, and checks that no form of a web page has sent it.
async fn checked(request: Request) -> Result<(Parts, Bytes), ApiError> {
    let (parts, body) = read_body(request).await?;
    check(&parts, &body)?;
    Ok((parts, body))
}

fn seconds(text: &str) -> Result<u64, ApiError> {
    let message =
        || format!("the wait {} is not a whole number of seconds", stormkeeper_model::id::quoted(text));
    text.parse().map_err(|_| ApiError::new(Code::InvalidRequest, message(), None))
}

/// Checks that no form of a web page has sent this write: a page can send an empty body to another site,
/// and no header of its own choice.
fn check(parts: &Parts, body: &Bytes) -> Result<(), ApiError> {
    let is_of_page = ["origin", "sec-fetch-site"].iter().any(|name| parts.headers.contains_key(*name));
    match is_of_page && body.is_empty() && !parts.headers.contains_key(ON_PURPOSE) {
        true => Err(ApiError::new(
            Code::ForeignRequest,
            "a write without a body from a web page may be that of a form",
            Some("send the header x-stormkeeper-request: 1, or a body of the type application/json"),
        )),
        false => Ok(()),
    }
}

/// Executes a change here or by the leader, and answers as Storm does. `own` is the body of the same
/// request to the own API.
async fn change(api: &Api, topology: &str, change: (Change, &impl Serialize), parts: &Parts) -> Answer {
    accepted(api, translated::change(api, topology, change, parts).await?, Vec::new())
}

/// Returns Storm's answer for an answer of the own API, with warnings.
pub(super) async fn operation(api: &Api, own: Response<Body>, warnings: Vec<String>) -> Answer {
    accepted(api, written(own).await?, warnings)
}

fn accepted(api: &Api, done: Written, warnings: Vec<String>) -> Answer {
    let operation =
        Operation::accepted(done.accepted.topology_operation.clone(), done.accepted.topology_id.clone());
    let mut answer = reply(api, &Params::default(), &operation.with_warnings(warnings))?;
    done.name_in(&mut answer);
    *answer.status_mut() = StatusCode::OK;
    Ok(answer)
}
