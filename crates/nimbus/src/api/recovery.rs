//! Routes of the recovery of a tree that ZooKeeper lost, and the check that ZooKeeper has the tree of
//! this nimbus.

use axum::{
    Json,
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};

use super::{Api, error::ApiError, error::parse, session, tree, writes::read_body};
use stormkeeper_api_types::{
    message::{Recovered, RecoveryRequest, RecoveryStatus},
    routes,
};
use stormkeeper_model::Term;

/// Path of both routes, below the prefix of the own API.
pub(super) const ROUTE: &str = "/recovery";

pub(super) async fn status(State(api): State<Api>) -> Json<RecoveryStatus> {
    Json(api.nimbus.recovery_status().await)
}

pub(super) async fn recover(State(api): State<Api>, request: Request) -> Result<Json<Recovered>, ApiError> {
    let (_parts, body) = read_body(request).await?;
    let RecoveryRequest { seen_term } = parse(&body)?;
    Ok(Json(api.nimbus.recover(seen_term.unwrap_or(Term(0))).await?))
}

/// Rejects requests that need the tree of this nimbus while ZooKeeper has another one. Lists are
/// answered from the last view, with the problem in them.
pub(super) async fn reject_on_another_tree(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.nimbus.own_tree() {
        Err(refusal) if needs_own_tree(request.method(), request.uri().path()) => {
            super::refuse(request.headers(), request.uri().path(), refusal.into())
        }
        Ok(()) | Err(_) => next.run(request).await,
    }
}

fn needs_own_tree(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => {
            let topology = routes::of_path(path).and_then(|route| route.strip_prefix("/topology/"));
            let is_tree = routes::of_path(path) == Some(tree::ROUTE);
            path == "/ready"
                || is_tree
                || topology.is_some_and(|rest| rest != "summary" && !rest.ends_with("/metrics"))
        }
        _ => !matches!(routes::of_path(path), Some(ROUTE | session::ROUTE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_the_recovery_are_served_on_another_tree_and_nothing_else_is_written() {
        let check = |method: Method, path: &str, needs: bool| {
            assert_eq!(needs_own_tree(&method, path), needs, "{method} {path}");
        };
        check(Method::GET, "/api/v1/topology/summary", false);
        check(Method::GET, "/api/v1/nimbus/summary", false);
        check(Method::GET, "/api/v1/recovery", false);
        check(Method::POST, "/api/v1/recovery", false);
        check(Method::GET, "/live", false);
        check(Method::GET, "/ready", true);
        check(Method::GET, "/api/stormkeeper/v1/tree", true);
        check(Method::GET, "/api/v1/topology/wc", true);
        check(Method::GET, "/api/v1/topology/wc/errors", true);
        check(Method::POST, "/api/stormkeeper/v1/session", false);
        check(Method::POST, "/api/v1/topology/wc/kill", true);
        check(Method::POST, "/api/stormkeeper/v1/topology/wc/kill", true);
        check(Method::POST, "/api/stormkeeper/v1/recovery", false);
        check(Method::GET, "/api/stormkeeper/v1/topology/wc", true);
        check(Method::GET, "/api/stormkeeper/v1/topology/summary", false);
        check(Method::POST, "/api/v1/metrics/ingest", true);
        check(Method::PUT, "/api/v1/blobs/00", true);
    }
}
