//! Connections of workers over TLS.

use std::path::{Path, PathBuf};

use tokio::io::copy_bidirectional;

use super::{
    proofs::{KeyFile, keys},
    *,
};
use crate::transport::{PeerKeys, PeerStream, greet, wire::Hello};
use stormkeeper_access::{
    file::{WatchedFile, replace_secret},
    secret::WorkerKeys,
    tls::{TlsMode, test_support::Authority, worker::WorkerTls},
};

const SECRET: &str = "a-secret-of-at-least-32-characters";

/// Files of a worker with keys and TLS.
struct Files {
    keys: KeyFile,
    dir: tempfile::TempDir,
    tls: WatchedFile<Option<WorkerTls>>,
}

fn tls_file(dir: &Path) -> PathBuf {
    dir.join(WorkerTls::FILE)
}

impl Files {
    fn new(keys: Option<WorkerKeys>, mode: Option<TlsMode>) -> Self {
        let (keys, dir) = (KeyFile::new(keys), tempfile::tempdir().expect("a directory"));
        let file = tls_file(dir.path());
        let tls = WatchedFile::open(&file, WorkerTls::read).expect("not there");
        let files = Self { keys, dir, tls };
        if let Some(mode) = mode {
            files.change(mode);
        }
        files
    }

    fn with(mode: TlsMode) -> Self {
        Self::new(Some(keys(&[SECRET], "t-1-1", false)), Some(mode))
    }

    /// Writes another mode into the directory of the running worker.
    fn change(&self, mode: TlsMode) {
        let ca = self.dir.path().join("ca");
        Authority::new().write(&ca);
        let authorities = std::fs::read_to_string(ca).expect("written");
        replace_secret(&tls_file(self.dir.path()), &format!("{mode}\n{authorities}")).expect("written");
        self.tls.refresh();
    }

    fn keys(&self) -> PeerKeys {
        PeerKeys::new(Some(self.keys.file.clone()), Some(self.tls.clone()))
    }

    fn worker(&self) -> Worker {
        Worker::start_with(0, at, |listener| listener.with_keys(self.keys()))
    }

    fn emitter(&self, there: &Identity) -> Emitter {
        let mut emitter = Emitter::start(Inboxes::default());
        emitter.peers = emitter.peers.with_keys(self.keys());
        emitter.peers.update(&assignment(&[(there, &[7])]), &table());
        emitter
    }
}

async fn send(emitter: &Emitter, n: i64) {
    emitter.peers.outbox().send(TaskId(7), &tuple(n)).await;
}

/// A port between a worker and its peer, which records what the worker sends.
struct Wire {
    address: Identity,
    recorded: Arc<std::sync::Mutex<Vec<u8>>>,
    _tasks: Tasks,
}

impl Wire {
    async fn to(there: &Worker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (target, tasks) = (there.me.slot.port.0, Tasks::default());
        let recorded = Arc::<std::sync::Mutex<Vec<u8>>>::default();
        let copy = Arc::clone(&recorded);
        tasks.start("wire", OnExit::Ignore, async move {
            loop {
                let (mut from, _) = listener.accept().await.expect("accepted");
                let mut to = TcpStream::connect(("127.0.0.1", target)).await.expect("it listens");
                let mut first = vec![0; 64 << 10];
                let n = from.read(&mut first).await.expect("read");
                copy.lock().expect("not poisoned").extend_from_slice(&first[..n]);
                to.write_all(&first[..n]).await.expect("written");
                let (mut read, mut write) = to.split();
                let (mut from_read, mut from_write) = from.split();
                let there = async {
                    loop {
                        let n = from_read.read(&mut first).await.unwrap_or(0);
                        if n == 0 || write.write_all(&first[..n]).await.is_err() {
                            return;
                        }
                        copy.lock().expect("not poisoned").extend_from_slice(&first[..n]);
                    }
                };
                let back = async {
                    let _end = tokio::io::copy(&mut read, &mut from_write).await;
                };
                tokio::select! { () = there => {}, () = back => {} }
            }
        });
        Self { address: at(port), recorded, _tasks: tasks }
    }

