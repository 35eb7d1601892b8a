//! Deletion of the metrics of removed topologies: executed by the leader, forwarded by followers.

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};

use super::{
    params::bad,
    source::{self, Source},
};
use crate::{
    api::{
        Api,
        caller::check_term,
        error::{ApiError, PathPart, parse_json},
        forward::forward,
        writes::read_body,
    },
    refusal::Refusal,
};
use stormkeeper_api_types::message::{ForgetRequest, Forgotten};
use stormkeeper_metrics::{MetricId, protocol::NAMES_MAX};

pub(super) async fn delete_metas(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = read_body(request).await?;
    check_term(&api, &parts)?;
    let ids = ids(&parse_json(&body)?)?;
    // A follower may not have the topology in its log yet.
    if !api.nimbus.takes_writes() {
        return forward(&api, &parts, Body::from(body)).await;
    }
    let source = source::of(&api)?;
    let topology_id = source.topology(&api, &topology).await?;
    match api.nimbus.delete_metric_metas(&topology_id, ids).await {
        Ok(()) => {
            let Source { store, .. } = source;
            let metas = store.fingerprint(&topology_id).await.map_err(source::store_error)?.count;
            Ok(Json(Forgotten { topology_id, metas }).into_response())
        }
        Err(Refusal::NotLeading { .. }) => forward(&api, &parts, Body::from(body)).await,
        Err(refusal) => Err(refusal.into()),
    }
}

fn ids(request: &ForgetRequest) -> Result<Vec<MetricId>, ApiError> {
    let ids = &request.ids;
    if ids.len() > NAMES_MAX {
        return Err(bad(format!("{} ids; at most {NAMES_MAX} can be deleted at a time", ids.len()), None));
    }
    let id = |text: &String| {
        let hint = Some("ids are 16 hexadecimal digits, as in the list of metas");
        text.parse().map_err(|_no_number| bad(format!("{text:?} is not a metric id"), hint))
    };
    ids.iter().map(id).collect()
}
