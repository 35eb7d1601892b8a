//! Prefix of the project's own API, and requests to nimbuses of builds before it had one.
//!
//! A build before answers `/api/v1/…`, where Storm's API belongs. Nimbuses answer both for one
//! release, and clients ask again at the old path, so that builds on both sides of the change run
//! together during an upgrade.

use reqwest::{Method, RequestBuilder, Response, StatusCode};

use crate::authorized::AuthorizedClient;

/// Prefix of every route of the own API.
pub const PREFIX: &str = "/api/stormkeeper/v1";

/// Prefix of the same routes in builds before [`PREFIX`].
pub const OLD_PREFIX: &str = "/api/v1";

/// Header of every response of a nimbus, with its [`PREFIX`]. Builds before have none.
pub const HEADER: &str = "x-stormkeeper-api";

/// Sends a request to a route of the nimbus at `api` (`host:port`). `route` is the path below the
/// prefix, and `with` adds headers, query and body. The request is sent again at its old path if the
/// nimbus is of a build before the prefix; such a nimbus has not executed it.
///
/// # Errors
/// As [`RequestBuilder::send`].
pub async fn send(
    client: &AuthorizedClient,
    method: Method,
    (api, route): (&str, &str),
    with: impl Fn(RequestBuilder) -> RequestBuilder,
) -> reqwest::Result<Response> {
    let request = |prefix| client.request(method.clone(), format!("http://{api}{prefix}{route}"));
    let response = client.send(with(request(PREFIX))).await?;
    match is_before_prefix(&response) {
        true => client.send(with(request(OLD_PREFIX))).await,
        false => Ok(response),
    }
}

/// Returns whether a response is that of a build before [`PREFIX`] to a request at [`PREFIX`].
pub(crate) fn is_before_prefix(response: &Response) -> bool {
    response.status() == StatusCode::NOT_FOUND && !response.headers().contains_key(HEADER)
}

/// Returns the route of a path of the own API, with either prefix.
pub fn of_path(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX).or_else(|| path.strip_prefix(OLD_PREFIX))
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        http::StatusCode,
        response::IntoResponse as _,
        routing::{get, post},
    };

    use super::*;
    use crate::http;
    use stormkeeper_access::tls::client::ClientTls;
    use stormkeeper_runtime::tasks::{OnExit, Tasks};

    async fn serve(tasks: &Tasks, routes: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api = listener.local_addr().expect("bound").to_string();
        tasks.start("nimbus", OnExit::Ignore, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        api
    }

    #[tokio::test]
    async fn nimbus_of_an_earlier_build_is_asked_at_the_old_path() {
        let tasks = Tasks::default();
        let echo = post(|body: String| async move { format!("old {body}") });
        let api = serve(&tasks, Router::new().route("/api/v1/x", echo)).await;
        let client = AuthorizedClient::new(http::client(), &ClientTls::off()).expect("made");
        let asked = |route: &'static str| {
            let (client, api) = (client.clone(), api.clone());
            async move { send(&client, Method::POST, (&api, route), |request| request.body("b")).await }
        };
        let answer = asked("/x").await.expect("answered");
        assert_eq!(answer.text().await.expect("text"), "old b");
        assert_eq!(asked("/y").await.expect("answered").status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn what_a_nimbus_of_this_build_does_not_have_is_not_asked_again() {
        let tasks = Tasks::default();
        let missing = get(|| async { (StatusCode::NOT_FOUND, [(HEADER, PREFIX)]).into_response() });
        let old = get(|| async { "old" });
        let routes = Router::new().route("/api/stormkeeper/v1/x", missing).route("/api/v1/x", old);
        let api = serve(&tasks, routes).await;
        let client = AuthorizedClient::new(http::client(), &ClientTls::off()).expect("made");
        let answer = send(&client, Method::GET, (&api, "/x"), |request| request).await.expect("answered");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn route_is_found_below_either_prefix() {
        assert_eq!(of_path("/api/stormkeeper/v1/recovery"), Some("/recovery"));
        assert_eq!(of_path("/api/v1/recovery"), Some("/recovery"));
        assert_eq!(of_path("/live"), None);
    }
}
