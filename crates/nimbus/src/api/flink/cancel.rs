//! Cancelling of a job: a kill of its topology with the default wait, the only write of Flink's API.

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use super::{
    asked::{Asked, Failure, PathParts},
    refusal,
};
use crate::{
    api::{Api, access::only_owner, error::ApiError, translated, writes::read_body},
    change::Change,
};
use stormkeeper_api_types::message::{Code, ErrorBody, KillRequest};
use stormkeeper_flink_api::Error;
use stormkeeper_model::TopologyId;

pub(super) async fn cancel(
    State(api): State<Api>,
    asked: Asked,
    PathParts(job): PathParts<String>,
    request: Request,
) -> Result<Response, Failure> {
    asked.query.check_mode()?;
    let topology = asked.job(&job)?.topology;
    let Some(record) = asked.view.topologies.get(&topology) else {
        return Err(Error::ended(&job).into());
    };
    Ok(kill(&api, (&topology, &record.value.owner), request).await.unwrap_or_else(refusal))
}

async fn kill(
    api: &Api,
    (topology, owner): (&TopologyId, &str),
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _empty) = read_body(request).await?;
    // The topology may have been submitted after the check of the rights, which did not know the job.
    if only_owner(&parts).is_some_and(|own| own != owner) {
        let message = format!("this needs a token for the owner of {topology}");
        return Err(ErrorBody { code: Code::Forbidden, message, hint: None }.into());
    }
    let own = KillRequest { wait_secs: None };
    let change = (Change::Kill(own.clone()), &own);
    let done = translated::change(api, topology.as_str(), change, &parts).await?;
    let mut answer = (StatusCode::ACCEPTED, Json(json!({}))).into_response();
    done.name_in(&mut answer);
    Ok(answer)
}
