//! Reports of a worker about itself.

use super::*;
use stormkeeper_topology_package::worker_report::{EXIT_REASON_FILE, REPORT_FILE, WorkerReport};

#[tokio::test(flavor = "multi_thread")]
async fn worker_reports_tasks_that_do_not_run_and_clears_the_report_when_they_do() {
    let shuffle = json!({ "type": "shuffle" });
    let components = json!({
        "source": spout(&["python3", "source.py"], &["n"]),
        "sink": bolt(&["python3", "sink.py"], 2, "source", shuffle),
    });
    let stage = Stage::new(json!({}), components, 1).await;
    stage.write_resource("source.py", "from stormkeeper import Spout\nSpout().run()\n");
    stage.write_resource("sink.py", "import sys\nsys.exit('no sink')\n");
    let mut workers = stage.start();
    let path = stage.dir.path().join("w0").join(REPORT_FILE);
    let report_is = |what: &'static str, is_expected: fn(&WorkerReport) -> bool| {
        let path = path.clone();
        async move {
            wait_until(what, WAIT_MAX, || async {
                let bytes = fs::read(&path).map_err(|error| error.to_string())?;
                let report = WorkerReport::decode(&bytes).ok_or("half written")?;
                if is_expected(&report) { Ok(()) } else { Err(format!("{report:?}")) }
            })
            .await;
        }
    };
    report_is("both sinks are idle", |report| {
        report.idle == TaskSet::range(1, 2)
            && matches!(&report.problems[..], [one] if one.starts_with("2 tasks (1-2) do not run: sink: "))
    })
    .await;
    stage.write_resource("sink.py", "from stormkeeper import Bolt\nBolt().run()\n");
    report_is("nothing is idle", |report| *report == WorkerReport::default()).await;
    workers.remove(0).stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_whose_port_is_taken_writes_the_reason_of_its_exit() {
    let components = json!({ "source": spout(&["python3", "source.py"], &["n"]) });
    let stage = Stage::new(json!({}), components, 1).await;
    let slot = stage.assignment.workers.keys().next().expect("one");
    let _taken = TcpListener::bind(("0.0.0.0", slot.port.0)).expect("free");
    let failed = stage.start().remove(0).ended.await.expect("did not panic");
    assert!(matches!(failed, Err(Error::Bind { .. })), "{failed:?}");
    let reason = fs::read_to_string(stage.dir.path().join("w0").join(EXIT_REASON_FILE)).expect("written");
    assert!(reason.contains("cannot listen on port") && reason.contains("in use"), "{reason}");
}
