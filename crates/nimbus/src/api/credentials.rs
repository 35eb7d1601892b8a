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
use stormkeeper_api_types::message::{
    Code, CredentialList, CredentialSummary, CredentialsRequest, unique::repeated,
};
use stormkeeper_model::id::quoted;

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
    let asked: CredentialsRequest = parse(&body).map_err(|_| invalid(&body))?;
    change_or_forward(&api, &topology, Change::Credentials(asked), parts, body).await
}

/// Returns the error for a body. That of the parser would repeat a value of a wrong type.
fn invalid(body: &[u8]) -> ApiError {
    if let Some(key) =
        serde_json::from_slice::<CredentialsRequest>(body).err().and_then(|error| twice(&error))
    {
        return ApiError::new(
            Code::InvalidRequest,
            format!("the body is no request for credentials: it has {} twice", quoted(&key)),
            Some("name each credential and each field once"),
        );
    }
    ApiError::new(
        Code::InvalidRequest,
        "the body is no request for credentials: expected the JSON object {\"set\": {\"NAME\": \"TEXT\"}, \
         \"remove\": [\"NAME\"], \"removeOthers\": false} without other fields, each of which may be absent"
            .to_owned(),
        Some("every value is a text in quotes; write other JSON into such a text"),
    )
}

/// Returns the name of a credential, or of a field of the request, that an error names as repeated.
fn twice(error: &serde_json::Error) -> Option<String> {
    let field = || {
        let text = error.to_string();
        let (field, _place) = text.strip_prefix("duplicate field `")?.split_once('`')?;
        Some(field.to_owned())
    };
    repeated(error).or_else(field)
}
