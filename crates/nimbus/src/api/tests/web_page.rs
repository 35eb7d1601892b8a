//! The web page, and signing in.

use axum::{
    http::{HeaderMap, header},
    response::Response,
};

use super::{
    access::{Keys, host},
    *,
};
use stormkeeper_access::locks::Mode;
use stormkeeper_serving::origin::ON_PURPOSE;
use stormkeeper_web_page::WebPage;

const SESSION: &str = "/api/stormkeeper/v1/session";
const KILL: &str = "/api/stormkeeper/v1/topology/wc/kill";

async fn send(
    router: &Router,
    method: Method,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, HeaderMap, Bytes) {
    let mut request = Request::builder().method(method).uri(uri);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let response: Response = router.clone().oneshot(request).await.expect("infallible");
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    (head.status, head.headers, bytes)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
}

#[tokio::test]
async fn page_is_served_to_everybody_with_its_policy_and_kept_by_its_version() {
    let f = Fixture::new().await;
    let keys = Keys::new();
    let locked = f.locked_leader(&keys).await;
    let router = routes(locked.handle().clone());
    let get = async |uri: &str, headers: &[(&str, &str)]| send(&router, Method::GET, uri, headers, "").await;
    for uri in ["/", "/ui"] {
        let (status, headers, _) = get(uri, &[]).await;
        assert_eq!((status, text(&headers, "location")), (StatusCode::TEMPORARY_REDIRECT, "/ui/"), "{uri}");
    }

    let page = WebPage::get();
    let (status, headers, body) = get("/ui/", &[]).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &page.index.content[..]));
    assert_eq!(text(&headers, "cache-control"), "no-cache");
    let policy = text(&headers, "content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(policy.contains("require-trusted-types-for 'script'"), "{policy}");
    let tag = text(&headers, "etag").to_owned();
    let (status, _, body) = get("/ui/", &[("if-none-match", &format!("\"x\", W/{tag}"))]).await;
    assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
    let (status, ..) = get("/ui/", &[("if-none-match", "\"x\"")]).await;
    assert_eq!(status, StatusCode::OK);

    let app = format!("/ui/{}/app.js", page.version);
    let (status, headers, body) = get(&app, &[("accept-encoding", "br, gzip;q=0.8")]).await;
    assert_eq!((status, text(&headers, "content-encoding")), (StatusCode::OK, "gzip"));
    assert_eq!(body, page.file("app.js").expect("there").compressed);
    assert_eq!(text(&headers, "content-type"), "text/javascript; charset=utf-8");
    assert!(text(&headers, "cache-control").contains("immutable"));
    let (_, headers, body) = get(&app, &[("accept-encoding", "gzip;q=0")]).await;
    assert_eq!(
        (text(&headers, "content-encoding"), &body[..]),
        ("", &page.file("app.js").expect("there").content[..])
    );
    let (status, headers, _) = get("/ui/0123456789abcdef/app.js", &[]).await;
    assert_eq!((status, text(&headers, "cache-control")), (StatusCode::OK, "no-store"), "of another build");

    for uri in [format!("/ui/{}/index.html", page.version), format!("/ui/{}/../Cargo.toml", page.version)] {
        let (status, ..) = get(&uri, &[]).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{uri}");
    }
    let (status, _, body) = send(&router, Method::POST, "/ui/", &[], "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{body:?}");
    let (status, ..) = get("/ui/nothing", &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "no path of the page, so a path of the API");
}

