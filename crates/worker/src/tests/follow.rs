//! Records that are missing while a worker follows them. The clock is virtual.

use std::{
    future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::json;
use tokio::time::sleep;

use super::{Stage, bolt, spout};
use crate::follow;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, SupervisorAssignments},
    },
    tree::{ReadTree as _, Tree as _, TreePath},
};
use stormkeeper_model::{TopologyId, assignment::Assignment, status::TopologyStatus};
use stormkeeper_runtime::tasks::OnExit;

/// A worker's following of its records: the statuses that it applied, and its end.
struct Following {
    stage: Stage,
    statuses: Arc<Mutex<Vec<TopologyStatus>>>,
    ended: Arc<AtomicBool>,
}

impl Following {
    async fn start() -> Self {
        let shuffle = json!({ "type": "shuffle" });
        let components = json!({ "a": spout(&["a"], &["x"]), "b": bolt(&["b"], 1, "a", shuffle) });
        let stage = Stage::new(json!({}), components, 1).await;
        let mut options = stage.options.clone();
        options.spec.slot = stage.assignment.workers.keys().next().expect("one worker").clone();
        let store = stage.store.clone();
        let statuses = Arc::new(Mutex::new(Vec::new()));
        let applied = Arc::clone(&statuses);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        stage.tasks.start("follow", OnExit::Ignore, async move {
            let apply = |records: &follow::Records, _: follow::Readiness| {
                applied.lock().expect("not poisoned").push(records.status);
            };
            follow::follow(&store, &options, future::pending(), apply).await;
            end.store(true, Relaxed);
        });
        sleep(Duration::from_secs(1)).await;
        let following = Self { stage, statuses, ended };
        assert_eq!(following.last_status(), Some(TopologyStatus::Active));
        following
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    fn last_status(&self) -> Option<TopologyStatus> {
        self.statuses.lock().expect("not poisoned").last().copied()
    }

    fn path(&self, path: impl Fn(&TopologyId) -> TreePath) -> TreePath {
        path(&self.stage.options.spec.topology)
    }

    async fn delete(&self, path: &TreePath) {
        self.stage.server.connect().delete(path, None).await.expect("deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn worker_follows_again_after_a_deleted_record_is_put_back() {
    let following = Following::start().await;
    let paths = [layout::storm, layout::tasks, layout::assignment].map(|path| following.path(path));
    for (n, path) in paths.iter().enumerate() {
        let node = following.stage.server.connect().get(path).await.expect("read").expect("there");
        following.delete(path).await;
        sleep(Duration::from_secs(500)).await;
        assert!(!following.has_ended(), "ended without {path}");
        following.stage.create(path, node.data.to_vec()).await;
        let status = [TopologyStatus::Inactive, TopologyStatus::Active][n % 2];
        following.stage.set_status(status).await;
        // Longer than the period at which all records are read again.
        sleep(Duration::from_secs(40)).await;
        assert_eq!(following.last_status(), Some(status), "after {path} was put back");
    }
}

#[tokio::test(start_paused = true)]
async fn worker_ends_after_ten_minutes_without_a_record() {
    let following = Following::start().await;
    following.delete(&following.path(layout::storm)).await;
    sleep(Duration::from_secs(595)).await;
    assert!(!following.has_ended());
    sleep(Duration::from_secs(15)).await;
    assert!(following.has_ended());
}

#[tokio::test(start_paused = true)]
async fn assignment_without_the_worker_ends_it_at_once() {
    let following = Following::start().await;
    let data = record::encode_assignment(&Assignment::default());
    following.stage.set(&following.path(layout::assignment), data).await;
    sleep(Duration::from_millis(10)).await;
    assert!(following.has_ended());
}

#[tokio::test(start_paused = true)]
async fn assignment_that_was_deleted_with_its_supervisors_entry_ends_the_worker_at_once() {
    let following = Following::start().await;
    let supervisor = &following.stage.options.spec.slot.supervisor;
    let entries = record::encode(&SupervisorAssignments::default());
    following.stage.create(&layout::supervisor_assignments(supervisor), entries).await;
    following.delete(&following.path(layout::assignment)).await;
    sleep(Duration::from_millis(10)).await;
    assert!(following.has_ended());
}
