//! Web pages of other sites that the configuration lets read Storm's API.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{api::Api, options::StormApiOptions};
use stormkeeper_api_types::routes::OLD_PREFIX;

/// Returns whether a request is one to Storm's API.
pub(crate) fn is_storm_path(path: &str) -> bool {
    path.strip_prefix(OLD_PREFIX).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns whether a page of another site may cause this request: it reads Storm's API, from an origin
/// that is configured, or as a script if scripts are switched on.
pub(crate) fn is_open(options: &StormApiOptions, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let is_read = *method == Method::GET && is_storm_path(uri.path());
    let is_asked_before = is_question_before_read(method, uri, headers);
    (is_asked_before || is_read) && allowed_origin(options, headers).is_some()
        || is_read && options.jsonp && has_callback(uri)
}

/// Returns whether a browser asks whether a page may read with a header of its own, such as its token.
fn is_question_before_read(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    *method == Method::OPTIONS && is_storm_path(uri.path()) && asked.is_some_and(|method| method == "GET")
}

fn has_callback(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("callback=")))
}

/// Returns the origin of the request if pages of it may read.
fn allowed_origin(options: &StormApiOptions, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return None };
    let is_named = options.origins.iter().any(|named| named == "*" || named.as_bytes() == origin.as_bytes());
    is_named.then(|| origin.clone())
}

/// Names the origin of a request in the answer, if pages of it may read.
pub(crate) async fn allow_origin(State(api): State<Api>, request: Request, next: Next) -> Response {
    let options = &api.nimbus.options().storm_api;
    if is_question_before_read(request.method(), request.uri(), request.headers())
        && let Some(origin) = allowed_origin(options, request.headers())
    {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET")),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization")),
            (header::VARY, HeaderValue::from_static("origin")),
        ];
        return (StatusCode::NO_CONTENT, headers).into_response();
    }
    let is_read = *request.method() == Method::GET && is_storm_path(request.uri().path());
    let origin = is_read.then(|| allowed_origin(options, request.headers())).flatten();
    let mut response = next.run(request).await;
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}
