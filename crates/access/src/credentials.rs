//! The side of the sender: credentials that a client adds to its requests.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use tracing::{debug, error};

use crate::{
    file::WatchedFile,
    principal::Principal,
    secret::{Key, Secrets, WorkerKeys},
    signature::{BodyDigest, Claims, Head, Sender},
    token::Token,
};
use stormkeeper_model::{Timestamp, TopologyId, clock::Clock};

/// Credentials of a client. Clones share what they learn about the clock of nimbuses.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// Requests are sent without a proof.
    #[default]
    None,
    /// Requests have a token.
    Token(Token),
    /// Requests are signed.
    Signer(Signer),
}

impl Credentials {
    /// Returns the value of the header `Authorization` for a request, if there is one.
    pub fn header(
        &self,
        head: Head<'_>,
        digest: BodyDigest,
        on_behalf_of: Option<Principal>,
    ) -> Option<String> {
        match self {
            Self::None => None,
            Self::Token(token) => Some(format!("Bearer {}", token.secret_text())),
            Self::Signer(signer) => signer.header(head, digest, on_behalf_of),
        }
    }

    /// Notes the time of a nimbus that found a signature too old or too new. Returns whether the
    /// request should be signed and sent again.
    pub fn note_time(&self, time: Timestamp) -> bool {
        match self {
            Self::None | Self::Token(_) => false,
            Self::Signer(signer) => {
                signer.note_time(time);
                true
            }
        }
    }
}

/// Source of the key that signs.
#[derive(Debug, Clone)]
enum Source {
    Secrets(WatchedFile<Secrets>),
    Worker(WatchedFile<Option<WorkerKeys>>),
}

/// Signs requests of a daemon or a worker.
#[derive(Debug, Clone)]
pub struct Signer {
    sender: Sender,
    source: Source,
    clock: Clock,
    // Milliseconds by which the nimbus that complained last is ahead of this process.
    ahead_ms: Arc<AtomicI64>,
}

impl Signer {
    /// Signs as the daemon of this name.
    pub fn daemon(name: String, secrets: WatchedFile<Secrets>, clock: Clock) -> Self {
        Self::new(Sender::Daemon(name), Source::Secrets(secrets), clock)
    }

    /// Signs as a worker of a topology, once its supervisor has written its keys.
    pub fn worker(topology: TopologyId, keys: WatchedFile<Option<WorkerKeys>>, clock: Clock) -> Self {
        Self::new(Sender::Worker(topology), Source::Worker(keys), clock)
    }

    fn new(sender: Sender, source: Source, clock: Clock) -> Self {
        Self { sender, source, clock, ahead_ms: Arc::default() }
    }

    fn key(&self) -> Option<Key> {
        match &self.source {
            Source::Secrets(secrets) => secrets.get().daemon_keys().first().cloned(),
            Source::Worker(keys) => keys.get().as_ref().as_ref()?.keys.first().cloned(),
        }
    }

    fn header(&self, head: Head<'_>, digest: BodyDigest, on_behalf_of: Option<Principal>) -> Option<String> {
        let mut nonce = [0; 16];
        if let Err(error) = getrandom::fill(&mut nonce) {
            // Without a nonce the request is sent unsigned, and a nimbus that needs a signature says so.
            error!(%error, "the system has no random bytes: a request is not signed");
            return None;
        }
        let now = self.clock.now().as_millis();
        let time = now.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed));
        let time = Timestamp::from_millis(time);
        let claims = Claims { sender: self.sender.clone(), time, nonce, digest, on_behalf_of };
        Some(claims.sign(head, &self.key()?))
    }

    fn note_time(&self, time: Timestamp) {
        let (theirs, ours) = (time.as_millis(), self.clock.now().as_millis());
        let ahead_ms = i64::try_from(i128::from(theirs) - i128::from(ours)).unwrap_or_default();
        debug!(ahead_ms, "requests are signed with the time of the nimbus from now on");
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}
