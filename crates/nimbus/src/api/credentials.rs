//! Credentials of topologies: set, removed, and listed without their values.

use axum::{
    Json,
    extract::{Request, State},
    response::Response,
};

use super::{
    Api,
    caller::check_term,
    error::{ApiError, PathPart, parse},
    writes::{change_or_forward, read_body},
};
use crate::change::{Change, find};
use stormkeeper_api_types::message::{Code, CredentialList, CredentialSummary, CredentialsRequest};

pub(super) async fn list(
    State(api): State<Api>,
    PathPart(topology): PathPart,
) -> Result<Json<CredentialList>, ApiError> {
    let view = api.nimbus.observation()?.view;
    let topology_id = find(&view, &topology)?;
    let entries = view.credentials.get(&topology_id).into_iter().flat_map(|stored| &stored.value.entries);
    let credentials = entries.map(|(name, entry)| CredentialSummary {
        name: name.clone(),
        changed: entry.changed,
        by: entry.by.clone(),
    });
    Ok(Json(CredentialList { credentials: credentials.collect(), topology_id }))
}

pub(super) async fn change(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = read_body(request).await?;
    check_term(&api, &parts)?;
    // The error of the parser would repeat a value of a wrong type.
    let asked: CredentialsRequest = parse(&body).map_err(|_| invalid())?;
    change_or_forward(&api, &topology, Change::Credentials(asked), parts, body).await
}

fn invalid() -> ApiError {
    ApiError::new(
        Code::InvalidRequest,
        "the body is no request for credentials: expected the JSON object {\"set\": {\"NAME\": \"TEXT\"}, \
         \"remove\": [\"NAME\"], \"removeOthers\": false} without other fields, each of which may be absent"
            .to_owned(),
        Some("every value is a text in quotes; write other JSON into such a text"),
    )
}
