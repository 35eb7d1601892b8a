//! Cost of a tuple: routing, encoding, sending to a task of the same worker and of another worker.
//!
//! Each group has its limit next to it, measured in the same run: a bare channel for the queue,
//! bare bytes over loopback for the connection, a typed pair for the encoding.

use std::{collections::BTreeMap, hint::black_box, net::Ipv4Addr, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stormkeeper_model::{
    ComponentId, Port, Slot, StreamId, TaskId, Timestamp,
    assignment::{AssignedWorker, Assignment},
    task_set::TaskSet,
    topology::{Component, ComponentKind, Grouping, Input, Run, StreamDeclaration, TaskTable, Topology},
};
use stormkeeper_runtime::{
    net::ListenOn,
    tasks::{OnExit, Tasks},
};
use stormkeeper_stream::{Origin, Tuple, Value, ValueWriter, grouping::Router};
use stormkeeper_worker::{
    Inbox,
    bench_support::Measuring,
    transport::{Counters, Identity, Inboxes, Listener, Peers},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{Mutex, mpsc},
};

/// Number of tuples per measured round, so that the start of a round is below a thousandth of it.
const N_TUPLES: u32 = 100_000;

/// Maximum number of tuples that a receiver takes from its queue at once.
const N_TAKEN: usize = 256;

/// Number of tuples from one batch of a component's messages.
const N_EMITTED: u32 = 64;

/// Encoded size of one `a_tuple` in a batch.
const WIRE_BYTES_PER_TUPLE: u32 = 15;

fn component(id: &str) -> ComponentId {
    id.parse().expect("a valid id")
}

fn a_tuple() -> Tuple {
    let (task, stream) = (TaskId(1), StreamId::default_stream());
    let origin = Origin { task, component: component("split"), stream };
    Tuple::new(Arc::new(origin), vec!["word".into(), Value::Int(1000)])
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// Router of `split`, which emits (word, count) to a bolt with 10 tasks.
fn router(grouping: Grouping) -> Router {
    let blank = |kind, parallelism| Component {
        kind,
        parallelism,
        run: Run::Command(vec!["true".to_owned()]),
        outputs: BTreeMap::new(),
        inputs: Vec::new(),
        settings: BTreeMap::new(),
    };
    let stream = StreamId::default_stream();
    let fields = vec!["word".to_owned(), "count".to_owned()];
    let declaration = StreamDeclaration { fields, direct: false };
    let outputs = [(stream.clone(), declaration)].into();
    let input = Input { from: component("split"), stream, grouping };
    let components = [
        (component("split"), Component { outputs, ..blank(ComponentKind::Spout, 1) }),
        (component("count"), Component { inputs: vec![input], ..blank(ComponentKind::Bolt, 10) }),
    ];
    let name = "bench".parse().expect("a valid name");
    let topology = Topology {
        name,
        settings: BTreeMap::new(),
        components: components.into(),
        program: None,
        given_at_submission: Default::default(),
    };
    let table = TaskTable::number([(component("split"), 1), (component("count"), 10)]);
    Router::new(&topology, &table, &component("split"), TaskId(1), &TaskSet::default()).expect("they fit")
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let values = ValueWriter::of(&["international".into(), Value::Int(1)]);
    let by_word = Grouping::Fields(vec!["word".to_owned()]);
    for (name, grouping) in
        [("shuffle", Grouping::Shuffle), ("fields", by_word), ("all of 10", Grouping::All)]
    {
        let mut router = router(grouping);
        let mut out = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                router.route(None, black_box(values.encoded()), None, &mut out).expect("routed");
                black_box(out.len())
            });
        });
    }
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode and decode two fields");
    group.throughput(Throughput::Elements(1));
    let mut bytes = Vec::with_capacity(64);
    let values: Vec<Value> = vec!["international".into(), Value::Int(1000)];
    group.bench_function("MessagePack", |b| {
        b.iter(|| {
            bytes.clear();
            rmp_serde::encode::write(&mut bytes, black_box(&values)).expect("written");
            rmp_serde::from_slice::<Vec<Value>>(&bytes).expect("read")
        });
    });
    let typed = ("international".to_owned(), 1000i64);
    group.bench_function("limit: MessagePack, a typed pair", |b| {
        b.iter(|| {
            bytes.clear();
            rmp_serde::encode::write(&mut bytes, black_box(&typed)).expect("written");
            rmp_serde::from_slice::<(String, i64)>(&bytes).expect("read")
        });
    });
    group.bench_function("JSON", |b| {
        b.iter(|| {
            bytes.clear();
            serde_json::to_writer(&mut bytes, black_box(&values)).expect("written");
            serde_json::from_slice::<Vec<Value>>(&bytes).expect("read")
        });
    });
}

fn identity(port: u16) -> Identity {
    let slot = Slot { supervisor: "bench".parse().expect("a valid id"), port: Port(port) };
    Identity { topology: "bench-1-1".parse().expect("a valid id"), slot }
}

fn local(c: &mut Criterion) {
    let mut group = c.benchmark_group("one task to one in the same worker");
    group.throughput(Throughput::Elements(N_TUPLES.into()));
    let runtime = runtime();
    let (inboxes, mut receivers) = runtime.block_on(async { Inboxes::new([TaskId(7)]) });
    let mut inbox = receivers.remove(&TaskId(7)).expect("asked for");
    let tasks = Tasks::default();
    let peers = Peers::new(identity(1), inboxes, Arc::new(Counters::default()), &tasks);
    let tuple = a_tuple();
    group.bench_function("outbox to inbox", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let (mut outbox, tuple) = (peers.outbox(), tuple.clone());
                tasks.start("emitter", OnExit::Ignore, async move {
                    for _ in 0..N_TUPLES {
                        outbox.send(TaskId(7), &tuple).await;
                    }
                });
                take_tuples(&mut inbox).await;
            });
        });
    });
    let (sender, mut receiver) = mpsc::channel(stormkeeper_worker::transport::INBOX_TUPLES);
    group.bench_function("limit: a bare channel of numbers", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let sender = sender.clone();
                tasks.start("emitter", OnExit::Ignore, async move {
                    for n in 0..u64::from(N_TUPLES) {
                        sender.send(n).await.expect("the receiver waits");
                    }
                });
                take(&mut receiver).await;
            });
        });
    });
}

