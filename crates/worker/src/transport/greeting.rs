//! Greeting of a connection: who connects to whom, and where the cluster is locked, a proof of both ends
//! that they have a key of the topology.
//!
//! ```text
//! sender    magic  version           frame(Hello)                                          tuples …
//! receiver                                                              frame(HelloReply)
//!
//! sender    magic  version | PROVED  frame(Hello)  frame(Offer)             frame(Proof)         tuples …
//! receiver                                             frame(Challenge)              frame(HelloReply)
//! ```
//!
//! A proof is the HMAC-SHA256 of the greeting and of random numbers of both ends. So a recorded greeting
//! proves nothing, and a process that took the port of a worker gets no tuples. Over TLS a proof also covers
//! key material of the connection, and is always demanded, so that nobody in between can read or change what
//! follows. On a plain connection it is neither encrypted nor signed.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tracing::error;

use super::{
    stream::PeerStream,
    wire::{self, Hello, HelloReply, MAX_HANDSHAKE_BYTES, ReadError},
};
use stormkeeper_access::{
    file::WatchedFile,
    secret::{Key, WorkerKeys},
    tls::{TlsMode, ephemeral::EphemeralTls, worker::WorkerTls},
};

/// Bit of the version of a greeting with proofs.
pub(super) const PROVED: u16 = 1 << 15;

/// Bit of the version of a sender whose frames may be compressed.
pub(super) const COMPRESSES: u16 = 1 << 14;

/// Keys and TLS of this worker, which change in the running worker. Without a file there are none.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerKeys {
    keys: Option<WatchedFile<Option<WorkerKeys>>>,
    tls: Option<WatchedFile<Option<WorkerTls>>>,
    own: Option<EphemeralTls>,
}

impl PeerKeys {
    pub(crate) fn new(
        keys: Option<WatchedFile<Option<WorkerKeys>>>,
        tls: Option<WatchedFile<Option<WorkerTls>>>,
    ) -> Self {
        // A worker of a simulation has neither.
        let own = (keys.is_some() || tls.is_some()).then(EphemeralTls::new);
        if let Some(Err(error)) = &own {
            error!(%error, "connections to other workers that require TLS will fail");
        }
        Self { keys, tls, own: own.and_then(Result::ok) }
    }

    fn now(&self) -> Option<WorkerKeys> {
        self.keys.as_ref().and_then(|file| file.get().as_ref().clone())
    }

    /// The certificate of this worker.
    pub(super) fn tls(&self) -> Option<EphemeralTls> {
        self.own.clone()
    }

    /// Returns whether plain connections are refused.
    pub(super) fn requires_tls(&self) -> bool {
        let required = |file: &WatchedFile<Option<WorkerTls>>| match file.get().as_ref() {
            Some(tls) => tls.mode() == TlsMode::Required,
            None => false,
        };
        self.tls.as_ref().is_some_and(required)
    }

    fn keys(&self) -> Vec<Key> {
        self.now().map(|keys| keys.keys).unwrap_or_default()
    }

    /// Returns whether a peer without a proof is refused.
    pub(super) fn is_required(&self) -> bool {
        self.now().is_some_and(|keys| keys.is_required)
    }
}

/// Second frame of a sender that proves its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    nonce: [u8; 32],
    /// Names of the keys of the sender.
    keys: Vec<[u8; 8]>,
}

/// Reply of the receiver to an [`Offer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Challenge {
    Prove { key: [u8; 8], nonce: [u8; 32], proof: [u8; 32] },
    Refused(String),
}

/// Reply of the sender to a [`Challenge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Proof {
    proof: [u8; 32],
}

/// Failure of a greeting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetError {
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error("cannot read the peer's reply to the handshake")]
    Reply(#[source] ReadError),
    #[error("the peer's reply to the handshake cannot be decoded")]
    Unreadable(#[source] rmp_serde::decode::Error),
    #[error("the peer refused the connection: {0}")]
    Refused(String),
    #[error("the peer does not prove that it is a worker of this topology")]
    Unproved,
    #[error("the system has no random bytes: {0}")]
    NoRandom(String),
}

/// End of a connection in a proof.
#[derive(Clone, Copy)]
enum End {
    Sender,
    Receiver,
}

/// Facts that a proof is made of.
struct Facts<'a> {
    magic: [u8; 4],
    hello: &'a [u8],
    sender: &'a [u8; 32],
    receiver: &'a [u8; 32],
    /// Key material of TLS.
    binding: Option<[u8; 32]>,
}

