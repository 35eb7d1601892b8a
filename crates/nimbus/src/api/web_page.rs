//! The web page: files that are the same for everybody and contain no data.
//!
//! They need no proof, and no view of the cluster. A link of another site may lead to them; only the
//! host is checked.

use std::sync::Arc;

use axum::{
    Router,
    extract::{OriginalUri, Path, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
            IF_NONE_MATCH, VARY,
        },
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};

use super::error::ApiError;
use stormkeeper_serving::origin::{self, OwnNames};
use stormkeeper_web_page::{File, WebPage};

/// Address of the page.
const PAGE: &str = "/ui/";

/// Policy of the page: its own files and its own nimbus, no script or style in the document, and no text that
/// becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// Time for which a browser may keep a file whose path has the version of all files.
const LONG: &str = "public, max-age=31536000, immutable";

pub(super) fn routes(names: Arc<OwnNames>) -> Router {
    Router::new()
        .route("/", get(async || Redirect::temporary(PAGE)))
        .route("/ui", get(async || Redirect::temporary(PAGE)))
        .route(PAGE, get(index))
        .route("/ui/{version}/{*path}", get(part))
        .method_not_allowed_fallback(async |method: Method, OriginalUri(uri): OriginalUri| {
            ApiError::wrong_method(&method, uri.path())
        })
        .layer(from_fn_with_state(names, check_host))
}

/// Refuses requests that name another host.
async fn check_host(State(names): State<Arc<OwnNames>>, request: Request, next: Next) -> Response {
    match origin::check_host(&names, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn index(headers: HeaderMap) -> Response {
    let page = WebPage::get();
    answer(&page.index, &headers, "no-cache", &page.version)
}

async fn part(
    Path((version, path)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let page = WebPage::get();
    match page.file(&path) {
        Some(file) if version == page.version => answer(file, &headers, LONG, &page.version),
        // The document is of another build, as in a rolling upgrade.
        Some(file) => answer(file, &headers, "no-store", &page.version),
        None => ApiError::no_such_route(uri.path()).into_response(),
    }
}

fn answer(file: &'static File, asked: &HeaderMap, cache: &'static str, version: &str) -> Response {
    let is_compressed = takes_gzip(asked);
    let tag = format!("\"{version}{}\"", if is_compressed { "-gzip" } else { "" });
    let is_known = asked.get_all(IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|tags| tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
    });
    let body: &'static [u8] = if is_compressed { &file.compressed } else { &file.content };
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(CONTENT_TYPE, file.media_type)], body).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::try_from(tag).expect("letters, digits and signs"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if is_compressed && !is_known {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Returns whether a client takes gzip: it names it, and not with a weight of 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|text| text.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|text| text.parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight != Some(0.0)
    })
}
