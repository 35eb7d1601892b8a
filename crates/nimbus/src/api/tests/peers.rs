//! Requests as browsers, programs and slow peers send them, over TCP.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

/// Sends a request with these lines as its head, and returns the status and the body of the response.
async fn send(address: SocketAddr, head: &[&str], body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let lines = head.join("\r\n");
    let request = format!("{lines}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn requests_of_web_pages_are_rejected_and_those_of_programs_are_accepted() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let (address, handle) = (running.address(), running.handle());
    let TopologyPackage { key, bytes } = blob("wc");
    let body = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(bytes))]);
    handle.blobs().put(&key, body).await.expect("stored");
    let host = format!("Host: {address}");
    let submit = json!({"blob": key, "owner": "ann"}).to_string();
    let (status, answer) =
        send(address, &["POST /api/stormkeeper/v1/topology/submit HTTP/1.1", &host], &submit).await;
    assert_eq!(status, 200, "{answer}");

    let kill = "POST /api/stormkeeper/v1/topology/wc/kill HTTP/1.1";
    let form = "Content-Type: application/x-www-form-urlencoded";
    let cases: [(&[&str], u16, &str); 6] = [
        (&[kill, &host, "Origin: https://evil.example", form], 403, "foreign_request"),
        (&[kill, &host, "Sec-Fetch-Site: cross-site"], 403, "foreign_request"),
        (&[kill, "Host: evil.example:8080"], 403, "foreign_request"),
        (&[kill, &host, form], 415, "wrong_content_type"),
        (&[kill], 400, "invalid_request"),
        (&[kill, &host, &host], 400, "invalid_request"),
    ];
    for (head, expected, code) in cases {
        let (status, answer) = send(address, head, "").await;
        assert_eq!((status, &answer["code"]), (expected, &json!(code)), "{head:?}: {answer}");
        assert!(answer["hint"].is_string(), "{answer}");
    }
    let (status, answer) = send(address, &["GET /nowhere HTTP/1.1", "Host: evil.example"], "").await;
    assert_eq!((status, &answer["code"]), (403, &json!("foreign_request")), "{answer}");

    let (status, shown) = send(address, &["GET /api/stormkeeper/v1/topology/wc HTTP/1.1", &host], "").await;
    assert_eq!((status, &shown["status"]), (200, &json!("active")), "{shown}");
    let (status, answer) = send(address, &[kill, &host], "").await;
    assert_eq!((status, &answer["status"]), (200, &json!("killed")), "{answer}");
}

#[tokio::test]
async fn slow_bodies_keep_no_metrics_out() {
    let fixture = Fixture::new().await;
    let running = fixture.leader_with_metrics().await;
    let address = running.address();
    let host = format!("Host: {address}");
    wait_until("the metric store is open", LONG, || async {
        running.handle().metrics().map(drop).map_err(|refusal| refusal.to_string())
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let head = format!(
            "POST /api/stormkeeper/v1/metrics/ingest HTTP/1.1\r\n{host}\r\nContent-Length: 9\r\n\r\nhalf"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        slow.push(stream);
    }
    // Answered in turn: each of those before has been read as far as it has arrived.
    for _ in 0..slow.len() {
        let (status, answer) =
            send(address, &["POST /api/stormkeeper/v1/metrics/register HTTP/1.1", &host], "x").await;
        assert_eq!((status, &answer["code"]), (400, &json!("invalid_request")), "{answer}");
        assert!(answer["message"].as_str().is_some_and(|text| text.contains("not the message")), "{answer}");
    }
}
