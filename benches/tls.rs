//! Cost of TLS between two workers: the same tuples over a plain connection and over TLS, in turn, so that
//! whatever else the machine does meets both alike.
//!
//! Both workers run in this process. The time of the processor is that of both ends. The floors are
//! the cipher alone, which is encrypting and decrypting as many bytes of text in records of TLS's
//! maximum size, and the copies that the TLS library makes.

#![expect(clippy::print_stdout, reason = "its output is for a terminal")]

use std::{
    hint::black_box,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::aead::{AES_128_GCM, Aad, RandomizedNonceKey};
use rustix::time::{ClockId, clock_gettime};
use stormkeeper_model::{
    Port, Slot, StreamId, TaskId, Timestamp,
    assignment::{AssignedWorker, Assignment},
    task_set::TaskSet,
    topology::TaskTable,
};
use stormkeeper_runtime::{
    net::ListenOn,
    tasks::{OnExit, Tasks},
};
use stormkeeper_stream::{Origin, Tuple, Value};
use stormkeeper_worker::{
    Inbox,
    transport::{Counters, Identity, Inboxes, Listener, Peers, bench_support::Encryption},
};

/// Rounds of each kind.
const ROUNDS: usize = 21;

/// Bytes of text in a tuple, and the number of tuples in a round.
const PAYLOADS: [(usize, u32); 3] = [(4, 400_000), (100, 200_000), (1024, 60_000)];

/// Bytes of a full record of TLS, and the number of records of a round that measures the cipher.
const RECORD: (usize, u32) = (16 << 10, 4_000);

/// Number of copies of each byte by the TLS library: into a record, into the buffer of received records, and
/// out of it.
const N_COPIES: u32 = 3;

/// Records that are copied in turn: more than the fastest cache of a processor holds.
const N_BUFFERED: u32 = 16;

/// Maximum number of tuples that a receiver takes from its queue at once.
const N_TAKEN: usize = 256;

/// Duration of a round, and time of the processor.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    processor: Duration,
}

struct Connection {
    peers: Peers,
    inbox: Inbox,
}

fn identity(port: u16) -> Identity {
    let slot = Slot { supervisor: "bench".parse().expect("a valid id"), port: Port(port) };
    Identity { topology: "bench-1-1".parse().expect("a valid id"), slot }
}

impl Connection {
    fn open(encryption: Option<&Encryption>, tasks: &Tasks) -> Self {
        let listener = Listener::bind(ListenOn::Address(Ipv4Addr::LOCALHOST.into()), 0).expect("a free port");
        let me = identity(listener.local_addr().expect("bound").port());
        let (inboxes, mut receivers) = Inboxes::new([TaskId(7)]);
        let inbox = receivers.remove(&TaskId(7)).expect("asked for");
        let peers = Peers::new(identity(1), Inboxes::default(), Arc::new(Counters::default()), tasks);
        let (listener, mut peers) = match encryption {
            Some(encryption) => (encryption.of_listener(listener), encryption.of_peers(peers)),
            None => (listener, peers),
        };
        let worker = AssignedWorker {
            host: "127.0.0.1".to_owned(),
            tasks: TaskSet::range(7, 7),
            start: Timestamp::EPOCH,
        };
        let workers = [(me.slot.clone(), worker)].into();
        tasks.start("listener", OnExit::Ignore, listener.run(me, inboxes, Arc::new(Counters::default())));
        let table = TaskTable([("count".parse().expect("a valid id"), TaskSet::range(7, 7))].into());
        peers.update(&Assignment { workers, unknown_fields: Default::default() }, &table);
        Self { peers, inbox }
    }

