//! Whole workers with real children, and a leader that adds up what they bring.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use serde_json::json;

use crate::{
    clock::Clock,
    cluster::{layout, record, store::Store},
    daemon::tasks::{Ending, Tasks},
    metrics::{Contribution, MetricId, Point},
    model::{Term, WorkerId, beat::TaskCounts},
    rpc::{
        cuts::{self, Standing, remains},
        delivery::{Added, Brought, Delivery, bring},
        metrics::{ContributeAnswer, Position, RegisterAnswer, RegisterRequest, Registered, StoredCut},
        metrics_client::MetricsClient,
    },
    test_support::wait_until,
    worker::tests::{COUNT, SENTENCES, SPLIT, Stage, bolt, spout},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the leader has.
#[derive(Debug, Default)]
struct Archive {
    names: BTreeMap<MetricId, String>,
    last: BTreeMap<WorkerId, u64>,
    points: BTreeMap<MetricId, Point>,
    seq: u64,
}

type Shared = Arc<Mutex<Archive>>;

impl Archive {
    fn contribute(&mut self, contribution: Contribution) -> ContributeAnswer {
        let unknown = contribution.points.iter().filter(|(id, _)| !self.names.contains_key(id));
        let ids: Vec<_> = unknown.map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            return ContributeAnswer::Unregistered { ids };
        }
        let last_of = |worker: &WorkerId| self.last.get(worker).copied().unwrap_or(0);
        let is_new = contribution.cuts.iter().any(|cuts| cuts.last > last_of(&cuts.worker));
        if is_new && contribution.cuts.iter().any(|cuts| cuts.first <= last_of(&cuts.worker)) {
            let stored =
                self.last.iter().map(|(worker, last)| StoredCut { worker: worker.clone(), last: *last });
            return ContributeAnswer::Overlaps { stored: stored.collect() };
        }
        if is_new {
            self.seq += 1;
            for cuts in contribution.cuts {
                assert_eq!(cuts.first, self.last.get(&cuts.worker).copied().unwrap_or(0) + 1, "no gaps");
                self.last.insert(cuts.worker, cuts.last);
            }
            for (id, point) in contribution.points {
                match self.points.get_mut(&id) {
                    Some(known) => assert!(known.merge(&point)),
                    None => drop(self.points.insert(id, point)),
                }
            }
        }
        let at = Position { term: 1, seq: self.seq };
        ContributeAnswer::Stored { at, safe: at }
    }

    /// The point of the metric of this name, on the topology's level.
    fn point(&self, name: &str) -> Option<&Point> {
        let is_it =
            |full: &&String| full.starts_with("5@") && full.contains("@t-1-100@") && full.ends_with(name);
        let (id, _) = self.names.iter().find(|(_, full)| is_it(full))?;
        self.points.get(id)
    }

    fn count(&self, name: &str) -> u64 {
        match self.point(name) {
            Some(Point::Counter(counter)) => counter.count,
            Some(Point::Meter(meter)) => meter.count,
            Some(Point::Histogram(histogram)) => histogram.count,
            Some(Point::Timer(timer)) => timer.histogram.count,
            Some(Point::Gauge(_)) | None => 0,
        }
    }

    fn totals(&self) -> [u64; 5] {
        ["Emitted", "Transferred", "Executed", "Acked", "Failed"]
            .map(|name| self.count(&format!("@sys@{name}")))
    }
}

