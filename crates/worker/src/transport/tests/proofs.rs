//! Greetings of workers that prove that they have the key of their topology.

use std::path::Path;

use super::*;
use crate::transport::{PeerKeys, PeerStream, greet, wire::Hello};
use stormkeeper_access::{
    file::{WatchedFile, create_secret},
    secret::{Secrets, WorkerKeys},
};

const OLD: &str = "an-old-secret-of-thirty-two-bytes";
const NEW: &str = "a-newer-secret-of-thirty-two-bytes";

/// The file with the keys of a worker.
pub(super) struct KeyFile {
    dir: tempfile::TempDir,
    pub(super) file: WatchedFile<Option<WorkerKeys>>,
}

/// Returns the keys of the workers of a topology.
pub(super) fn keys(secrets: &[&str], id: &str, is_required: bool) -> WorkerKeys {
    let secrets = Secrets::parse(Path::new("secret"), &secrets.join("\n")).expect("valid");
    WorkerKeys { keys: secrets.worker_keys(&topology(id)), is_required }
}

impl KeyFile {
    pub(super) fn new(keys: Option<WorkerKeys>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(WorkerKeys::FILE);
        if let Some(keys) = keys {
            create_secret(&path, &keys.text()).expect("written");
        }
        let file = WatchedFile::open(&path, WorkerKeys::read).expect("valid");
        Self { dir, file }
    }

    fn required(secrets: &[&str]) -> Self {
        Self::new(Some(keys(secrets, "t-1-1", true)))
    }

    fn keys(&self) -> PeerKeys {
        PeerKeys::new(Some(self.file.clone()), None)
    }

    /// Replaces the keys in the running worker.
    fn replace(&self, keys: &WorkerKeys) {
        let path = self.dir.path().join(WorkerKeys::FILE);
        let _removed = std::fs::remove_file(&path);
        create_secret(&path, &keys.text()).expect("written");
        self.file.refresh();
    }

    /// Starts a worker with task 7 that has these keys.
    fn worker(&self) -> Worker {
        Worker::start_with(0, at, |listener| listener.with_keys(self.keys()))
    }

    /// Starts an emitter that sends to task 7 at `there`.
    fn emitter(&self, there: &Worker) -> Emitter {
        let mut emitter = Emitter::start(Inboxes::default());
        emitter.peers = emitter.peers.with_keys(self.keys());
        emitter.peers.update(&assignment(&[(&there.me, &[7])]), &table());
        emitter
    }
}

async fn send(emitter: &Emitter, n: i64) {
    emitter.peers.outbox().send(TaskId(7), &tuple(n)).await;
}

/// Asserts that tuples of a sender with `from` do not arrive at a receiver with `to`.
async fn expect_refused(from: &KeyFile, to: &KeyFile) {
    let mut there = to.worker();
    let emitter = from.emitter(&there);
    send(&emitter, 1).await;
    until_counts(&there.counters, "it is refused twice", |counts| counts.refused_connections >= 2).await;
    assert_eq!(there.inbox.try_recv(), None);
    assert_eq!(emitter.counters.read().sent, 0);
}

#[tokio::test]
async fn workers_with_a_common_key_exchange_tuples() {
    for (from, to) in [
        (KeyFile::required(&[OLD]), KeyFile::required(&[OLD])),
        (KeyFile::required(&[NEW, OLD]), KeyFile::required(&[OLD])),
        (KeyFile::required(&[OLD]), KeyFile::required(&[NEW, OLD])),
        // The steps from open to locked: no key, then keys that are not required, then required ones.
        (KeyFile::new(None), KeyFile::new(None)),
        (KeyFile::new(None), KeyFile::new(Some(keys(&[OLD], "t-1-1", false)))),
        (KeyFile::new(Some(keys(&[OLD], "t-1-1", false))), KeyFile::new(None)),
        (KeyFile::required(&[OLD]), KeyFile::new(Some(keys(&[OLD], "t-1-1", false)))),
    ] {
        let mut there = to.worker();
        let emitter = from.emitter(&there);
        send(&emitter, 1).await;
        assert_eq!(there.next().await, 1);
    }
}

#[tokio::test]
async fn sender_without_a_key_or_with_the_key_of_another_topology_is_refused() {
    let locked = KeyFile::required(&[OLD]);
    expect_refused(&KeyFile::new(None), &locked).await;
    expect_refused(&KeyFile::new(Some(keys(&[OLD], "t-2-9", true))), &locked).await;
    expect_refused(&KeyFile::required(&[NEW]), &locked).await;
    // A receiver that has no key cannot show one.
    expect_refused(&locked, &KeyFile::new(None)).await;
}