    async fn round(&mut self, tasks: &Tasks, (text, n_tuples): (&str, u32)) -> Cost {
        let (begin, processor) = (now(), processor_time());
        let mut outbox = self.peers.outbox();
        let text = Value::from(text);
        let origin = Origin {
            task: TaskId(1),
            component: "split".parse().expect("a valid id"),
            stream: StreamId::default_stream(),
        };
        tasks.start("emitter", OnExit::Ignore, async move {
            let origin = Arc::new(origin);
            for n in 0..n_tuples {
                let values = vec![text.clone(), Value::Int(n.into())];
                outbox.send(TaskId(7), &Tuple::new(Arc::clone(&origin), values)).await;
            }
        });
        let (mut n_taken, mut taken) = (0, Vec::with_capacity(N_TAKEN));
        while n_taken < n_tuples as usize {
            n_taken += self.inbox.recv_many(&mut taken, N_TAKEN).await;
            taken.clear();
        }
        Cost { wall: begin.elapsed(), processor: processor_time() - processor }
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

/// Time that the processor takes to encrypt and to decrypt one byte.
fn cipher() -> f64 {
    let key = RandomizedNonceKey::new(&AES_128_GCM, &[7; 16]).expect("a valid key");
    let mut record = vec![b'x'; RECORD.0];
    let mut round = || {
        let begin = processor_time();
        for _ in 0..RECORD.1 {
            let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut record).expect("encrypted");
            key.open_in_place(nonce, Aad::empty(), &mut record).expect("decrypted");
            record.truncate(RECORD.0);
        }
        processor_time() - begin
    };
    let time = median((0..ROUNDS).map(|_| round()).collect());
    time.as_secs_f64() * 1e9 / f64::from(RECORD.1) / RECORD.0 as f64
}

/// Time that the processor takes to copy one byte, in records that are allocated for it.
fn copy() -> f64 {
    let records = vec![vec![b'x'; RECORD.0]; N_BUFFERED as usize];
    let round = || {
        let begin = processor_time();
        for _ in 0..RECORD.1 / N_BUFFERED {
            for record in &records {
                black_box(black_box(record).to_vec());
            }
        }
        processor_time() - begin
    };
    let time = median((0..ROUNDS).map(|_| round()).collect());
    time.as_secs_f64() * 1e9 / f64::from(RECORD.1) / RECORD.0 as f64
}

fn main() {
    let (cipher, copies) = (cipher(), copy() * f64::from(N_COPIES));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (tasks, dir) = (Tasks::default(), tempfile::tempdir().expect("a folder"));
    let encryption = Encryption::new(dir.path());
    for (bytes, n_tuples) in PAYLOADS {
        let text = "x".repeat(bytes);
        let (plain, tls) = runtime.block_on(async {
            let mut plain = Connection::open(None, &tasks);
            let mut tls = Connection::open(Some(&encryption), &tasks);
            let (mut of_plain, mut of_tls) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                of_plain.push(plain.round(&tasks, (&text, n_tuples)).await);
                of_tls.push(tls.round(&tasks, (&text, n_tuples)).await);
            }
            (of_plain, of_tls)
        });
        let of = |costs: &[Cost], pick: fn(&Cost) -> Duration| median(costs.iter().map(pick).collect());
        let walls = [&plain, &tls].map(|costs| of(costs, |cost| cost.wall));
        let processors = [&plain, &tls].map(|costs| of(costs, |cost| cost.processor));
        let rates = walls.map(|wall| f64::from(n_tuples) / wall.as_secs_f64());
        let each = processors.map(|time| time.as_secs_f64() * 1e9 / f64::from(n_tuples));
        println!(
            "{bytes:5} bytes of text: plain {:9.0} tuples/s, TLS {:9.0} tuples/s ({:+.1} %); processor {:5.0} and {:5.0} \
             ns for a tuple ({:+.1} %), with the cipher alone {:+.1} %, with copies {:+.1} %",
            rates[0],
            rates[1],
            (rates[1] / rates[0] - 1.0) * 100.0,
            each[0],
            each[1],
            (each[1] / each[0] - 1.0) * 100.0,
            cipher * bytes as f64 / each[0] * 100.0,
            (cipher + copies) * bytes as f64 / each[0] * 100.0,
        );
    }
    runtime.block_on(tasks.stop(Duration::from_secs(5)));
}
