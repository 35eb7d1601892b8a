//! A cluster view for tests: two hosts, one nimbus, and the topology `wc` with three components.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{Cluster, TopologyPage, Totals, Values, Wanted, Window};
use stormkeeper_coordination::{
    cluster::{
        record::{Leader, NimbusRecord, Stored, SupervisorRecord, TasksRecord, TopologyRecord},
        view::ClusterView,
    },
    tree::Version,
};
use stormkeeper_metrics::{
    Minute, Point,
    point::{Counter, Gauge, Histogram, Meter},
};
use stormkeeper_model::{
    ComponentId, Port, Slot, Timestamp, TopologyId,
    assignment::{AssignedWorker, Assignment},
    error::TaskError,
    topology::Topology,
};

/// Time of all answers: an hour and a second after the submit.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_003_601_000);
pub(crate) const LAUNCHED: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn id() -> TopologyId {
    "wc-1-1700000000".parse().expect("valid")
}

pub(crate) fn component(text: &str) -> ComponentId {
    text.parse().expect("valid")
}

fn slot(supervisor: &str, port: u16) -> Slot {
    Slot { supervisor: supervisor.parse().expect("valid"), port: Port(port) }
}

fn supervisor(host: &str, capacity: &Value) -> SupervisorRecord {
    let record = json!({
        "host": host, "ports": [6700, 6701], "resources": {"cpu_percent": 400, "memory_mb": 4096},
        "capacity": capacity, "version": "0.1.0", "start_ms": LAUNCHED.as_millis() - 60_000,
    });
    serde_json::from_value(record).expect("a record")
}

pub(crate) struct World {
    pub(crate) view: ClusterView,
    pub(crate) problems: BTreeMap<TopologyId, String>,
    pub(crate) topology: Topology,
    pub(crate) record: TopologyRecord,
    pub(crate) uptimes: BTreeMap<Slot, u64>,
    pub(crate) errors: BTreeMap<ComponentId, TaskError>,
}

/// Components of `wc`.
fn topology() -> Topology {
    serde_json::from_value(json!({
        "name": "wc",
        "settings": {"topology.workers": 2, "db.password": "x"},
        "components": {
            "lines": {"kind": "spout", "parallelism": 2, "run": {"command": ["a"]},
                      "outputs": {"default": {"fields": ["line"]}, "__log": {"fields": ["x"]}}},
            "split": {"kind": "bolt", "parallelism": 2, "run": {"command": ["b"]},
                      "outputs": {"default": {"fields": ["word"]}},
                      "inputs": [{"from": "lines", "stream": "default", "grouping": {"type": "shuffle"}}]},
            "count": {"kind": "bolt", "parallelism": 1, "run": {"command": ["c"]}, "outputs": {},
                      "inputs": [{"from": "split", "stream": "default",
                                  "grouping": {"type": "fields", "fields": ["word"]}},
                                 {"from": "lines", "stream": "default", "grouping": {"type": "global"}}]},
        },
    }))
    .expect("a topology")
}

