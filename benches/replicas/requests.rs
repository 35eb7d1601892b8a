//! A bounded client of one HTTP server: requests at a fixed rate over connections that are kept.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use stormkeeper_model::clock::Clock;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::report::Samples;

/// Number of connections at a fixed rate: at most as many requests are in flight.
const N_CONNECTIONS: usize = 64;

/// Timeout of one request, far above everything that is measured.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Connection to a server.
pub(crate) struct Connection {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("an option of every socket");
        Self { address: address.to_owned(), stream: BufReader::new(stream) }
    }

    /// Sends `GET {path}` and returns the body.
    ///
    /// # Panics
    /// If the answer is not 200, or takes too long.
    pub(crate) async fn get(&mut self, path: &str) -> Vec<u8> {
        let answered = tokio::time::timeout(TIMEOUT, self.ask(path)).await;
        let (status, body) = answered.expect("in time").expect("the server answers");
        assert!(status.contains(" 200 "), "GET {path}: {status} {}", String::from_utf8_lossy(&body));
        body
    }

    async fn ask(&mut self, path: &str) -> std::io::Result<(String, Vec<u8>)> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let status = self.line().await?;
        let mut length = None;
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", n)) => length = n.trim().parse().ok(),
                Some(_other) => {}
            }
        }
        match length {
            Some(length) => Ok((status, self.bytes(length).await?)),
            None => Ok((status, self.chunks().await?)),
        }
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }

    async fn bytes(&mut self, n: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).map_err(std::io::Error::other)?;
            body.extend(self.bytes(size).await?);
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// Asks for `path` again and again, each time as soon as the answer before has arrived.
pub(crate) async fn in_turn(address: &str, path: &str, n: usize, clock: &Clock) -> Samples {
    let (mut connection, mut took) = (Connection::open(address).await, Samples::default());
    for _ in 0..n {
        let began = clock.monotonic();
        connection.get(path).await;
        took.add(clock.monotonic().since(began));
    }
    took
}

/// Asks for `path` `per_second` times each second, and returns the time of each answer since the moment
/// when its request was due: what waits because the server is slow counts as well.
pub(crate) async fn at_rate(
    address: &str,
    path: &str,
    (per_second, secs): (u32, u32),
    clock: &Clock,
) -> Samples {
    let (next, n, began) = (AtomicU32::new(0), per_second * secs, tokio::time::Instant::now());
    let start = clock.monotonic();
    let one = async || {
        let (mut connection, mut took) = (Connection::open(address).await, Vec::new());
        loop {
            let request = next.fetch_add(1, Ordering::Relaxed);
            if request >= n {
                return took;
            }
            let due = Duration::from_secs(1) * request / per_second;
            tokio::time::sleep_until(began + due).await;
            connection.get(path).await;
            took.push(clock.monotonic().since(start).saturating_sub(due));
        }
    };
    join_all((0..N_CONNECTIONS).map(|_| one())).await.into_iter().flatten().collect()
}
