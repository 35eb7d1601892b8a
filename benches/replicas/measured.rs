//! Metrics of topologies that no worker measures: sent to the leader as topology masters do.

use stormkeeper_metric_shipping::ingest_client::{IngestClient, IngestTransport as _};
use stormkeeper_metrics::{
    MetricBatch, MetricId, MetricName, MetricType, Minute, Point, Subject,
    batch::SequenceRange,
    builtin::{
        ACKED, Builtin, CAPACITY, EMITTED, EXECUTED, EXECUTOR_QUEUE, EXECUTOR_TIME, FAILED, PROCESS_LATENCY,
        RECV_TPS, TRANSFERRED,
    },
    point::{Counter, Gauge, Histogram, Meter, Timer},
    protocol::{RegisterRequest, Registration},
};
use stormkeeper_model::{ComponentId, TaskId, TopologyId};

use crate::cluster::Cluster;

const METRICS: [Builtin; 10] = [
    EMITTED,
    TRANSFERRED,
    EXECUTED,
    ACKED,
    FAILED,
    RECV_TPS,
    PROCESS_LATENCY,
    EXECUTOR_TIME,
    CAPACITY,
    EXECUTOR_QUEUE,
];

/// Returns the subjects of the components, and of the first tasks of one of them.
pub(crate) fn subjects(components: &[ComponentId], tasks: Option<(&ComponentId, u32)>) -> Vec<Subject> {
    let of_components =
        components.iter().map(|component| Subject::Component { component: component.clone() });
    let of_tasks = tasks.into_iter().flat_map(|(component, n)| {
        (1..=n).map(move |task| Subject::Task { component: component.clone(), task: TaskId(task) })
    });
    of_components.chain(of_tasks).collect()
}

/// Sends points of the last `n_minutes` for the usual metrics of `subjects`.
pub(crate) async fn send(cluster: &Cluster, topology: &TopologyId, subjects: &[Subject], n_minutes: u32) {
    let client = IngestClient::new(cluster.store.clone()).expect("a client");
    let leader = client.leader().await.expect("a leader");
    let name = |subject: &Subject, metric: &Builtin| {
        metric.of(topology.clone(), subject.clone()).expect("fixed parts make a name")
    };
    let names: Vec<MetricName> =
        subjects.iter().flat_map(|subject| METRICS.iter().map(move |metric| name(subject, metric))).collect();
    let id = |name: &MetricName| MetricId::of(&name.to_string(), 0);
    let registrations = names.iter().map(|name| Registration { name: name.to_string(), id: id(name) });
    let request = RegisterRequest { topology: topology.clone(), registrations: registrations.collect() };
    client.register(&leader, &request).await.expect("registered");
    let now = Minute::of(cluster.clock.now());
    for (sequence, ago) in (1..).zip((0..n_minutes).rev()) {
        let minute = now.minus(ago);
        let worker = "6700-1-000001".parse().expect("an id");
        let batch = MetricBatch {
            topology: topology.clone(),
            minute,
            reports: vec![SequenceRange { worker, first: sequence, last: sequence }],
            points: names.iter().map(|name| (id(name), point(name.kind(), minute))).collect(),
            readings: Vec::new(),
        };
        client.ingest(&leader, &batch).await.expect("ingested");
    }
}

fn point(kind: MetricType, minute: Minute) -> Point {
    let meter = Meter { count: 1234, from: minute, at: minute, m1: 1.0, m5: 1.0, m15: 1.0 };
    let buckets = (0..30).map(|n| (200 + n * 4, 17)).collect();
    let histogram = Histogram { count: 10_000, sum: 1e9, min: 10.0, max: 1e6, zeros: 0, buckets };
    match kind {
        MetricType::Counter => Point::Counter(Counter { count: 1234 }),
        MetricType::Gauge => Point::Gauge(Gauge { at: minute, sum: 0.5, n: 1, min: 0.1, max: 0.9 }),
        MetricType::Meter => Point::Meter(meter),
        MetricType::Histogram => Point::Histogram(histogram),
        MetricType::Timer => Point::Timer(Timer { histogram, meter }),
    }
}
