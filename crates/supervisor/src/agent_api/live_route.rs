//! Route of live numbers.

use axum::{
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};

use super::{
    AgentApi,
    log_routes::{ValidPath, parsed},
};
use crate::live::Refused;
use stormkeeper_api_types::message::{Code, live::LINES};
use stormkeeper_model::TopologyId;
use stormkeeper_serving::error::Rejection;

pub(super) async fn read(
    State(api): State<AgentApi>,
    ValidPath(topology): ValidPath<String>,
) -> Result<Response, Rejection> {
    let topology: TopologyId = parsed(&topology)?;
    let lines = api.live.read(&topology).map_err(|refused| {
        let (code, hint) = match refused {
            Refused::NoWorker => (Code::UnknownTopology, None),
            Refused::Full => (Code::NotReady, Some("try again in some seconds")),
        };
        Rejection::new(code, refused.to_string(), hint)
    })?;
    Ok(([(CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response())
}
