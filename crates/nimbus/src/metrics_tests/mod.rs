//! Whole nimbuses with their APIs and metric stores, on the memory tree, in real time. The tests
//! advance the wall clock by hand.

mod backfill;
mod delete_metas;
mod deleted_dir;
mod exporters;
mod ingest;
mod quarantine;
mod status;
mod takeover;

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;

use crate as nimbus;
use crate::refusal::Refusal;
use crate::{
    Handle,
    api::{self, Running},
    change::Change,
    daemon::NimbusClients,
    handle::Submission,
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use stormkeeper_api_types::message::KillRequest;
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, MetaFingerprint, Resources, SupervisorRecord},
    },
    tree::{CreateMode, Tree, memory::MemoryTree},
};
use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::name::NIMBUS;
use stormkeeper_metrics::{
    MetricBatch, MetricId, MetricName, MetricType, Minute, Point, Subject, Window,
    batch::SequenceRange,
    point,
    protocol::{
        IngestResponse, MetaQuery, MetricMeta, NAMES_MAX, PointsQuery, RegisterRequest, RegisterResponse,
        Registered, Registration,
    },
};
use stormkeeper_metrics_service::{
    ExporterActivity, Intervals, MetricOptions, ReplicaState, exporters::MetricExporter,
};
use stormkeeper_model::{LogPosition, Term, TopologyId, clock::Clock};
use stormkeeper_model::{Port, Timestamp, status::TopologyStatus, test_support::lines_and_count};
use stormkeeper_runtime::test_support::wait_until;
use stormkeeper_topology_package::package::{self, TopologyPackage};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(60);

/// Short intervals, with time enough for responses on a busy host.
const INTERVALS: Intervals = Intervals {
    reopen: Duration::from_millis(100),
    fetch_idle: Duration::from_millis(30),
    fetch_lagging: Duration::from_millis(10),
    takeover_poll: Duration::from_millis(20),
    publish_high_watermark: Duration::from_millis(5),
    publish_metas: Duration::from_millis(30),
    record_pause: Duration::from_millis(30),
    check_metas: Duration::from_millis(50),
    clock_check: Duration::from_millis(20),
    export_pause: Duration::from_millis(50),
    exporter_call: Duration::from_secs(2),
    export_timeout: Duration::from_secs(2),
};

struct Cluster {
    server: MemoryTree,
    tree: Arc<dyn Tree>,
    clock: Clock,
    dir: tempfile::TempDir,
}

struct TestNimbus {
    running: Running,
    stop: CancellationToken,
}

impl TestNimbus {
    fn handle(&self) -> &Handle {
        self.running.handle()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.stopped().await.expect("told to stop");
    }

    fn metric_store(&self) -> MetricStore {
        self.handle().metrics().expect("open")
    }

    async fn until_open(&self) -> MetricStore {
        wait_until("the metric store is open", LONG, || async {
            self.handle().metrics().map_err(|refusal| refusal.to_string())
        })
        .await
    }

    async fn until_caught_up_with(&self, leader: &Self) {
        wait_until("the log has every entry of the leader's", LONG, || async {
            let (own, its) = (self.metric_store().position(), leader.metric_store().position());
            if own == its { Ok(()) } else { Err(format!("{own:?} of {its:?}")) }
        })
        .await;
    }