impl Facts<'_> {
    fn parts(&self, end: End) -> Vec<&[u8]> {
        let end: &[u8] = match end {
            End::Sender => b"stormkeeper sender of tuples 1",
            End::Receiver => b"stormkeeper receiver of tuples 1",
        };
        let mut parts = vec![end, &self.magic, self.hello, self.sender, self.receiver];
        parts.extend(self.binding.as_ref().map(|binding| &binding[..]));
        parts
    }
}

fn nonce() -> Result<[u8; 32], GreetError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| GreetError::NoRandom(error.to_string()))?;
    Ok(nonce)
}

/// Greets the worker at the other end of a new connection, with a proof if one is required.
///
/// # Errors
/// [`GreetError`].
pub(crate) async fn greet(
    stream: &mut PeerStream,
    (magic, version): ([u8; 4], u16),
    hello: &Hello,
    keys: &PeerKeys,
) -> Result<(), GreetError> {
    let binding = stream.binding().map_err(GreetError::Io)?;
    let is_proved = keys.is_required() || binding.is_some();
    let keys = if is_proved { keys.keys() } else { Vec::new() };
    let offer = Offer { nonce: nonce()?, keys: keys.iter().map(Key::name).collect() };
    let (version, frame) = (if is_proved { version | PROVED } else { version }, wire::frame_of(hello));
    let (_length, hello) = frame.split_at(size_of::<u32>());
    let mut opening = [&magic[..], &version.to_be_bytes(), &frame].concat();
    if is_proved {
        opening.extend_from_slice(&wire::frame_of(&offer));
    }
    write(stream, &opening).await?;
    if is_proved {
        let (key, receiver, proof) = match read::<Challenge>(stream).await? {
            Challenge::Prove { key, nonce, proof } => (key, nonce, proof),
            Challenge::Refused(reason) => return Err(GreetError::Refused(reason)),
        };
        let key = keys.iter().find(|own| own.name() == key).ok_or(GreetError::Unproved)?;
        let facts = Facts { magic, hello, sender: &offer.nonce, receiver: &receiver, binding };
        if !key.verify(&facts.parts(End::Receiver), &proof) {
            return Err(GreetError::Unproved);
        }
        let proof = Proof { proof: key.sign(&facts.parts(End::Sender)) };
        write(stream, &wire::frame_of(&proof)).await?;
    }
    match read(stream).await? {
        HelloReply::Welcome => Ok(()),
        HelloReply::Refused(reason) => Err(GreetError::Refused(reason)),
    }
}

async fn write(stream: &mut PeerStream, bytes: &[u8]) -> Result<(), GreetError> {
    stream.write_all(bytes).await.map_err(GreetError::Io)?;
    stream.flush().await.map_err(GreetError::Io)
}

async fn read<T: serde::de::DeserializeOwned>(stream: &mut PeerStream) -> Result<T, GreetError> {
    let mut content = Vec::new();
    wire::read_frame(stream, MAX_HANDSHAKE_BYTES, &mut content).await.map_err(GreetError::Reply)?;
    wire::read_message(&content).map_err(GreetError::Unreadable)
}

/// Lets the sender of `hello` prove that it has a key of this worker's topology. Returns the reason of a
/// refusal, which the sender knows then, unless it waits for the [`HelloReply`].
///
/// # Errors
/// [`GreetError`] if the connection breaks, or the sender is refused.
pub(super) async fn demand_proof(
    stream: &mut PeerStream,
    magic: [u8; 4],
    hello: &[u8],
    keys: &PeerKeys,
) -> Result<(), GreetError> {
    let binding = stream.binding().map_err(GreetError::Io)?;
    let offer: Offer = read(stream).await?;
    let keys = keys.keys();
    let Some(key) = keys.iter().find(|own| offer.keys.contains(&own.name())) else {
        let reason = match keys.is_empty() {
            true => "this worker has no key yet; its supervisor has no storm.cluster.secret.file",
            false => "this worker has another key: the cluster secrets of both supervisors differ",
        };
        let refused = Challenge::Refused(reason.to_owned());
        write(stream, &wire::frame_of(&refused)).await?;
        return Err(GreetError::Refused(reason.to_owned()));
    };
    let own = nonce()?;
    let facts = Facts { magic, hello, sender: &offer.nonce, receiver: &own, binding };
    let proof = key.sign(&facts.parts(End::Receiver));
    let challenge = Challenge::Prove { key: key.name(), nonce: own, proof };
    write(stream, &wire::frame_of(&challenge)).await?;
    let Proof { proof } = read(stream).await?;
    match key.verify(&facts.parts(End::Sender), &proof) {
        true => Ok(()),
        false => Err(GreetError::Unproved),
    }
}