impl World {
    /// Tasks 1 and 2 are `lines` (spout), 3 and 4 `split`, 5 `count`. Tasks 1, 2 and 3 run on h1, 4 and
    /// 5 on h2.
    pub(crate) fn new() -> Self {
        let topology = topology();
        let record = TopologyRecord { launched: LAUNCHED, workers: 2, ..TopologyRecord::sample("wc") };
        let tasks: TasksRecord = serde_json::from_value(json!({
            "components": {"lines": "1-2", "split": "3-4", "count": "5"},
            "requests": {"split": {"memory_mb": 128, "cpu_percent": 10}, "count": {"memory_mb": 64}},
        }))
        .expect("a record");
        let worker = |host: &str, tasks: &str| AssignedWorker {
            host: host.to_owned(),
            tasks: tasks.parse().expect("tasks"),
            start: LAUNCHED,
        };
        let workers = [(slot("s1", 6700), worker("h1", "1-3")), (slot("s2", 6701), worker("h2", "4-5"))];
        let assignment = Assignment { workers: workers.into(), ..Assignment::default() };
        let (n1, version) = ("n1".parse::<stormkeeper_model::NimbusId>().expect("valid"), Version(0));
        let nimbus: NimbusRecord = serde_json::from_value(json!({
            "host": "h1", "api": "h1:8080", "version": "0.1.0", "start_ms": LAUNCHED.as_millis() - 120_000,
            "blobs_missing": 0, "role": "leader",
        }))
        .expect("a record");
        let leader: Leader =
            serde_json::from_value(json!({"nimbus": "n1", "api": "h1:8080", "term": 3})).expect("a record");
        let view = ClusterView {
            topologies: [(id(), Stored { value: record.clone(), version })].into(),
            tasks: [(id(), Stored { value: tasks, version })].into(),
            assignments: [(id(), Stored { value: assignment, version })].into(),
            supervisors: [
                ("s1".parse().expect("valid"), supervisor("h1", &json!({}))),
                (
                    "s2".parse().expect("valid"),
                    supervisor("h2", &json!({"memory_mb": 1000, "cpu_percent": 100})),
                ),
            ]
            .into(),
            blobs: [(record.blob.clone(), [n1.clone()].into())].into(),
            nimbuses: [(n1, nimbus)].into(),
            leader: Some(leader),
            ..ClusterView::default()
        };
        let error = TaskError {
            component: component("split"),
            task: stormkeeper_model::TaskId(3),
            time: Timestamp::from_millis(NOW.as_millis() - 9000),
            host: "h1".to_owned(),
            port: Port(6700),
            message: "e".repeat(300),
            stack: "at line 1".to_owned(),
        };
        Self {
            view,
            problems: BTreeMap::new(),
            topology,
            record,
            uptimes: [(slot("s1", 6700), 100)].into(),
            errors: [(component("split"), error)].into(),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals::of(&self.view)
    }

    pub(crate) fn cluster<'a>(&'a self, totals: &'a Totals) -> Cluster<'a> {
        Cluster { view: &self.view, totals, now: NOW, problems: &self.problems }
    }

    /// Calls `make` with the pages of the topology, and returns its body.
    pub(crate) fn page<T: Serialize>(
        &self,
        window: Window,
        sys: bool,
        make: impl FnOnce(&TopologyPage<'_>) -> T,
    ) -> Value {
        let (totals, id) = (self.totals(), id());
        let page = TopologyPage {
            cluster: self.cluster(&totals),
            id: &id,
            record: &self.record,
            topology: Some(&self.topology),
            window,
            sys,
            uptimes: &self.uptimes,
            errors: &self.errors,
        };
        to_json(&make(&page))
    }
}

pub(crate) fn to_json(body: &impl Serialize) -> Value {
    serde_json::to_value(body).expect("JSON")
}

/// Answers every wanted value with a number that follows from its name and window, so that a number in
/// a wrong place shows.
pub(crate) fn measured(wanted: Wanted) -> Values {
    let of = |name: &str, window: &Window| {
        let secs = match window {
            Window::Secs(secs) => *secs,
            Window::AllTime => 1_000_000,
        };
        let factor = match name {
            "Emitted" => 1,
            "Transferred" => 2,
            "Acked" => 3,
            "Failed" => 4,
            "Executed" => 5,
            _ => 6,
        };
        let histogram = |sum: f64| Point::Histogram(Histogram { count: 2, sum, ..Histogram::default() });
        match name {
            "ProcessLatency" => histogram(secs as f64),
            "ExecutorTime" => histogram(3.0 * secs as f64),
            "Capacity" => {
                Point::Gauge(Gauge { at: Minute(1), sum: 0.1, n: 1, min: 0.1, max: secs as f64 / 1000.0 })
            }
            name if name.ends_with("RecvTps") => {
                let count = if name.starts_with("lines") { 1 } else { 3 };
                Point::Meter(Meter { count, from: Minute(1), at: Minute(1), m1: 0.0, m5: 0.0, m15: 0.0 })
            }
            _ => Point::Counter(Counter { count: secs * factor }),
        }
    };
    let read = wanted.values().iter().map(|value| {
        let name = value.metric(&id()).expect("a name");
        value.windows().iter().map(|window| Some(of(name.name(), window))).collect()
    });
    let read = read.collect();
    Values::new(wanted, read)
}
