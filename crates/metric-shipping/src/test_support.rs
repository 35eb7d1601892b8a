//! Leader for tests of metric senders: ingests each report once, and adds up the points.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{Router, body::Bytes, extract::State, routing::post};

use crate::spool::{Launch, SpooledReport};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, Leader},
    },
    tree::{CreateMode, Tree},
};
use stormkeeper_metrics::{
    Leaf, MetricBatch, MetricId, MetricName, MetricReport, Minute, Point,
    point::Counter,
    protocol::{IngestResponse, IngestedUpTo, RegisterRequest, RegisterResponse, Registered},
};
use stormkeeper_model::{LogPosition, Term, WorkerId};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// A leader that serves until it is dropped.
#[derive(Debug)]
pub struct TestLeader {
    has: Shared,
    _tasks: Tasks,
}

type Shared = Arc<Mutex<Has>>;

/// State of the leader.
#[derive(Debug, Default)]
pub struct Has {
    names: BTreeMap<MetricId, String>,
    last: BTreeMap<WorkerId, u64>,
    points: BTreeMap<MetricId, Point>,
    index: u64,
    /// If true, no other nimbus has replicated the log, so nothing is committed.
    pub nothing_is_committed: bool,
    /// If true, the leader rejects all batches for the moment.
    pub is_busy: bool,
    /// Number of batches rejected while busy.
    pub n_deferred: usize,
}

/// The only metric of [`spooled`].
pub fn emitted() -> (MetricId, MetricName) {
    let name: MetricName = "3@1@t-1-100@split@4@default@sys@Emitted".parse().expect("a name");
    (MetricId::of(&name.to_string(), 0), name)
}

/// A report of a launch that emitted five tuples since the report before.
pub fn spooled(launch: &Launch, number: u64) -> SpooledReport {
    let leaf = Leaf { id: emitted().0, point: Point::Counter(Counter { count: 5 }), total: Some(5 * number) };
    let report = MetricReport {
        topology: launch.topology.clone(),
        worker: launch.worker.clone(),
        number,
        minute: Minute(28_333_334),
        started: launch.started,
        leaves: vec![leaf],
    };
    SpooledReport { first: number, report }
}

impl Has {
    fn ingest(&mut self, batch: MetricBatch) -> IngestResponse {
        if self.is_busy {
            self.n_deferred += 1;
            return IngestResponse::RetryLater { reason: "busy".to_owned() };
        }
        let unknown = batch.points.iter().filter(|(id, _)| !self.names.contains_key(id));
        let ids: Vec<_> = unknown.map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            return IngestResponse::UnknownMetrics { ids };
        }
        let last_of = |worker: &WorkerId| self.last.get(worker).copied().unwrap_or(0);
        let is_new = batch.reports.iter().any(|reports| reports.last > last_of(&reports.worker));
        if is_new && batch.reports.iter().any(|reports| reports.first <= last_of(&reports.worker)) {
            let stored =
                self.last.iter().map(|(worker, last)| IngestedUpTo { worker: worker.clone(), last: *last });
            return IngestResponse::Overlapping { stored: stored.collect() };
        }
        if is_new {
            self.index += 1;
            for reports in batch.reports {
                assert_eq!(
                    reports.first,
                    self.last.get(&reports.worker).copied().unwrap_or(0) + 1,
                    "no gaps"
                );
                self.last.insert(reports.worker, reports.last);
            }
            for (id, point) in batch.points {
                match self.points.get_mut(&id) {
                    Some(known) => assert!(known.merge(&point)),
                    None => drop(self.points.insert(id, point)),
                }
            }
        }
        let at = LogPosition { term: 1, index: self.index };
        IngestResponse::Accepted {
            at,
            high_watermark: if self.nothing_is_committed { LogPosition::default() } else { at },
        }
    }

    /// The topology-level point of the metric whose name ends with `name`.
    pub fn point(&self, name: &str) -> Option<&Point> {
        self.metric("5@", name)
    }

    /// The point of the metric whose name begins with `level` and ends with `name`.
    pub fn metric(&self, level: &str, name: &str) -> Option<&Point> {
        let is_it =
            |full: &&String| full.starts_with(level) && full.contains("@t-1-100@") && full.ends_with(name);
        let (id, _) = self.names.iter().find(|(_, full)| is_it(full))?;
        self.points.get(id)
    }

    /// The topology-level count of the metric whose name ends with `name`.
    pub fn count(&self, name: &str) -> u64 {
        match self.point(name) {
            Some(Point::Counter(counter)) => counter.count,
            Some(Point::Meter(meter)) => meter.count,
            Some(Point::Histogram(histogram)) => histogram.count,
            Some(Point::Timer(timer)) => timer.histogram.count,
            Some(Point::Gauge(_)) | None => 0,
        }
    }

    /// Counts of emitted, transferred, executed, acked and failed tuples.
    pub fn totals(&self) -> [u64; 5] {
        ["Emitted", "Transferred", "Executed", "Acked", "Failed"]
            .map(|name| self.count(&format!("@sys@{name}")))
    }
}

impl TestLeader {
    /// Starts a leader and writes it to the tree.
    pub async fn start(tree: Arc<dyn Tree>) -> Self {
        let has = Shared::default();
        let routes = Router::new()
            .route(
                "/api/stormkeeper/v1/metrics/register",
                post(async |State(has): State<Shared>, body: Bytes| {
                    let request: RegisterRequest = rmp_serde::from_slice(&body).expect("a request");
                    let mut has = has.lock().expect("unpoisoned");
                    let registrations = request.registrations.into_iter().map(|registration| {
                        has.names.insert(registration.id, registration.name);
                        Registered::Accepted(registration.id)
                    });
                    rmp_serde::to_vec(&RegisterResponse { results: registrations.collect() })
                        .expect("plain values")
                }),
            )
            .route(
                "/api/stormkeeper/v1/metrics/ingest",
                post(async |State(has): State<Shared>, body: Bytes| {
                    let batch = rmp_serde::from_slice(&body).expect("a batch");
                    let answer = has.lock().expect("unpoisoned").ingest(batch);
                    rmp_serde::to_vec(&answer).expect("plain values")
                }),
            )
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&has));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api = listener.local_addr().expect("bound").to_string();
        let leader = Leader {
            nimbus: "n".parse().expect("valid"),
            api,
            term: Term(1),
            unknown_fields: Default::default(),
        };
        let tasks = Tasks::default();
        tasks.start("nimbus", OnExit::Ignore, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        let (path, data) = (layout::leader(), record::encode(&leader));
        tree.create(&path, &data, CreateMode::Persistent).await.expect("created");
        Self { has, _tasks: tasks }
    }

    /// Locks and returns the state.
    pub fn has(&self) -> MutexGuard<'_, Has> {
        self.has.lock().expect("unpoisoned")
    }
}
