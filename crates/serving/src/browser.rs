//! Headers of every response that keep browsers from using it in another way than as data.

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::Response,
};

/// Headers and their values: an answer is neither a page with parts nor a part of one, keeps its type,
/// tells no other site about it, and stays in no cache.
pub(crate) const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Adds the headers that a response does not have; a page brings its own.
pub(crate) async fn restrict(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
