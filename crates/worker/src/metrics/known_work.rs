//! Every built-in metric of workers against components that do a known thing, on a real run.

use std::time::Duration;

use serde_json::json;

use crate::tests::{Stage, bolt, spout};
use stormkeeper_metric_shipping::test_support::{Has, TestLeader};
use stormkeeper_metrics::{
    Point,
    builtin::{self, BuiltinStatus, DefaultState},
};
use stormkeeper_model::{clock::Clock, topology::Ackers};
use stormkeeper_runtime::test_support::wait_until;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// Emits 40 tuples of 10,000 letters with ids, half of them after three calls that emit nothing, so that
/// they are no one batch; then one to a stream that it does not have, then nothing. Each call that emits
/// nothing takes 20 ms.
const LINES: &str = r#"
import time
from stormkeeper import Spout
class Lines(Spout):
    n, pauses = 0, 3
    def next_tuple(self):
        if self.n == 20 and self.pauses:
            self.pauses -= 1
            time.sleep(0.02)
            return
        self.n += 1
        if self.n <= 40:
            self.emit(["x" * 10000], id=self.n)
        elif self.n == 41:
            self.emit(["x"], stream="nowhere", id=self.n)
        else:
            time.sleep(0.02)
Lines().run()
"#;

/// Takes 20 ms for each tuple, acks three of four, and fails the fourth.
const WORK: &str = r#"
import time
from stormkeeper import Bolt
class Work(Bolt):
    n = 0
    def process(self, tup):
        time.sleep(0.02)
        self.n += 1
        self.ack(tup) if self.n % 4 else self.fail(tup)
Work().run()
"#;

/// Hangs in its first tuple.
const HANG: &str = r#"
import time
from stormkeeper import Bolt
class Hang(Bolt):
    def process(self, tup):
        time.sleep(10000)
Hang().run()
"#;

/// Answers the handshake and nothing else: it has never answered a heartbeat.
const ZOMBIE: &str = r#"
import sys, time
while sys.stdin.readline() != "end\n":
    pass
print('{"pid": 1}\nend', flush=True)
time.sleep(10000)
"#;

/// Takes 20 ms for each tuple, acks the first thirty, fails five, and keeps five.
const SETTLE: &str = r#"
import time
from stormkeeper import Bolt
class Settle(Bolt):
    n = 0
    def process(self, tup):
        time.sleep(0.02)
        self.n += 1
        if self.n <= 30:
            self.ack(tup)
        elif self.n <= 35:
            self.fail(tup)
Settle().run()
"#;

/// Takes no time, and acks nothing.
const SINK: &str = r#"
from stormkeeper import Bolt
class Sink(Bolt):
    def process(self, tup):
        pass
Sink().run()
"#;

/// Bytes of all tuples that go to the other worker.
const SENT: f64 = 3.0 * 40.0 * 10_000.0;

/// A row of the table: a metric of a component, or of the whole topology if that is empty, and the
/// range of its value.
struct Row(&'static str, &'static str, Value, f64, f64);

#[derive(Debug, Clone, Copy)]
enum Value {
    /// Number of events, of values, or of a counter.
    Count,
    /// Sum of the values.
    Sum,
    /// Least value.
    Min,
    /// Last reading: of several tasks or workers their sum.
    Reading,
}
use Value::{Count, Min, Reading, Sum};

const MANY: f64 = f64::MAX;