#[tokio::test]
async fn link_of_another_site_leads_to_the_page_and_not_to_data() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    let of_link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    for (uri, expected) in [
        ("/", StatusCode::TEMPORARY_REDIRECT),
        ("/ui/", StatusCode::OK),
        (SESSION, StatusCode::FORBIDDEN),
        ("/api/stormkeeper/v1/topology/summary", StatusCode::FORBIDDEN),
    ] {
        let (status, ..) = send(&router, Method::GET, uri, &of_link, "").await;
        assert_eq!(status, expected, "{uri}");
    }
    let (status, ..) = send(&router, Method::GET, "/ui/", &[("host", "evil.example")], "").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn person_who_signs_in_has_a_cookie_that_counts_for_the_page_only() {
    let f = Fixture::new().await;
    let keys = Keys::new();
    let locked = f.locked_leader(&keys).await;
    let router = routes(locked.handle().clone());
    let host = host(&locked);
    let purpose = (ON_PURPOSE, "1");
    let json = ("content-type", "application/json");
    let ask = async |method: Method, uri: &str, headers: &[(&str, &str)], body: &str| {
        let mut all = vec![("host", host.as_str())];
        all.extend(headers);
        let (status, headers, body) = send(&router, method, uri, &all, body).await;
        (status, headers, serde_json::from_slice::<Value>(&body).unwrap_or_default())
    };

    let (status, _, session) = ask(Method::GET, SESSION, &[], "").await;
    assert_eq!((status, &session), (StatusCode::OK, &json!({ "access": "required", "actions": true })));
    let refused_before = locked.handle().gate().refusals().total();
    for bad in ["skt_0123456789abcdef0123", "short"] {
        let body = json!({ "token": bad }).to_string();
        let (status, headers, answer) = ask(Method::POST, SESSION, &[purpose, json], &body).await;
        assert_eq!(
            (status, &answer["code"]),
            (StatusCode::UNAUTHORIZED, &json!("unauthenticated")),
            "{answer}"
        );
        assert!(!headers.contains_key(header::SET_COOKIE) && !answer.to_string().contains(bad), "{answer}");
    }
    assert!(locked.handle().gate().refusals().total() > refused_before, "it is counted");

    let body = json!({ "token": keys.reader.secret_text() }).to_string();
    for method in [Method::POST, Method::DELETE] {
        let (status, headers, answer) = ask(method, SESSION, &[json], &body).await;
        assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("foreign_request")), "{answer}");
        assert!(!headers.contains_key(header::SET_COOKIE), "another page could sign somebody in or out");
    }
    let (status, headers, session) = ask(Method::POST, SESSION, &[purpose, json], &body).await;
    let expected = json!({ "access": "required", "actions": true, "name": "grafana", "role": "reader" });
    assert_eq!((status, &session), (StatusCode::OK, &expected));
    let set = text(&headers, "set-cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && !set.contains("Domain"), "{set}");
    let cookie = ("cookie", set.split(';').next().expect("a pair"));

    const LIST: &str = "/api/stormkeeper/v1/topology/summary";
    let (status, ..) = ask(Method::GET, LIST, &[cookie, purpose], "").await;
    assert_eq!(status, StatusCode::OK);
    let (status, ..) = ask(Method::PUT, LIST, &[cookie, purpose], "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "who is signed in is told what is wrong");
    let (status, ..) = ask(Method::GET, LIST, &[cookie], "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a link, a form or an image of another page");
    let (status, ..) = ask(Method::POST, KILL, &[cookie, purpose], "{}").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "a reader changes nothing");
    let (_, _, session) = ask(Method::GET, SESSION, &[cookie, purpose], "").await;
    assert_eq!(session["name"], "grafana");

    let body = json!({ "token": keys.of_team.secret_text() }).to_string();
    let (_, headers, session) = ask(Method::POST, SESSION, &[purpose, json], &body).await;
    assert_eq!(session["owner"], "team");
    let cookie = ("cookie", text(&headers, "set-cookie").split(';').next().expect("a pair"));
    let (status, _, answer) = ask(Method::POST, KILL, &[cookie, purpose], "{}").await;
    assert_eq!(
        (status, &answer["code"]),
        (StatusCode::NOT_FOUND, &json!("unknown_topology")),
        "an operator may"
    );
    let (status, ..) = ask(Method::POST, KILL, &[cookie], "{}").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "without the header of the page it is nobody's");

    let former = ("cookie", "stormkeeper-token=skt%5F0123456789abcdef");
    let (status, headers, session) = ask(Method::GET, SESSION, &[former, purpose], "").await;
    assert_eq!((status, session.get("name")), (StatusCode::OK, None));
    assert!(text(&headers, "set-cookie").contains("Max-Age=0"), "its line was removed from the file");

    let (status, headers, session) = ask(Method::DELETE, SESSION, &[cookie, purpose], "").await;
    assert_eq!((status, session.get("name")), (StatusCode::OK, None));
    assert!(headers.get_all(header::SET_COOKIE).iter().all(|value| text_of(value).contains("Max-Age=0")));
}

fn text_of(value: &axum::http::HeaderValue) -> &str {
    value.to_str().expect("text")
}

#[tokio::test]
async fn nimbus_that_looks_at_no_proof_says_so_and_takes_no_token() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    assert_eq!(leader.handle().gate().mode(), Mode::Open);
    let router = routes(leader.handle().clone());
    let (status, session) = ask(&router, Method::GET, SESSION, "").await;
    assert_eq!((status, session), (StatusCode::OK, json!({ "access": "open", "actions": true })));
    let body = json!({ "token": "skt_0123456789abcdef" }).to_string();
    let (status, answer) = ask(&router, Method::POST, SESSION, body).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{answer}");
    let (status, ..) = ask(&router, Method::GET, "/api/stormkeeper/v1/session?token=x", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a token does not belong into an address");
}
