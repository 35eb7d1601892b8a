//! Records of the tree that change or end a worker.

use super::*;

/// A spout that records the commands it receives and emits without end.
const COMMAND_LOG: &str = r#"
from stormkeeper import Spout
class Diary(Spout):
    def note(self, text):
        with open("diary", "a") as out:
            out.write(text + "\n")
    def next_tuple(self):
        self.emit([1])
    def activate(self):
        self.note("activate")
    def deactivate(self):
        self.note("deactivate")
    def cleanup(self):
        self.note("cleanup")
Diary().run()
"#;

/// Waits for `n` more heartbeats of a worker.
async fn after_heartbeats(heartbeat: &Path, n: u64) {
    let read = || -> Option<u64> { fs::read_to_string(heartbeat).ok()?.split(' ').nth(1)?.parse().ok() };
    let before = read().expect("a heartbeat");
    wait_until("the worker continues", WAIT_MAX, || async move {
        read().filter(|beat| *beat >= before + n).ok_or("it has stopped".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_controls_the_spouts_and_the_assignment_ends_the_worker() {
    let components = json!({ "diary": spout(&["python3", "diary.py"], &["n"]) });
    let stage = Stage::new(json!({}), components, 1).await;
    stage.write_resource("diary.py", COMMAND_LOG);
    let mut workers = stage.start();
    let heartbeat = stage.dir.path().join("w0/heartbeat");
    stage.status_becomes(TaskId(1), TaskStatus::Running).await;
    stage.lines("diary", 1).await;
    stage.set_status(TopologyStatus::Inactive).await;
    stage.status_becomes(TaskId(1), TaskStatus::Inactive).await;
    assert_eq!(stage.lines("diary", 2).await, ["activate", "deactivate"]);
    after_heartbeats(&heartbeat, 5).await;
    let still = stage.counts("diary").await;
    after_heartbeats(&heartbeat, 10).await;
    assert_eq!(stage.counts("diary").await, still, "an inactive spout is not called");

    stage.set_status(TopologyStatus::Active).await;
    stage.lines("diary", 3).await;
    // An unavailable tree and an unreadable record change nothing.
    stage.set(&layout::assignment(&stage.options.spec.topology), b"by hand".to_vec()).await;
    stage.server.set_online(false);
    after_heartbeats(&heartbeat, 10).await;
    stage.server.set_online(true);
    let before = stage.counts("diary").await;
    wait_until("the spout continues", WAIT_MAX, || async {
        let counts = stage.counts("diary").await;
        if counts.emitted > before.emitted { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;

    let mut elsewhere = stage.assignment.clone();
    elsewhere.workers.values_mut().for_each(|worker| worker.start = Timestamp::from_millis(6));
    let data = record::encode_assignment(&elsewhere);
    stage.set(&layout::assignment(&stage.options.spec.topology), data).await;
    assert_eq!(workers.remove(0).ended().await, Ended::Unassigned);
    assert_eq!(stage.lines("diary", 5).await[2..], ["activate", "deactivate", "cleanup"]);
    assert_eq!(stage.heartbeats().await, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_without_assignment_or_topology_file_does_not_start() {
    let components = json!({ "diary": spout(&["python3", "diary.py"], &["n"]) });
    let stage = Stage::new(json!({}), components, 1).await;
    let mut options = stage.options.clone();
    options.spec.dir = stage.dir.path().join("w0");
    fs::create_dir_all(&options.spec.dir).expect("created");
    let tree: Arc<_> = stage.server.connect();
    let ended = run(options.clone(), tree.clone(), None, Clock::new(), CancellationToken::new()).await;
    assert_eq!(ended.expect("no failure"), Ended::Unassigned);
    options.spec.code = stage.dir.path().join("nothing");
    let failure =
        run(options, tree, None, Clock::new(), CancellationToken::new()).await.expect_err("no code");
    assert!(failure.to_string().contains("nothing/topology.json"), "{failure}");
}