const TABLE: &[Row] = &[
    Row("Emitted", "lines", Count, 40.0, 40.0),
    Row("Transferred", "lines", Count, 160.0, 160.0),
    Row("Executed", "work", Count, 40.0, 40.0),
    Row("Executed", "sink", Count, 40.0, 40.0),
    Row("Acked", "lines", Count, 40.0, 40.0),
    Row("Acked", "work", Count, 30.0, 30.0),
    Row("Failed", "lines", Count, 1.0, 1.0),
    Row("Failed", "work", Count, 10.0, 10.0),
    Row("SendTps", "lines", Count, 40.0, 40.0),
    Row("RecvTps", "work", Count, 40.0, 40.0),
    Row("ProcessLatency", "work", Count, 30.0, 30.0),
    Row("ProcessLatency", "work", Min, 20_000.0, MANY),
    Row("TupleLifeCycle", "work", Count, 40.0, 40.0),
    Row("TupleLifeCycle", "sink", Count, 40.0, 40.0),
    // Failed tuples took as long as the others. Of tuples whose acks are read together only the one
    // delivered last counts, and the write window spreads their deliveries: the sum may miss a little.
    Row("ExecutorTime", "work", Count, 40.0, 40.0),
    Row("ExecutorTime", "work", Sum, 36.0 * 20_000.0, MANY),
    Row("ExecutorTime", "lines", Count, 42.0, MANY),
    Row("SerializeTime", "work", Count, 1.0, MANY),
    // One message in sixteen is timed.
    Row("DeserializeTime", "lines", Count, 2.0, MANY),
    Row("BatchInterTime", "work", Count, 1.0, MANY),
    Row("EmptyCpuRatio", "lines", Reading, 1.0, 1.0),
    Row("Capacity", "hang", Reading, 0.95, 1.0),
    Row("Capacity", "zombie", Reading, 0.95, 1.0),
    Row("Capacity", "work", Reading, 0.0, 0.3),
    Row("Capacity", "sink", Reading, 0.0, 0.3),
    Row("Capacity", "lines", Reading, 0.05, 1.0),
    Row("ExecutorQueue", "hang", Reading, 0.0, 100.0),
    Row("SerializeQueue", "hang", Reading, 20.0, 100.0),
    Row("SerializeQueue", "work", Reading, 0.0, 0.0),
    Row("CpuUsedRatio", "", Reading, 0.0, MANY),
    Row("MemoryUsed", "", Reading, 1e6, MANY),
    Row("Threads", "", Reading, 2.0, MANY),
    Row("OpenFiles", "", Reading, 2.0, MANY),
    Row("NettyCliSendSpeed", "", Count, SENT, MANY),
    Row("NettySrvRecvSpeed", "", Count, SENT, MANY),
    Row("NettyCliSendBatchSize", "", Sum, SENT, MANY),
    Row("NettySrvTransmitTime", "", Count, 1.0, MANY),
    Row("NettyCliSendTime", "", Count, 1.0, MANY),
    Row("NettyCliCacheSize", "", Reading, 0.0, 0.0),
    Row("NettyCliSendPending", "", Reading, 0.0, 0.0),
];

/// Of a topology whose trees are tracked.
const TRACKED: &[Row] = &[
    Row("Emitted", "lines", Count, 40.0, 40.0),
    Row("Acked", "lines", Count, 30.0, 30.0),
    // Five trees, and the emit to a stream that does not exist.
    Row("Failed", "lines", Count, 6.0, 6.0),
    Row("ProcessLatency", "lines", Count, 30.0, 30.0),
    Row("ProcessLatency", "lines", Min, 20_000.0, MANY),
    Row("PendingNum", "lines", Reading, 5.0, 5.0),
    Row("AckerTime", "settle", Count, 1.0, 35.0),
];

impl Row {
    fn check(&self, has: &Has) -> Result<(), String> {
        let Self(metric, component, value, least, most) = *self;
        let point = match component {
            "" => has.metric("5@", &format!("@{metric}")),
            component => has.metric("2@", &format!("@{component}@0@@sys@{metric}")),
        };
        let point = point.ok_or_else(|| format!("{metric} of {component:?} is not measured"))?;
        let found = match (value, point) {
            (Count, Point::Counter(counter)) => counter.count as f64,
            (Count, Point::Meter(meter)) => meter.count as f64,
            (Count, Point::Histogram(histogram)) => histogram.count as f64,
            (Sum, Point::Histogram(histogram)) => histogram.sum,
            (Min, Point::Histogram(histogram)) => histogram.min,
            (Reading, Point::Gauge(gauge)) => gauge.sum,
            (value, point) => return Err(format!("{metric} has no {value:?}: {point:?}")),
        };
        let is_right = (least..=most).contains(&found);
        is_right.then_some(()).ok_or_else(|| format!("{value:?} of {metric} of {component:?} is {found}"))
    }
}