    /// Waits until the views of `others` contain this nimbus: a new leader asks those that it sees.
    async fn until_seen_by(&self, others: &[&Self]) {
        let id = self.handle().id();
        wait_until("the others see this nimbus", LONG, || async {
            let sees = |one: &&Self| {
                one.handle().observation().is_ok_and(|seen| seen.view.nimbuses.contains_key(id))
            };
            if others.iter().all(sees) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
    }

    async fn until_ingesting(&self) {
        wait_until("the leader ingests metrics", LONG, || async {
            let status = self.handle().metrics_status().await;
            let sees = self.handle().leader().is_some_and(|leader| leader.nimbus == *self.handle().id());
            if status.state == ReplicaState::Leading && sees { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    /// Waits until this leader has published a high watermark at or after `at`.
    async fn until_committed(&self, at: LogPosition) {
        wait_until("the entry is committed", LONG, || async {
            let status = self.handle().metrics_status().await;
            if status.high_watermark >= at { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    /// Returns the count of the topology's one counter in a minute.
    async fn count(&self, topology: &TopologyId, minute: Minute) -> Option<u64> {
        let (id, _) = emitted(topology);
        let points = self
            .metric_store()
            .points(PointsQuery { id, window: Window::M1, from: minute, to: minute, limit: 10 })
            .await
            .expect("read");
        match points.as_slice() {
            [] => None,
            [(_, Point::Counter(counter))] => Some(counter.count),
            points => panic!("{points:?}"),
        }
    }
}

impl Cluster {
    async fn new() -> Self {
        let server = MemoryTree::new();
        let tree: Arc<dyn Tree> = server.connect();
        let supervisor = SupervisorRecord {
            host: "host".to_owned(),
            ports: (6700..6710).map(Port).collect(),
            resources: Resources { cpu_percent: 400, memory_mb: 4096 },
            capacity: Default::default(),
            memory_limits_unenforced: None,
            version: "0".to_owned(),
            start: Timestamp::EPOCH,
            announces_stop: false,
            tracks_tuples: true,
            platform: None,
            problems: Vec::new(),
            clock_ahead_ms: None,
            agent: None,
            failures: Vec::new(),
            exposed: None,
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: Default::default(),
        };
        Store::new(Arc::clone(&tree)).ensure_layout().await.expect("made");
        let path = layout::supervisor(&"s0".parse().expect("valid"));
        tree.create(&path, &record::encode(&supervisor), CreateMode::Ephemeral).await.expect("created");
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        Self { server, tree, clock, dir: tempfile::tempdir().expect("a directory") }
    }

    fn options(&self, name: &str, intervals: Intervals) -> nimbus::Options {
        nimbus::Options {
            candidate_grace: Duration::ZERO,
            replication: nimbus::options::ReplicationSettings { min_count: Some(1), wait: None },
            metrics: Some(MetricOptions {
                names_per_topology_max: 1000,
                intervals,
                ..MetricOptions::of_test()
            }),
            ..nimbus::Options::of_test(self.dir.path().join(name))
        }
    }

    async fn start_with(&self, options: nimbus::Options) -> TestNimbus {
        self.start_with_exporters(options, Vec::new()).await
    }

    /// Starts a nimbus that exports to `exporters` besides the configured ones.
    async fn start_with_exporters(
        &self,
        options: nimbus::Options,
        exporters: Vec<Arc<dyn MetricExporter>>,
    ) -> TestNimbus {
        let (tree, stop) = (self.server.connect(), CancellationToken::new());
        let mut clients = NimbusClients::over_http(&options, tree.clone(), &Clock::new()).expect("made");
        clients.metrics.as_mut().expect("metrics are on").exporters.extend(exporters);
        let running = api::start_with(options, clients, tree, self.clock.clone(), stop.clone());
        TestNimbus { running: running.await.expect("started"), stop }
    }

    async fn start(&self, name: &str) -> TestNimbus {
        self.start_with(self.options(name, INTERVALS)).await
    }

    /// Starts a leader that ingests metrics, and a follower that follows it.
    async fn start_leader_and_follower(&self, follower: Intervals) -> (TestNimbus, TestNimbus) {
        let leader = self.start("a").await;
        leader.until_ingesting().await;
        let follower = self.start_with(self.options("b", follower)).await;
        follower.until_open().await;
        leader.until_seen_by(&[&leader, &follower]).await;
        follower.until_seen_by(&[&leader, &follower]).await;
        // A slow follower fetches once at its start: its log must not depend on when that happens.
        wait_until("the follower has fetched every entry", LONG, || async {
            // The leader records the log end that the follower had before it applied the page.
            let lag = follower.handle().metrics_lag();
            lag.caught_up_at.map(drop).ok_or_else(|| format!("{lag:?}"))
        })
        .await;
        (leader, follower)
    }

    fn minute(&self) -> Minute {
        Minute::of(self.clock.now())
    }
}

async fn submit(one: &TestNimbus, name: &str) -> TopologyId {
    let handle = one.handle();
    let TopologyPackage { key, bytes } =
        package::pack(&lines_and_count(name), None, Vec::new(), 1 << 20).expect("packed");
    let body = stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))]);
    handle.blobs().put(&key, body).await.expect("stored");
    let status = TopologyStatus::Active;
    let submission = Submission { name: None, blob: key, owner: "me".to_owned(), by: None, status };
    handle.submit(submission).await.expect("accepted").0
}

/// Returns the one metric of these tests.
fn emitted(topology: &TopologyId) -> (MetricId, MetricName) {
    let name = MetricName::new(topology.clone(), MetricType::Counter, Subject::Topology, "sys", "Emitted");
    let name = name.expect("valid");
    (MetricId::of(&name.to_string(), 0), name)
}

async fn register(one: &TestNimbus, topology: &TopologyId) -> Result<RegisterResponse, Refusal> {
    let (id, name) = emitted(topology);
    let registrations = vec![Registration { name: name.to_string(), id }];
    let request = RegisterRequest { topology: topology.clone(), registrations };
    let body = rmp_serde::to_vec(&request).expect("a message");
    one.handle().register_metrics(body.into()).await
}

fn batch(topology: &TopologyId, minute: Minute, sequence: u64, n: u64) -> MetricBatch {
    let point = Point::Counter(point::Counter { count: n });
    MetricBatch {
        topology: topology.clone(),
        minute,
        reports: vec![SequenceRange {
            worker: "w1".parse().expect("valid"),
            first: sequence,
            last: sequence,
        }],
        points: vec![(emitted(topology).0, point)],
        readings: Vec::new(),
    }
}

async fn ingest(one: &TestNimbus, batch: &MetricBatch) -> IngestResponse {
    let body = rmp_serde::to_vec(batch).expect("a message");
    one.handle().ingest_metrics(body.into()).await.expect("answered")
}

async fn stored(one: &TestNimbus, batch: &MetricBatch) -> (LogPosition, LogPosition) {
    match self::ingest(one, batch).await {
        IngestResponse::Accepted { at, high_watermark } => (at, high_watermark),
        answer => panic!("{answer:?}"),
    }
}

async fn metas(one: &TestNimbus, topology: &TopologyId) -> Vec<MetricMeta> {
    let query = MetaQuery { topology: topology.clone(), meta: None, after: None, limit: NAMES_MAX };
    one.metric_store().metas(query).await.expect("read").metas
}