/// Complete path between the loops of two tasks, with and without metrics.
fn measured(c: &mut Criterion) {
    let mut group = c.benchmark_group("one task to one in the same worker, by their loops");
    group.throughput(Throughput::Elements(N_TUPLES.into())).sample_size(40);
    let (runtime, tasks) = (runtime(), Tasks::default());
    let (inboxes, mut receivers) = runtime.block_on(async { Inboxes::new([TaskId(7)]) });
    let mut inbox = receivers.remove(&TaskId(7)).expect("asked for");
    let peers = Peers::new(identity(1), inboxes, Arc::new(Counters::default()), &tasks);
    let dir = tempfile::tempdir().expect("a folder");
    let measuring = Measuring::start(&identity(1), dir.path().to_owned()).expect("it begins");
    for (name, on) in [("measured", Some(&measuring)), ("not measured", None)] {
        let mut receiving = Measuring::receiving(on, component("count"), TaskId(7));
        let emitting = Arc::new(Mutex::new(Measuring::emitting(on, component("split"), TaskId(1))));
        group.bench_function(name, |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let (mut outbox, origin) = (peers.outbox(), a_tuple().origin().clone());
                    let emitting = Arc::clone(&emitting);
                    tasks.start("emitter", OnExit::Ignore, async move {
                        let mut emitting = emitting.lock().await;
                        for n in 0..N_TUPLES {
                            let values = vec!["word".into(), Value::Int(n.into())];
                            outbox.send(TaskId(7), &emitting.emit(&origin, values)).await;
                            if n % N_EMITTED == 0 {
                                emitting.settle();
                            }
                        }
                    });
                    let (mut n_taken, mut taken) = (0, Vec::with_capacity(N_TAKEN));
                    while n_taken < N_TUPLES as usize {
                        n_taken += inbox.recv_many(&mut taken, N_TAKEN).await;
                        receiving.take(&taken);
                        taken.clear();
                    }
                });
            });
        });
    }
}

async fn take_tuples(inbox: &mut Inbox) {
    let (mut n_taken, mut taken) = (0, Vec::with_capacity(N_TAKEN));
    while n_taken < N_TUPLES as usize {
        n_taken += inbox.recv_many(&mut taken, N_TAKEN).await;
        taken.clear();
    }
}

async fn take<T>(receiver: &mut mpsc::Receiver<T>) {
    let (mut n_taken, mut taken) = (0, Vec::with_capacity(N_TAKEN));
    while n_taken < N_TUPLES as usize {
        n_taken += receiver.recv_many(&mut taken, N_TAKEN).await;
        taken.clear();
    }
}

fn remote(c: &mut Criterion) {
    let mut group = c.benchmark_group("one worker to another over loopback");
    group.throughput(Throughput::Elements(N_TUPLES.into()));
    let runtime = runtime();
    let tasks = Tasks::default();
    let (peers, mut inbox) = runtime.block_on(async {
        let listener = Listener::bind(ListenOn::Address(Ipv4Addr::LOCALHOST.into()), 0).expect("a free port");
        let me = identity(listener.local_addr().expect("bound").port());
        let (inboxes, mut receivers) = Inboxes::new([TaskId(7)]);
        let inbox = receivers.remove(&TaskId(7)).expect("asked for");
        let slot = me.slot.clone();
        tasks.start("listener", OnExit::Ignore, listener.run(me, inboxes, Arc::new(Counters::default())));
        let mut peers = Peers::new(identity(1), Inboxes::default(), Arc::new(Counters::default()), &tasks);
        let worker = AssignedWorker {
            host: "127.0.0.1".to_owned(),
            tasks: TaskSet::range(7, 7),
            start: Timestamp::EPOCH,
        };
        let table = TaskTable([(component("count"), TaskSet::range(7, 7))].into());
        peers.update(
            &Assignment { workers: [(slot, worker)].into(), unknown_fields: Default::default() },
            &table,
        );
        (peers, inbox)
    });
    let tuple = a_tuple();
    group.bench_function("outbox to inbox", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let (mut outbox, origin) = (peers.outbox(), tuple.origin().clone());
                tasks.start("emitter", OnExit::Ignore, async move {
                    // A new tuple each time: copies of one tuple would share their encoded values.
                    for n in 0..N_TUPLES {
                        let values = vec!["word".into(), Value::Int(n.into())];
                        outbox.send(TaskId(7), &Tuple::new(origin.clone(), values)).await;
                    }
                });
                take_tuples(&mut inbox).await;
            });
        });
    });
    let (mut here, mut there) = runtime.block_on(bare_connection());
    let bytes = vec![0u8; (WIRE_BYTES_PER_TUPLE * N_TUPLES) as usize];
    group.bench_function("limit: as many bare bytes", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let mut received = vec![0u8; bytes.len()];
                let (sent, read) = tokio::join!(here.write_all(&bytes), there.read_exact(&mut received));
                sent.expect("sent");
                read.expect("received")
            });
        });
    });
    runtime.block_on(tasks.stop(Duration::from_secs(5)));
}

async fn bare_connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
    (here.expect("connected"), there.expect("accepted").0)
}

criterion_group!(benches, route, encode, local, measured, remote);
criterion_main!(benches);
