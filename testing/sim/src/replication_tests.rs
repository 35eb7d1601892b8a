//! Single faults of the metric log, in a fixed order.

use std::time::Duration;

use crate::{Cluster, in_simulated_time, metric_log::end, network::NetworkIngest, stores};
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_metric_shipping::ingest_client::IngestTransport as _;
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute, Point, Window,
    batch::SequenceRange,
    builtin,
    name::Subject,
    point::Counter,
    protocol::{IngestResponse, PointsQuery, RegisterRequest, Registration},
};
use stormkeeper_metrics_service::ReplicaState;
use stormkeeper_model::{LogPosition, TopologyId};

/// Limit of a wait, in simulated time.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Cluster with a sender of metrics.
struct Scene {
    cluster: Cluster,
    sender: NetworkIngest,
}

/// Runs `work` on a cluster with two nimbuses and one host, none of which runs yet.
fn simulated(work: impl AsyncFnOnce(Scene) + Send + 'static) {
    const SEED: u64 = 7;
    // A thread of its own, as blocking work stays inline.
    let run = move || {
        in_simulated_time(SEED, async {
            let cluster = Cluster::of_size(SEED, &mut fastrand::Rng::with_seed(SEED), 2, &[2]);
            let store = Store::new(cluster.operator.tree());
            let sender = NetworkIngest::new(&cluster.env.network, "sender".to_owned(), store);
            work(Scene { cluster, sender }).await;
        });
    };
    std::thread::spawn(run).join().expect("no panic");
}

fn topology() -> TopologyId {
    "__NIMBUS__".parse().expect("valid")
}

fn metric() -> (String, MetricId) {
    let subject = Subject::Nimbus { host: "sender".to_owned(), port: 1 };
    let name = builtin::NIMBUS_REGISTERED.of(topology(), subject).expect("valid").to_string();
    let id = MetricId::of(&name, 0);
    (name, id)
}

/// Report `sequence` of the sender, which counts 5.
fn batch(sequence: u64) -> MetricBatch {
    MetricBatch {
        topology: topology(),
        minute: Minute(30_000_000),
        reports: vec![SequenceRange { worker: "w".parse().expect("valid"), first: sequence, last: sequence }],
        points: vec![(metric().1, Point::Counter(Counter { count: 5 }))],
        readings: Vec::new(),
    }
}

impl Scene {
    /// Waits until `is` returns true.
    async fn until(&mut self, what: &str, mut is: impl AsyncFnMut(&mut Self) -> bool) {
        let began = self.cluster.env.now();
        while !is(self).await {
            let took = self.cluster.env.now().saturating_sub(began);
            assert!(took < WAIT_MAX, "{what}: not after {took:?}");
            assert!(self.cluster.pass(Duration::from_millis(500)).await, "{:?}", self.violation());
        }
    }

    fn violation(&self) -> Option<crate::Violation> {
        self.cluster.env.journal().violation().cloned()
    }

    async fn state(&self, n: usize) -> Option<ReplicaState> {
        Some(self.cluster.replicas[n].handle()?.metrics_status().await.state)
    }

    /// Waits until nimbus `n` ingests metrics.
    async fn until_ingesting(&mut self, n: usize) {
        let ingests = async |scene: &mut Self| scene.state(n).await == Some(ReplicaState::Leading);
        self.until("the nimbus ingests", ingests).await;
    }

    /// Sends a report until it is committed. Returns its position.
    async fn commit(&mut self, sequence: u64) -> LogPosition {
        let mut committed = None;
        self.until("the report is committed", async |scene| {
            let Ok(leader) = scene.sender.leader().await else { return false };
            let (name, id) = metric();
            let registrations = vec![Registration { name, id }];
            let request = RegisterRequest { topology: topology(), registrations };
            let Ok(_) = scene.sender.register(&leader, &request).await else { return false };
            let answer = scene.sender.ingest(&leader, &batch(sequence)).await;
            let Ok(IngestResponse::Accepted { at, high_watermark }) = answer else { return false };
            committed = (at <= high_watermark).then_some(at);
            committed.is_some()
        })
        .await;
        committed.expect("it is committed now")
    }

    /// Returns the sum of the sender's counter in the store of nimbus `n`.
    async fn count(&self, n: usize) -> u64 {
        let store = self.cluster.replicas[n].handle().expect("it runs").metrics().expect("it is open");
        let minute = Minute(30_000_000);
        let query = PointsQuery { id: metric().1, window: Window::M1, from: minute, to: minute, limit: 10 };
        let points = store.points(query).await.expect("read");
        let count = |point: &Point| match point {
            Point::Counter(counter) => counter.count,
            other => panic!("{other:?}"),
        };
        points.iter().map(|(_, point)| count(point)).sum()
    }
}

#[test]
fn committed_report_survives_the_loss_of_the_leader() {
    simulated(async |mut scene| {
        scene.cluster.replicas[0].start();
        scene.until_ingesting(0).await;
        scene.cluster.replicas[1].start();
        let at = scene.commit(1).await;
        scene.cluster.replicas[0].kill();
        scene.until_ingesting(1).await;
        assert!(scene.cluster.replicas[1].disk.log().contains(&at));
        scene.commit(1).await;
        assert_eq!(scene.count(1).await, 5, "a repeated report is ingested once");
        scene.cluster.replicas[0].start();
        stores::converge(&scene.cluster).await;
        assert_eq!(scene.violation(), None);
        assert_eq!(scene.count(0).await, 5);
    });
}

#[test]
fn leader_decides_while_its_metric_log_waits_and_discarded_metrics_are_quarantined() {
    simulated(async |mut scene| {
        scene.cluster.replicas[0].start();
        scene.until_ingesting(0).await;
        scene.cluster.replicas[1].start();
        scene.commit(1).await;
        scene.cluster.replicas[1].kill();
        // Only this nimbus has the report.
        let lost = scene.commit(2).await;
        scene.cluster.replicas[0].kill();
        scene.cluster.replicas[1].start();
        scene.cluster.hosts[0].start().await;
        scene.until("nimbus-2 leads", async |scene| scene.cluster.replicas[1].leads()).await;
        scene.cluster.clients.submit(1, 1, 1, fastrand::Rng::with_seed(1));
        let is_placed = async |scene: &mut Scene| {
            let journal = scene.cluster.env.journal();
            journal.model().assignments.values().any(|assignment| !assignment.workers.is_empty())
        };
        scene.until("the topology is placed", is_placed).await;
        assert_eq!(scene.state(1).await, Some(ReplicaState::TakingOver), "the takeover grace has not passed");
        scene.until_ingesting(1).await;
        assert!(!scene.cluster.replicas[1].disk.log().contains(&lost));
        scene.cluster.replicas[0].start();
        stores::converge(&scene.cluster).await;
        assert_eq!(scene.violation(), None);
        let quarantined = scene.cluster.replicas[0].disk.quarantined();
        assert_eq!(quarantined.len(), 1, "{quarantined:?}");
        assert_eq!(end(&scene.cluster.replicas[0].disk.log()), end(&scene.cluster.replicas[1].disk.log()));
        assert_eq!((scene.count(0).await, scene.count(1).await), (5, 5));
    });
}
