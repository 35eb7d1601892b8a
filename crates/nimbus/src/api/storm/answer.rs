//! Answers with Storm's headers, and errors with Storm's fields.

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::params::Params;
use crate::api::{
    Api,
    error::{ApiError, internal},
};
use stormkeeper_api_types::message::{Code, ErrorBody};
use stormkeeper_storm_api::{Callback, Failure};

/// Error of a request to Storm's API.
#[derive(Debug)]
pub(crate) struct StormError(ApiError);

impl<E: Into<ApiError>> From<E> for StormError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for StormError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = error.status();
        failure(status, error.into_body())
    }
}

/// Returns an error with Storm's fields beside those of the own API.
pub(super) fn failure(status: StatusCode, body: ErrorBody) -> Response {
    let ErrorBody { code, message, hint } = body;
    with_headers((status, Json(Failure::new(status.to_string(), code, message, hint))).into_response())
}

/// Answer to a request.
pub(super) type Answer = Result<Response, StormError>;

/// Returns `body` as JSON, or as the script that the request asks for.
pub(super) fn reply(api: &Api, params: &Params, body: &impl Serialize) -> Answer {
    let json = serde_json::to_string(body).map_err(|error| internal(&error))?;
    let Some(callback) = params.callback() else {
        return Ok(with_headers(Body::from(json).into_response()));
    };
    let bad = |message, hint| StormError::from(ApiError::new(Code::InvalidRequest, message, hint));
    if !api.nimbus.options().storm_api.jsonp {
        let hint = Some("leave out callback=, or set `ui.jsonp.enabled` in the storm.yaml of each nimbus");
        return Err(bad("callback: scripts (JSONP) are switched off".to_owned(), hint));
    }
    let callback = Callback::parse(callback)
        .ok_or_else(|| bad("callback: not the name of a JavaScript function".to_owned(), None))?;
    let mut response = with_headers(Body::from(callback.call(&json)).into_response());
    let script = HeaderValue::from_static("application/javascript;charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, script);
    Ok(response)
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let all = [
        (header::CONTENT_TYPE, "application/json;charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