#[tokio::test]
async fn worker_accepts_proofs_as_soon_as_it_has_keys() {
    let (from, to) = (KeyFile::required(&[OLD]), KeyFile::new(None));
    let mut there = to.worker();
    let emitter = from.emitter(&there);
    send(&emitter, 1).await;
    until_counts(&there.counters, "it is refused", |counts| counts.refused_connections >= 1).await;
    to.replace(&keys(&[OLD], "t-1-1", true));
    assert_eq!(there.next().await, 1);
}

#[tokio::test]
async fn recorded_greeting_proves_nothing() {
    let locked = KeyFile::required(&[OLD]);
    let there = locked.worker();
    let hello = Hello { topology: topology("t-1-1"), to: there.me.slot.clone(), from: at(2).slot };
    // Records what a worker sends to a port between it and the receiver.
    let between = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = between.local_addr().expect("bound");
    let (keys, greeting) = (locked.keys(), hello.clone());
    let tasks = Tasks::default();
    tasks.start("worker", OnExit::Ignore, async move {
        let mut stream = PeerStream::Plain(TcpStream::connect(address).await.expect("connected"));
        let _ended = greet(&mut stream, (wire::MAGIC, wire::VERSION), &greeting, &keys).await;
    });
    let (mut victim, _) = between.accept().await.expect("accepted");
    let mut real = there.connect().await;
    let relay = async |from: &mut TcpStream, to: &mut TcpStream, n_frames: usize, head: usize| {
        let mut bytes = vec![0; head];
        from.read_exact(&mut bytes).await.expect("a head");
        for _ in 0..n_frames {
            let length = from.read_u32().await.expect("a length");
            let at = bytes.len() + 4;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.resize(at + length as usize, 0);
            from.read_exact(&mut bytes[at..]).await.expect("a frame");
        }
        to.write_all(&bytes).await.expect("written");
        bytes
    };
    let opening = relay(&mut victim, &mut real, 2, 6).await;
    relay(&mut real, &mut victim, 1, 0).await;
    let proof = relay(&mut victim, &mut real, 1, 0).await;
    let welcome = relay(&mut real, &mut victim, 1, 0).await;
    assert_eq!(welcome, wire::frame_of(&HelloReply::Welcome), "the true greeting succeeds");

    let mut replayed = there.connect().await;
    replayed.write_all(&[opening, proof].concat()).await.expect("written");
    until_counts(&there.counters, "the replay is refused", |counts| counts.refused_connections == 1).await;
}

/// Frames of a greeting, as a thief knows them.
#[derive(serde::Deserialize)]
struct Offer {
    _nonce: [u8; 32],
    keys: Vec<[u8; 8]>,
}

#[derive(serde::Serialize)]
enum Challenge {
    Prove { key: [u8; 8], nonce: [u8; 32], proof: [u8; 32] },
}

#[tokio::test]
async fn process_that_took_the_port_of_a_worker_gets_no_tuple() {
    let locked = KeyFile::required(&[OLD]);
    let thief = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let there_at = at(thief.local_addr().expect("bound").port());
    let mut emitter = Emitter::start(Inboxes::default());
    emitter.peers = emitter.peers.with_keys(locked.keys());
    emitter.peers.update(&assignment(&[(&there_at, &[7])]), &table());
    send(&emitter, 1).await;
    for forges in [false, true] {
        let (mut stream, _) = thief.accept().await.expect("accepted");
        let (mut head, mut content) = ([0; 6], Vec::new());
        stream.read_exact(&mut head).await.expect("a head");
        for _ in ["hello", "offer"] {
            wire::read_frame(&mut stream, wire::MAX_HANDSHAKE_BYTES, &mut content).await.expect("a frame");
        }
        let offer: Offer = wire::read_message(&content).expect("readable");
        if forges {
            // The name of the key is no secret.
            let challenge = Challenge::Prove { key: offer.keys[0], nonce: [1; 32], proof: [2; 32] };
            stream.write_all(&wire::frame_of(&challenge)).await.expect("written");
        }
        // It welcomes everybody. The sender may have closed the connection by now.
        let _closed = stream.write_all(&wire::frame_of(&HelloReply::Welcome)).await;
        let mut received = Vec::new();
        // A connection that is reset has no further bytes either.
        let _end = tokio::time::timeout(WAIT_MAX, stream.read_to_end(&mut received)).await.expect("closed");
        assert_eq!(received, [0_u8; 0], "neither a proof nor a tuple, forged: {forges}");
    }
    assert_eq!(emitter.counters.read().sent, 0);
}
