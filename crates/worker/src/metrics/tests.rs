//! Tests of complete workers with real child processes, and a leader that sums their reports.

use std::{path::Path, time::Duration};

use serde_json::json;

use crate::tests::{Stage, spout};
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_metric_shipping::{
    ingest_client::IngestClient,
    sender::{Enqueued, FlushOutcome, ReportSender, flush},
    spool::{self, SpoolState, recover},
    test_support::TestLeader,
};
use stormkeeper_model::{clock::Clock, heartbeat::TaskCounts};
use stormkeeper_runtime::test_support::wait_until;

const WAIT_MAX: Duration = Duration::from_secs(60);

async fn leader(stage: &Stage) -> TestLeader {
    TestLeader::start(stage.server.connect()).await
}

async fn totals_become(leader: &TestLeader, expected: [u64; 5]) {
    wait_until("the leader has every count", WAIT_MAX, || async {
        let totals = leader.has().totals();
        if totals == expected { Ok(()) } else { Err(format!("{totals:?}")) }
    })
    .await;
}

/// Returns a word-count topology on two workers with a short report period.
async fn words() -> Stage {
    let mut stage = Stage::of_words(2).await;
    stage.options.spec.metric_report_period = Duration::from_millis(300);
    stage
}

/// Emitted, transferred, executed, acked, failed of `words`.
const WORDS: [u64; 5] = [800, 800, 800, 1000, 0];

/// Sends the orphaned reports of an ended worker, as its supervisor does.
async fn send_orphaned_reports(stage: &Stage, worker_dir: &Path) {
    wait_until("the worker is gone", WAIT_MAX, || async {
        match spool::inspect(worker_dir).map_err(|error| error.to_string())? {
            SpoolState::Orphaned(..) => Ok(()),
            other @ (SpoolState::Live | SpoolState::Delivered) => Err(format!("{other:?}")),
        }
    })
    .await;
    let SpoolState::Orphaned(taken, launch) = spool::inspect(worker_dir).expect("readable") else {
        panic!("it is gone")
    };
    let recovered = recover::recover(&taken.dir, &launch).expect("readable");
    assert_eq!(recovered.problems, Vec::<String>::new());
    let mut delivery = ReportSender::new(launch.topology);
    delivery.learn(&launch.worker, &recovered.names.into_iter().collect::<Vec<_>>());
    for report in recovered.reports {
        assert_eq!(delivery.add(report), Enqueued::Queued);
    }
    let client = IngestClient::new(Store::new(stage.server.connect())).expect("made");
    assert_eq!(flush(&mut delivery, &client, &Clock::new()).await, FlushOutcome::Complete);
    assert!(delivery.is_empty());
    spool::mark_delivered(&taken).expect("finished");
    assert!(matches!(spool::inspect(worker_dir).expect("readable"), SpoolState::Delivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_receives_all_counts_of_the_workers_once() {
    let stage = words().await;
    let leader = leader(&stage).await;
    let workers = stage.start();
    stage.lines("words", 600).await;
    totals_become(&leader, WORDS).await;
    for name in ["@sys@ProcessLatency", "@sys@TupleLifeCycle", "@sys@RecvTps"] {
        assert_eq!(leader.has().count(name), 800, "{name}");
    }
    for name in ["@sys@ExecutorTime", "@sys@SerializeTime", "@netty@NettyCliSendBatchSize"] {
        assert!(leader.has().count(name) > 0, "{name}");
    }
    for name in ["@sys@MemoryUsed", "@sys@CpuUsedRatio", "@sys@ExecutorQueue", "@sys@Capacity"] {
        assert!(leader.has().point(name).is_some(), "{name}");
    }
    for worker in workers {
        worker.stop().await;
    }
    for n in 0..2 {
        send_orphaned_reports(&stage, &stage.dir.path().join(format!("w{n}"))).await;
    }
    totals_become(&leader, WORDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn supervisors_send_the_counts_of_workers_that_died_without_a_leader() {
    let stage = words().await;
    let workers = stage.start();
    let counted = TaskCounts { executed: 600, acked: 600, ..TaskCounts::default() };
    stage.counts_become("count", counted).await;
    // As after a kill: all tasks end, and no shutdown code runs.
    assert!(stage.tasks.stop(WAIT_MAX).await);
    drop(workers);
    let leader = leader(&stage).await;
    for n in 0..2 {
        send_orphaned_reports(&stage, &stage.dir.path().join(format!("w{n}"))).await;
    }
    assert_eq!(leader.has().totals(), WORDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn component_in_the_docs_records_its_metrics() {
    let docs = include_str!("../../../../docs/metrics.md");
    let (_, after) = docs.split_once("```python\n").expect("an example in Python");
    let (example, _) = after.split_once("```").expect("it ends");
    let mut stage = Stage::of_words(1).await;
    stage.options.spec.metric_report_period = Duration::from_millis(300);
    let now = stage.clock.now();
    stage.clock = Clock::paced(now);
    stage.write_resource("split.py", example);
    let leader = leader(&stage).await;
    let _workers = stage.start();
    totals_become(&leader, WORDS).await;
    wait_until("the leader has all counts of the component", WAIT_MAX, || async {
        let has = leader.has();
        let counts = ["words", "lengths", "lines"].map(|name| has.count(&format!("@udf@{name}")));
        if counts == [600, 600, 200] { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    // Gauges are in the first report of a minute, and this minute's first report had none yet.
    stage.clock.set(now.plus(Duration::from_secs(61)));
    wait_until("the leader has the component's gauge", WAIT_MAX, || async {
        leader.has().point("@udf@longest").map(drop).ok_or("there is none".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn components_record_metrics_and_an_invalid_one_is_a_task_error() {
    let components = json!({ "numbers": spout(&["python3", "numbers.py"], &["n"]) });
    let mut stage = Stage::new(json!({}), components, 1).await;
    stage.options.spec.metric_report_period = Duration::from_millis(300);
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
    let leader = leader(&stage).await;
    let _workers = stage.start();
    stage.error("numbers", "unknown metric kind \"sum\"").await;
    totals_become(&leader, [10, 0, 0, 0, 0]).await;
    let has = leader.has();
    assert_eq!((has.count("@udf@calls"), has.count("@udf@sizes")), (20, 20));
}