async fn leader(stage: &Stage) -> Shared {
    let archive = Shared::default();
    let routes = Router::new()
        .route(
            "/api/v1/metrics/register",
            post(async |State(archive): State<Shared>, body: Bytes| {
                let request: RegisterRequest = rmp_serde::from_slice(&body).expect("a request");
                let mut archive = archive.lock().expect("unpoisoned");
                let claims = request.claims.into_iter().map(|claim| {
                    archive.names.insert(claim.id, claim.name);
                    Registered::As(claim.id)
                });
                rmp_serde::to_vec(&RegisterAnswer { claims: claims.collect() }).expect("plain values")
            }),
        )
        .route(
            "/api/v1/metrics/contribute",
            post(async |State(archive): State<Shared>, body: Bytes| {
                let contribution = rmp_serde::from_slice(&body).expect("a contribution");
                let answer = archive.lock().expect("unpoisoned").contribute(contribution);
                rmp_serde::to_vec(&answer).expect("plain values")
            }),
        )
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(archive.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let api = listener.local_addr().expect("bound").to_string();
    let leader = record::Leader { nimbus: "n".parse().expect("valid"), api, term: Term(1) };
    let tasks = Tasks::default();
    tasks.start("nimbus", Ending::Normal, async move {
        axum::serve(listener, routes).await.expect("served");
    });
    // It serves for as long as the test runs.
    std::mem::forget(tasks);
    stage.create(&layout::leader(), record::encode(&leader)).await;
    archive
}

async fn totals_become(archive: &Shared, expected: [u64; 5]) {
    wait_until("the leader has every count", PATIENCE, || async {
        let totals = archive.lock().expect("unpoisoned").totals();
        if totals == expected { Ok(()) } else { Err(format!("{totals:?}")) }
    })
    .await;
}

/// Three words in each of 200 sentences, on two workers that report often.
async fn words() -> Stage {
    let shuffle = json!({ "type": "shuffle" });
    let mut split = bolt(&["python3", "split.py"], 2, "sentences", shuffle);
    split["outputs"] = json!({ "default": { "fields": ["word"] } });
    let by_word = json!({ "type": "fields", "fields": ["word"] });
    let components = json!({
        "sentences": spout(&["python3", "sentences.py"], &["sentence"]),
        "split": split,
        "count": bolt(&["python3", "count.py"], 2, "split", by_word),
    });
    let mut stage = Stage::new(json!({}), components, 2).await;
    stage.options.metrics = Some(Duration::from_millis(300));
    stage.write_resource("sentences.py", SENTENCES);
    stage.write_resource("split.py", SPLIT);
    stage.write_resource("count.py", COUNT);
    stage
}

/// Emitted, transferred, executed, acked, failed of `words`.
const WORDS: [u64; 5] = [800, 800, 800, 1000, 0];

/// What a supervisor does when its worker is gone.
async fn bring_what_is_left(stage: &Stage, worker_dir: &Path) {
    wait_until("the worker is gone", PATIENCE, || async {
        match cuts::look(worker_dir).map_err(|error| error.to_string())? {
            Standing::Left(..) => Ok(()),
            other @ (Standing::Live | Standing::Done) => Err(format!("{other:?}")),
        }
    })
    .await;
    let Standing::Left(taken, launch) = cuts::look(worker_dir).expect("readable") else {
        panic!("it is gone")
    };
    let remains = remains::read(&taken.dir, &launch).expect("readable");
    assert_eq!(remains.problems, Vec::<String>::new());
    let mut delivery = Delivery::new(launch.topology);
    delivery.learn(&launch.worker, &remains.names.into_iter().collect::<Vec<_>>());
    for cut in remains.cuts {
        assert_eq!(delivery.add(cut), Added::Taken);
    }
    let client = MetricsClient::new(Store::new(stage.server.connect())).expect("made");
    assert_eq!(bring(&mut delivery, &client, &Clock::new()).await, Brought::All);
    assert!(delivery.is_empty());
    cuts::finish(&taken).expect("finished");
    assert!(matches!(cuts::look(worker_dir).expect("readable"), Standing::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_has_what_the_workers_counted_and_not_twice() {
    let stage = words().await;
    let archive = leader(&stage).await;
    let workers = stage.start();
    stage.lines("words", 600).await;
    totals_become(&archive, WORDS).await;
    for name in ["@sys@ProcessLatency", "@sys@TupleLifeCycle", "@sys@RecvTps"] {
        assert_eq!(archive.lock().expect("unpoisoned").count(name), 800, "{name}");
    }
    for name in ["@sys@ExecutorTime", "@sys@SerializeTime", "@netty@NettyCliSendBatchSize"] {
        assert!(archive.lock().expect("unpoisoned").count(name) > 0, "{name}");
    }
    for name in ["@sys@MemoryUsed", "@sys@CpuUsedRatio", "@sys@ExecutorQueue", "@sys@Capacity"] {
        assert!(archive.lock().expect("unpoisoned").point(name).is_some(), "{name}");
    }
    for worker in workers {
        worker.stop().await;
    }
    for n in 0..2 {
        bring_what_is_left(&stage, &stage.dir.path().join(format!("w{n}"))).await;
    }
    totals_become(&archive, WORDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_workers_counted_that_died_without_a_leader_is_brought_by_their_supervisors() {
    let stage = words().await;
    let workers = stage.start();
    let counted = TaskCounts { executed: 600, acked: 600, ..TaskCounts::default() };
    stage.counts_become("count", counted).await;
    // As a kill does: nothing of them runs on, nobody says farewell.
    assert!(stage.tasks.stop(PATIENCE).await);
    drop(workers);
    let archive = leader(&stage).await;
    for n in 0..2 {
        bring_what_is_left(&stage, &stage.dir.path().join(format!("w{n}"))).await;
    }
    assert_eq!(archive.lock().expect("unpoisoned").totals(), WORDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn components_measure_too_and_nonsense_is_an_error_of_the_task() {
    let components = json!({ "numbers": spout(&["python3", "numbers.py"], &["n"]) });
    let mut stage = Stage::new(json!({}), components, 1).await;
    stage.options.metrics = Some(Duration::from_millis(300));
    stage.write_resource(
        "numbers.py",
        "from stormkeeper import Spout
class Numbers(Spout):
    n = 0
    def next_tuple(self):
        if self.n < 10:
            self.n += 1
            self.metric('calls', 2)
            self.metric('sizes', {'histogram': [1, 2.5]})
            self.metric('sizes', {'sum': 1})
            self.emit([self.n])
Numbers().run()
",
    );
    let archive = leader(&stage).await;
    let _workers = stage.start();
    stage.error("numbers", "\"sum\" is no kind of metric").await;
    totals_become(&archive, [10, 0, 0, 0, 0]).await;
    let archive = archive.lock().expect("unpoisoned");
    assert_eq!((archive.count("@udf@calls"), archive.count("@udf@sizes")), (20, 20));
}