    fn contains(&self, text: &str) -> bool {
        let recorded = self.recorded.lock().expect("not poisoned");
        recorded.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

#[tokio::test]
async fn tuples_over_tls_cannot_be_read_between_the_workers_and_plain_ones_can() {
    for (mode, is_readable) in [(TlsMode::Optional, true), (TlsMode::Required, false)] {
        let files = Files::with(mode);
        // The receiver is addressed as the worker at the port in between.
        let mut there = None;
        let listener = Listener::bind(LOOPBACK, 0).expect("a free port");
        let real = listener.local_addr().expect("bound").port();
        let (inboxes, mut receivers) = Inboxes::new([TaskId(7)]);
        let (counters, tasks) = (Arc::new(Counters::default()), Tasks::default());
        let inbox = receivers.remove(&TaskId(7)).expect("asked for");
        let target = Worker { me: at(real), inbox, counters: Arc::clone(&counters), tasks };
        let wire = Wire::to(&target).await;
        let run = listener.with_keys(files.keys()).run(wire.address.clone(), inboxes, counters);
        target.tasks.start("listener", OnExit::Ignore, run);
        let emitter = files.emitter(&wire.address);
        send(&emitter, 1).await;
        let target = there.insert(target);
        assert_eq!(target.next().await, 1);
        assert_eq!(wire.contains("source"), is_readable, "{mode}");
    }
}

#[tokio::test]
async fn man_in_the_middle_who_speaks_tls_to_both_ends_is_refused() {
    let files = Files::with(TlsMode::Required);
    let there = files.worker();
    let middle = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = middle.local_addr().expect("bound").port();
    let (victim_keys, hello) =
        (files.keys(), Hello { topology: topology("t-1-1"), to: there.me.slot.clone(), from: at(2).slot });
    let tasks = Tasks::default();
    let (ended, end) = tokio::sync::oneshot::channel();
    tasks.start("victim", OnExit::Ignore, async move {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        let mut stream = PeerStream::connect(stream, &victim_keys).await.expect("any certificate will do");
        let _kept = ended.send(greet(&mut stream, (wire::MAGIC, wire::VERSION), &hello, &victim_keys).await);
    });
    // It has no key, and passes on what both say to each other, each over TLS of its own.
    let stranger = Files::with(TlsMode::Required).keys();
    let (victim, _) = middle.accept().await.expect("accepted");
    let mut victim = PeerStream::accept(victim, &stranger).await.expect("accepted");
    let mut real = PeerStream::connect(there.connect().await, &stranger).await.expect("accepted");
    assert!(matches!((&victim, &real), (PeerStream::Tls(_), PeerStream::Tls(_))));
    tasks.start("middle", OnExit::Ignore, async move {
        // It ends with an error when one of them hangs up.
        let _passed = copy_bidirectional(&mut victim, &mut real).await;
    });
    let refused = end.await.expect("it ends").expect_err("refused");
    assert!(refused.to_string().contains("does not prove"), "{refused}");
}

#[tokio::test]
async fn worker_that_requires_tls_refuses_a_plain_one_and_takes_it_once_it_follows() {
    let (from, to) = (Files::with(TlsMode::Optional), Files::with(TlsMode::Required));
    let mut there = to.worker();
    let emitter = from.emitter(&there.me);
    send(&emitter, 1).await;
    until_counts(&there.counters, "it is refused", |counts| counts.refused_connections >= 1).await;
    assert_eq!(there.inbox.try_recv(), None);
    from.change(TlsMode::Required);
    assert_eq!(there.next().await, 1);
}

#[tokio::test]
async fn worker_takes_tls_before_its_supervisor_requires_it() {
    for mode in [None, Some(TlsMode::Off), Some(TlsMode::Optional)] {
        let to = Files::new(Some(keys(&[SECRET], "t-1-1", false)), mode);
        let mut there = to.worker();
        let emitter = Files::with(TlsMode::Required).emitter(&there.me);
        send(&emitter, 1).await;
        assert_eq!(there.next().await, 1);
    }
}

#[tokio::test]
async fn sender_over_tls_without_the_key_of_the_topology_is_refused_even_where_proofs_are_optional() {
    let there = Files::with(TlsMode::Required).worker();
    for other in [None, Some(keys(&[SECRET], "t-2-9", true))] {
        let before = there.counters.read().refused_connections;
        let emitter = Files::new(other, Some(TlsMode::Required)).emitter(&there.me);
        send(&emitter, 1).await;
        until_counts(&there.counters, "it is refused", |counts| counts.refused_connections > before).await;
        assert_eq!(emitter.counters.read().sent, 0);
    }
}
