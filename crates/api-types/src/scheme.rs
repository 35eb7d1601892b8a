//! Choice between TLS and plain HTTP for each peer.
//!
//! A process that requires TLS, or has none, has no choice. Where TLS is optional, some peers speak it
//! and others do not yet: a peer is asked over TLS first, and what it speaks is remembered for half a minute.

use std::{
    collections::HashMap,
    error::Error as _,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Url;
use tokio::time::Instant;

use crate::http;
use stormkeeper_access::tls::{TlsMode, client::ClientTls};

/// Time for which the result is remembered: a peer that was restarted may speak TLS now.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Maximum number of remembered peers; beyond it all are asked again.
const PEERS_MAX: usize = 1000;

/// Limit for asking a peer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Protocol of a peer, with the time of asking.
type Asked = (bool, Instant);

/// Chooses between TLS and plain HTTP. Clones share what they have learned.
#[derive(Debug, Clone)]
pub(crate) struct Schemes {
    tls: ClientTls,
    // Held for a look-up or an insertion.
    asked: Arc<Mutex<HashMap<String, Asked>>>,
}

impl Schemes {
    pub(crate) fn new(tls: ClientTls) -> Self {
        Self { tls, asked: Arc::default() }
    }

    /// Lets `url`, which begins with `http:`, begin with `https:` if the peer is asked over TLS.
    pub(crate) async fn choose(&self, client: &reqwest::Client, url: &mut Url) {
        if url.scheme() != "http" {
            return;
        }
        let is_tls = match self.tls.mode() {
            TlsMode::Off => false,
            TlsMode::Required => true,
            TlsMode::Optional => self.speaks_tls(client, url).await,
        };
        if is_tls {
            secure(url);
        }
    }

    /// Forgets the protocol of a peer that has turned out to be wrong.
    pub(crate) fn forget(&self, url: &Url) {
        self.asked.lock().expect("nobody panics while holding the peers").remove(&peer_of(url));
    }

    async fn speaks_tls(&self, client: &reqwest::Client, url: &Url) -> bool {
        let peer = peer_of(url);
        let known = self.asked.lock().expect("nobody panics while holding the peers").get(&peer).copied();
        if let Some((is_tls, _)) = known.filter(|(_, at)| at.elapsed() < REMEMBERED) {
            return is_tls;
        }
        let mut live = url.clone();
        live.set_path("/live");
        live.set_query(None);
        secure(&mut live);
        let is_tls = match client.head(live).timeout(ASK_TIMEOUT).send().await {
            Ok(_) => true,
            Err(error) if answers_plainly(&error) => false,
            // Nothing is known. A request over TLS fails with the cause.
            Err(_) => return true,
        };
        let mut asked = self.asked.lock().expect("nobody panics while holding the peers");
        if asked.len() >= PEERS_MAX {
            asked.clear();
        }
        asked.insert(peer, (is_tls, Instant::now()));
        is_tls
    }
}

/// Host and port of a URL.
fn peer_of(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// Replaces the scheme, and keeps the port: the usual port differs.
fn secure(url: &mut Url) {
    let port = url.port_or_known_default();
    let changed = url.set_scheme("https").and_then(|()| url.set_port(port));
    debug_assert!(changed.is_ok(), "a URL with a host has a scheme and a port");
}

/// Returns whether a peer did not understand the beginning of TLS. A bad certificate is none of these cases:
/// a peer that has one speaks TLS.
fn answers_plainly(error: &reqwest::Error) -> bool {
    if let Some(cause) = http::tls_cause(error) {
        return matches!(cause, rustls::Error::InvalidMessage(_));
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::UnexpectedEof;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_stays_when_the_scheme_changes() {
        for (plain, expected) in [
            ("http://n1:8080/x?y=1", "https://n1:8080/x?y=1"),
            ("http://n1/x", "https://n1:80/x"),
            ("http://n1:443/x", "https://n1/x"),
            ("http://[fd00::1]:8080/", "https://[fd00::1]:8080/"),
        ] {
            let mut url = Url::parse(plain).expect("valid");
            let peer = peer_of(&url);
            secure(&mut url);
            assert_eq!((url.as_str(), peer_of(&url)), (expected, peer));
        }
    }
}