#[test]
fn table_has_every_metric_that_workers_measure() {
    let measured = builtin::ALL.iter().filter(|one| {
        one.subject.is_of_topology()
            && one.status == BuiltinStatus::Measured
            && one.default == DefaultState::On
    });
    let missing: Vec<&str> = measured
        .map(|one| one.name)
        .filter(|name| TABLE.iter().chain(TRACKED).all(|Row(metric, ..)| metric != name))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_components_that_do_a_known_thing_are_right() {
    let all = || json!({ "type": "all" });
    let of_lines = |command: &str| bolt(&["python3", command], 1, "lines", all());
    // By their names, `hang`, `sink` and `zombie` are in one worker, `lines` and `work` in the other.
    let components = json!({
        "hang": of_lines("hang.py"),
        "lines": spout(&["python3", "lines.py"], &["line"]),
        "sink": of_lines("sink.py"),
        "work": of_lines("work.py"),
        "zombie": of_lines("zombie.py"),
    });
    // Components that hang are not restarted: what they did would be counted then in any case.
    let settings = json!({ "topology.shellbolt.max.pending": 40, "topology.subprocess.timeout.secs": 600 });
    let stage = Stage::new(settings, components, 2).await;
    let scripts = [HANG, LINES, SINK, WORK, ZOMBIE];
    for (name, text) in ["hang.py", "lines.py", "sink.py", "work.py", "zombie.py"].iter().zip(scripts) {
        stage.write_resource(name, text);
    }
    stage_measures(stage, TABLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_tracked_trees_are_right() {
    let components = json!({
        "lines": spout(&["python3", "lines.py"], &["line"]),
        "settle": bolt(&["python3", "settle.py"], 1, "lines", json!({ "type": "all" })),
    });
    let settings = json!({ "topology.shellbolt.max.pending": 40, "topology.subprocess.timeout.secs": 600 });
    let tracking = (Some(Ackers::PerWorker), 100_000);
    let stage = Stage::tracked(tracking, settings, components, 2).await;
    stage.write_resource("lines.py", LINES);
    stage.write_resource("settle.py", SETTLE);
    stage_measures(stage, TRACKED).await;
}

/// Runs the workers until all values of the table are as they should be.
async fn stage_measures(mut stage: Stage, table: &[Row]) {
    stage.options.spec.metric_report_period = Duration::from_millis(300);
    let start = stage.clock.now();
    stage.clock = Clock::paced(start);
    let leader = TestLeader::start(stage.server.connect()).await;
    let workers = stage.start();
    // Times between two workers include the difference of their clocks: the clock is set when all
    // tuples have arrived.
    wait_until("all tuples are counted", WAIT_MAX, || async {
        let has = leader.has();
        let counts = table.iter().filter(|Row(_, _, value, ..)| !matches!(value, Reading));
        counts.map(|row| row.check(&has)).collect::<Result<Vec<()>, String>>().map(drop)
    })
    .await;
    let mut n_minutes = 0;
    wait_until("all readings are right", WAIT_MAX, || {
        // Gauges are read once a minute, so another minute begins with each look.
        n_minutes += 1;
        stage.clock.set(start.plus(Duration::from_secs(61 * n_minutes)));
        let has = leader.has();
        let rows = table.iter().map(|row| row.check(&has)).collect::<Result<Vec<()>, String>>();
        async { rows.map(drop) }
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}
