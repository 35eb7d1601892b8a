use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request as Received, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response as Answer},
};

use super::*;
use crate::http;
use stormkeeper_access::{
    credentials::Signer,
    file::{WatchedFile, create_secret},
    secret::Secrets,
    signature::{SCHEME, Signature},
    token::Token,
};
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Requests as they arrived: method, path with query, headers, body.
type Log = Arc<Mutex<Vec<(String, String, HeaderMap, Vec<u8>)>>>;

/// Time of the nimbus, far from that of the sender.
const NOW_MS: u64 = 5_000_000_000;

async fn receive(State(log): State<Log>, request: Received) -> Answer {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("short").to_vec();
    let path = parts.uri.path_and_query().expect("a path").to_string();
    let is_first = log.lock().expect("locked").is_empty();
    log.lock().expect("locked").push((parts.method.to_string(), path, parts.headers, body));
    match is_first {
        true => {
            let headers = [(TIME, NOW_MS.to_string()), (STALE, "1".to_owned())];
            (StatusCode::UNAUTHORIZED, headers).into_response()
        }
        false => StatusCode::OK.into_response(),
    }
}

/// A nimbus that finds the first request stale.
async fn nimbus(tasks: &Tasks) -> (String, Log) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (api, log) = (listener.local_addr().expect("bound").to_string(), Log::default());
    let routes = Router::new().fallback(receive).with_state(Arc::clone(&log));
    tasks.start("nimbus", OnExit::Ignore, async move {
        axum::serve(listener, routes).await.expect("served");
    });
    (api, log)
}

fn secrets(dir: &Path) -> WatchedFile<Secrets> {
    let path = dir.join("secret");
    create_secret(&path, &"k".repeat(32)).expect("written");
    WatchedFile::open(&path, Secrets::read).expect("valid")
}

fn client(credentials: Credentials) -> AuthorizedClient {
    let client = AuthorizedClient::new(http::client(), &ClientTls::off());
    client.expect("made").with_credentials(credentials)
}

#[tokio::test]
async fn signature_covers_what_arrives_and_is_made_again_with_the_time_of_the_nimbus() {
    let (tasks, dir) = (Tasks::default(), tempfile::tempdir().expect("a directory"));
    let (api, log) = nimbus(&tasks).await;
    let (secrets, clock) = (secrets(dir.path()), Clock::manual(Timestamp::from_millis(7)));
    let signer = Signer::daemon("n1".to_owned(), secrets.clone(), clock);
    let client = client(Credentials::Signer(signer));
    let request = client.request(Method::POST, format!("http://{api}/a%20b?x=1&y=ä")).body("the body");
    assert_eq!(client.send(request).await.expect("answered").status(), StatusCode::OK);
    let log = log.lock().expect("locked").clone();
    let mut nonces = Vec::new();
    for (time_ms, (method, path, headers, body)) in [7, NOW_MS].into_iter().zip(&log) {
        let text = headers["authorization"].to_str().expect("text").strip_prefix(SCHEME).expect("signed");
        let signature = Signature::parse(text).expect("valid");
        let to = headers["host"].to_str().expect("text");
        assert_eq!(to, api);
        let keys = secrets.get().daemon_keys();
        let claims = signature.verified(Head { to, method, path }, &keys).expect("verified");
        assert_eq!(claims.digest, BodyDigest::of(body));
        assert_eq!(claims.time.as_millis(), time_ms);
        nonces.push(claims.nonce);
    }
    assert_eq!(log.len(), 2);
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn token_is_sent_once_and_a_client_without_credentials_sends_none() {
    let tasks = Tasks::default();
    let token = Token::generate().expect("random bytes");
    for (credentials, expected) in [
        (Credentials::Token(token.clone()), Some(format!("Bearer {}", token.secret_text()))),
        (Credentials::None, None),
    ] {
        let (api, log) = nimbus(&tasks).await;
        let client = client(credentials);
        let answer = client.send(client.request(Method::GET, format!("http://{api}/x"))).await;
        assert_eq!(answer.expect("answered").status(), StatusCode::UNAUTHORIZED);
        let log = log.lock().expect("locked");
        let sent: Vec<_> =
            log.iter().map(|(_, _, headers, _)| headers.get("authorization").cloned()).collect();
        let sent: Vec<_> =
            sent.iter().map(|value| value.as_ref().map(|text| text.to_str().expect("text"))).collect();
        assert_eq!(sent, [expected.as_deref()]);
    }
}
