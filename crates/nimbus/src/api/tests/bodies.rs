//! Bodies that cannot be read, and errors that repeat what was sent.

use std::io;

use super::*;

#[tokio::test]
async fn body_that_breaks_off_is_malformed_and_one_beyond_the_limit_is_too_large() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let router = routes(leader.handle().clone());
    for path in ["/api/stormkeeper/v1/topology/wc/kill", "/api/v1/topology/wc/activate"] {
        let chunks = [Ok(Bytes::from("{")), Err(io::Error::other("invalid chunk size"))];
        let broken = Body::from_stream(futures_util::stream::iter(chunks));
        let (status, error) = ask(&router, Method::POST, path, broken).await;
        assert_eq!((status, &error["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{error}");
        let message = error["message"].as_str().expect("text");
        assert_eq!(message, "the body could not be read: invalid chunk size");
        let (status, error) = ask(&router, Method::POST, path, vec![b' '; JSON_BYTES_MAX + 1]).await;
        assert_eq!((status, &error["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")), "{error}");
    }
}

#[tokio::test]
async fn error_does_not_repeat_a_long_request() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let router = routes(leader.handle().clone());
    let long = "a".repeat(50_000);
    for path in [
        format!("/api/stormkeeper/v1/topology/{long}"),
        format!("/api/stormkeeper/v1/{long}"),
        format!("/api/stormkeeper/v1/cluster/events?{long}=1"),
        format!("/api/v1/topology/{long}"),
        format!("/jobs/{long}"),
    ] {
        let (status, error) = ask(&router, Method::GET, &path, "").await;
        assert!(status.is_client_error() && error["message"].is_string(), "{status} {error}");
        assert!(error.to_string().len() < 20_000, "{} bytes", error.to_string().len());
    }
}

#[tokio::test]
async fn error_does_not_repeat_a_credential() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let router = routes(leader.handle().clone());
    let path = "/api/stormkeeper/v1/topology/wc/credentials";
    for body in [r#"{"set": {"db": 12345678}}"#, r#"{"set": "12345678"}"#, r#"{"12345678": {}}"#] {
        let (status, error) = ask(&router, Method::POST, path, body).await;
        assert_eq!((status, &error["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{error}");
        assert!(error["hint"].is_string() && !error.to_string().contains("12345678"), "{error}");
    }
    for (body, key) in [
        (r#"{"set": {"db": "12345678", "db": "87654321"}}"#, "it has \"db\" twice"),
        (r#"{"set": {"db": "12345678"}, "set": {}}"#, "it has \"set\" twice"),
    ] {
        let (status, error) = ask(&router, Method::POST, path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
        let message = error["message"].as_str().expect("a text");
        assert!(message.contains(key) && !message.contains("5678"), "{error}");
    }
}
