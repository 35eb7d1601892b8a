//! Every method at every path of the document, by everybody.

use super::access::{Keys, Sent, answer_of, host, token};
use super::*;
use axum::http::header;
use stormkeeper_access::credentials::Credentials;

/// Methods that a path may be asked with; `HEAD` is served where `GET` is.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

fn is_served(served: &Value, method: &Method) -> bool {
    served.get(method.as_str().to_lowercase()).is_some()
}

#[tokio::test]
async fn method_that_a_path_does_not_serve_is_405_for_every_role_and_404_in_flinks_api() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let known = [token(&keys.reader), token(&keys.of_team), token(&keys.admin), keys.daemon(None)];
    let worker = keys.worker(&"wc-1-1".parse().expect("valid"));
    let (router, host) = (routes(leader.handle().clone()), host(&leader));
    let document = openapi_document();
    let mut n_asked = 0;
    for (path, served) in document["paths"].as_object().expect("paths") {
        let uri = path.replace(['{', '}'], "");
        let is_flink = !uri.starts_with("/api/") && !["/live", "/ready", "/metrics"].contains(&&*uri);
        // A path of the own API before its prefix, which the document does not describe.
        let is_old = |method: &Method| *method == Method::POST && uri == "/api/v1/topology/topology/metrics";
        for method in METHODS.iter().filter(|method| !is_served(served, method) && !is_old(method)) {
            let sent = Sent::new(method.clone(), &uri, "");
            let nobody = answer_of(&router, sent.request(&host, &Credentials::None)).await;
            assert_eq!(nobody.0, StatusCode::UNAUTHORIZED, "{method} {uri}");
            for credentials in known.iter().chain([&worker]) {
                let asked = answer_of(&router, sent.request(&host, credentials)).await;
                let (status, headers, body) = asked;
                let expected = match is_flink || crate::api::storm::absent(&uri).is_some() {
                    true => StatusCode::NOT_FOUND,
                    false => StatusCode::METHOD_NOT_ALLOWED,
                };
                assert_eq!(status, expected, "{credentials:?}: {method} {uri}: {body}");
                let allowed = headers[header::ALLOW].to_str().expect("text");
                let is_right =
                    |of: &Method| allowed.contains(of.as_str()) == (is_served(served, of) || is_old(of));
                assert!(METHODS.iter().all(is_right), "{method} {uri}: {allowed}");
                n_asked += 1;
            }
        }
    }
    assert!(n_asked > 2000, "{n_asked}");
}

#[tokio::test]
async fn every_write_that_is_served_is_refused_to_a_reader() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let (router, host) = (routes(leader.handle().clone()), host(&leader));
    let document = openapi_document();
    let mut n_refused = 0;
    // Signing in and out is for everybody.
    let is_session = |path: &str| path.ends_with("/session");
    let paths = document["paths"].as_object().expect("paths").iter();
    for (path, served) in paths.filter(|(path, _)| !is_session(path)) {
        let uri = path.replace(['{', '}'], "");
        let is_write = |method: &&Method| **method != Method::GET && is_served(served, method);
        for method in METHODS.iter().filter(is_write) {
            // Some routes of the own API are also at its prefix of before.
            for uri in [uri.clone(), uri.replace("/stormkeeper/v1/", "/v1/")] {
                let sent = Sent::new(method.clone(), &uri, "");
                let request = sent.request(&host, &token(&keys.reader));
                let (status, _, body) = answer_of(&router, request).await;
                let is_absent = path != &uri && body["code"] == "no_such_route";
                assert_eq!(status == StatusCode::FORBIDDEN, !is_absent, "{method} {uri}: {status} {body}");
                n_refused += usize::from(!is_absent);
            }
        }
    }
    assert!(n_refused > 30, "{n_refused}");
}

/// Storm's and Flink's servers take it, and some of their clients send it.
#[tokio::test]
async fn slash_at_the_end_of_a_path_changes_nothing() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let router = routes(leader.handle().clone());
    for path in
        ["/api/v1/cluster/summary", "/api/stormkeeper/v1/nimbus/summary", "/v1/jobs", "/jobs/overview"]
    {
        let (status, body) = ask(&router, Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        for longer in [format!("{path}/"), format!("{path}//?x=1")] {
            let (status, _) = ask(&router, Method::GET, &longer, "").await;
            let is_strict = longer.contains('?') && path.contains("/stormkeeper/");
            assert!(
                status == StatusCode::OK || is_strict && status == StatusCode::BAD_REQUEST,
                "{longer}: {status}"
            );
        }
    }
    let (status, _) = ask(&router, Method::GET, "/api/nothing/", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
