//! Slow peers, over TCP with short limits.

mod tls;

use std::sync::{Arc, Mutex};

use axum::{
    Extension,
    body::Bytes,
    routing::{get, post},
};
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

use super::*;
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// A wait that ends long before unless the server keeps a connection for ever.
const LONG: Duration = Duration::from_secs(20);

/// A time that no test waits for.
const NEVER: Duration = Duration::from_secs(3600);

fn lenient() -> Limits {
    Limits { head: NEVER, idle: NEVER, stall: NEVER, ..Limits::of_descriptors(1000) }
}

struct Server {
    address: std::net::SocketAddr,
    _tasks: Tasks,
}

impl Server {
    async fn start(routes: Router, limits: Limits) -> Self {
        Self::start_with(routes, None, limits).await
    }

    async fn start_with(routes: Router, tls: Option<ServerTls>, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, tasks) = (listener.local_addr().expect("bound"), Tasks::default());
        let accepts = watch::Sender::new(true);
        tasks.start(
            "api",
            OnExit::Ignore,
            serve((listener, accepts), (routes, tls), limits, tasks.cancelled()),
        );
        Self { address, _tasks: tasks }
    }

    async fn echo(limits: Limits) -> Self {
        let echo = async |request: Request| match axum::body::to_bytes(request.into_body(), 1000).await {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(format!("failed in time: {}", is_body_timeout(&error))),
        };
        Self::start(Router::new().route("/", post(echo)), limits).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }
}

/// Sends `request`, and returns everything that the server sends until it closes the connection.
async fn until_closed(mut stream: TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await;
    read.expect("the server closes the connection").expect("text");
    answer
}

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_peer_without_a_whole_head_is_disconnected() {
    let server = Server::echo(Limits { head: SHORT, ..lenient() }).await;
    assert_eq!(until_closed(server.connect().await, "").await, "");
    assert_eq!(until_closed(server.connect().await, "POST / HTTP/1.1\r\nHost: x\r\n").await, "");
}

#[tokio::test]
async fn a_peer_that_sends_no_further_request_is_disconnected_after_the_answer() {
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    let server = Server::echo(Limits { idle: SHORT, ..lenient() }).await;
    let answer = until_closed(server.connect().await, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hi"), "{answer}");
    // A next request that has begun has the time of a head.
    let server = Server::echo(Limits { head: SHORT, ..lenient() }).await;
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"hi") {
        assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0);
    }
    assert_eq!(until_closed(stream, "POST / HTTP/1.1\r\n").await, "");
}

#[tokio::test]
async fn a_body_that_stops_is_an_error_of_its_request() {
    let server = Server::echo(Limits { stall: SHORT, ..lenient() }).await;
    let half = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf";
    let answer = until_closed(server.connect().await, half).await;
    assert!(answer.ends_with("failed in time: true"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_abandoned() {
    let (alive, abandoned) = oneshot::channel::<()>();
    let alive = Arc::new(Mutex::new(Some(alive)));
    // The sender lives as long as the body.
    let endless = async move || {
        let alive = alive.lock().expect("not poisoned").take();
        Body::from_stream(stream::unfold(alive, async |alive| {
            Some((Ok::<_, std::io::Error>(Bytes::from_static(&[0; 1 << 16])), alive))
        }))
    };
    let routes = Router::new().route("/", get(endless));
    let server = Server::start(routes, Limits { stall: SHORT, ..lenient() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    tokio::time::timeout(LONG, abandoned).await.expect("abandoned").expect_err("nothing is sent");
}

#[tokio::test]
async fn response_without_an_end_that_heeds_the_closing_is_complete_when_the_server_ends() {
    let endless = async |Extension(Closing(closing)): Extension<Closing>| {
        Body::from_stream(stream::unfold(true, move |is_first| {
            let closing = closing.clone();
            async move {
                if !is_first {
                    closing.cancelled().await;
                    return None;
                }
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"begin")), false))
            }
        }))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, closing) = (listener.local_addr().expect("bound"), CancellationToken::new());
    let routes = (Router::new().route("/", get(endless)), None);
    let serving = serve((listener, watch::Sender::new(true)), routes, lenient(), closing.clone());
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let client = async {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"begin\r\n") {
            assert!(stream.read_buf(&mut answer).await.expect("read") > 0, "{answer:?}");
        }
        closing.cancel();
        stream.read_to_end(&mut answer).await.expect("read");
        assert!(answer.ends_with(b"\r\n0\r\n\r\n"), "the response is cut off: {answer:?}");
    };
    tokio::time::timeout(LONG, async { tokio::join!(serving, client) }).await.expect("in time");
}

#[tokio::test]
async fn every_response_keeps_browsers_from_using_it_as_anything_but_data() {
    let own = async || ([("content-security-policy", "default-src 'self'")], "page");
    let routes = Router::new().route("/", get(async || "data")).route("/page", get(own));
    let server = Server::start(routes, lenient()).await;
    for (path, status, policy) in [
        ("/", "200", "default-src 'none'; frame-ancestors 'none'"),
        ("/nothing", "404", "default-src 'none'; frame-ancestors 'none'"),
        ("/page", "200", "default-src 'self'"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = until_closed(server.connect().await, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let policy = format!("content-security-policy: {policy}\r\n");
        for header in [
            policy.as_str(),
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: no-referrer\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert_eq!(answer.matches(header).count(), 1, "{header:?} of {path}: {answer}");
        }
        assert_eq!(answer.matches("content-security-policy").count(), 1, "{answer}");
        assert!(!answer.contains("access-control-allow-origin"), "{answer}");
    }
}

#[tokio::test]
async fn head_that_does_not_end_is_refused_before_it_fills_the_memory() {
    let server = Server::echo(lenient()).await;
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let answer =
        until_closed(server.connect().await, &format!("POST / HTTP/1.1\r\nHost: x\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut stream = server.connect().await;
    let endless = async {
        stream.write_all(b"POST / HTTP/1.1\r\nX: ").await?;
        for _ in 0..1024 {
            stream.write_all(&[b'x'; 1024]).await?;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    // The server may close the connection before its answer is read.
    if let Ok(answer) = tokio::time::timeout(LONG, endless).await.expect("the server ends it") {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[tokio::test]
async fn bytes_one_by_one_are_no_sign_of_life_of_a_head() {
    let server = Server::echo(Limits { head: Duration::from_millis(300), ..lenient() }).await;
    let (mut reads, mut writes) = server.connect().await.into_split();
    let drip = async move {
        while writes.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = async move {
        let mut answer = Vec::new();
        let _ended_in_either_way = reads.read_to_end(&mut answer).await;
        answer
    };
    let (_, answer) =
        tokio::time::timeout(LONG, async { tokio::join!(drip, closed) }).await.expect("cut off");
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
}

#[tokio::test]
async fn response_to_a_body_that_was_not_read_announces_the_end_of_the_connection() {
    let refuse = async || axum::http::StatusCode::FORBIDDEN;
    let read = async |body: Bytes| body;
    let routes = Router::new().route("/refuse", post(refuse)).route("/read", post(read));
    let server = Server::start(routes, Limits { idle: SHORT, ..lenient() }).await;
    for (head, announced) in [
        ("/refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", true),
        ("/refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhi", true),
        ("/refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", true),
        ("/refuse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", true),
        ("/refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", false),
        ("/refuse HTTP/1.1\r\nHost: x\r\n\r\n", false),
        ("/read HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", false),
        ("/read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", false),
    ] {
        let answer = until_closed(server.connect().await, &format!("POST {head}")).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") || answer.ends_with("hi"), "{head}: {answer}");
        assert_eq!(answer.contains("connection: close\r\n"), announced, "{head}: {answer}");
    }
}

/// Sends a request with `n` bytes of body before it reads, and returns what it reads until the connection
/// is closed, and whether all was sent.
async fn sends_all_then_reads(mut stream: TcpStream, n: usize) -> (String, bool) {
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut is_sent = true;
    for _ in 0..n >> 16 {
        is_sent = is_sent && stream.write_all(&[b'x'; 1 << 16]).await.is_ok();
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    is_sent &= read.expect("the server closes the connection").is_ok();
    (String::from_utf8_lossy(&answer).into_owned(), is_sent)
}

#[tokio::test]
async fn client_that_sends_a_body_nobody_reads_gets_its_response() {
    let refuse = async || axum::http::StatusCode::FORBIDDEN;
    let routes = Router::new().route("/", post(refuse));
    let server = Server::start(routes.clone(), lenient()).await;
    // More than the buffers of both sockets hold.
    let (answer, is_whole) = sends_all_then_reads(server.connect().await, 32 << 20).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && is_whole, "{is_whole} {answer}");
    let server = Server::start(routes.clone(), Limits { linger_bytes: 1 << 16, ..lenient() }).await;
    let (_, is_whole) = sends_all_then_reads(server.connect().await, 32 << 20).await;
    assert!(!is_whole, "more than the limit was read");
    // A peer that neither sends nor closes keeps its place for a while only.
    let limits = Limits { head: SHORT, linger: SHORT, connections: 1, connections_per_peer: 1, ..lenient() };
    let server = Server::start(routes, limits).await;
    let mut idle = server.connect().await;
    idle.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n").await.expect("sent");
    let freed = async {
        while !until_closed(server.connect().await, "").await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let limited = tokio::time::timeout(LONG, freed).await;
    limited.expect("the place of the first connection is free");
}

#[tokio::test]
async fn peer_that_speaks_http_2_is_told_which_version_is_served() {
    let server = Server::echo(lenient()).await;
    // With the frame of its settings, as clients send it.
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    let answer = until_closed(server.connect().await, preface).await;
    assert_eq!(answer, raw::NO_HTTP_2);
    // A client that sends its request before it reads gets the response too.
    let mut stream = server.connect().await;
    let mut answer = Vec::new();
    stream.write_all(preface.as_bytes()).await.expect("sent");
    while !answer.starts_with(b"HTTP/1.1 505 ") {
        assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0);
    }
    for _ in 0..4 {
        stream.write_all(&[0; 1000]).await.expect("it is read");
    }
    stream.read_to_end(&mut answer).await.expect("no reset");
    assert_eq!(answer, raw::NO_HTTP_2.as_bytes());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_answered_with_503() {
    let limits = Limits { connections: 2, connections_per_peer: 2, ..lenient() };
    let server = Server::echo(limits).await;
    let request = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let first = server.connect().await;
    let _second = server.connect().await;
    let answer = until_closed(server.connect().await, "").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many connections"), "{answer}");
    assert!(until_closed(first, request).await.ends_with("hi"));
    assert!(until_closed(server.connect().await, request).await.ends_with("hi"), "a place is free again");
}
