//! Assignments that an operator deletes in zkCli: the same worker processes run on.

use stormkeeper_coordination::{cluster::layout, tree::TreePath};
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, WAIT_MAX},
    recovery::{endless, finish},
};

const TOPOLOGY: &str = "word-count";

/// Text in the log of a supervisor that keeps workers without an assignment.
const KEPT: &str = "until a leader has placed it";

/// Waits until the znode exists again.
async fn wait_until_restored(cluster: &Cluster, path: &TreePath) {
    wait_until("the leader has restored the record", WAIT_MAX, async || {
        match cluster.tree.get(path).await.map_err(|error| error.to_string())? {
            Some(_) => Ok(()),
            None => Err(format!("{path} does not exist\n{}", cluster.logs())),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_assignments_are_restored_and_no_worker_ends() {
    let mut cluster = Cluster::start().await;
    endless(&cluster).await;
    let before = cluster.worker_processes();
    let id = cluster.json(&["show", TOPOLOGY])["id"].as_str().expect("an id").parse().expect("valid id");
    let supervisors = cluster.tree.children(&layout::supervisor_assignments_parent()).await.expect("read");
    let supervisor = supervisors.expect("there").first().expect("one has tasks").parse().expect("valid id");
    let (one, both) = (layout::supervisor_assignments(&supervisor), layout::assignment(&id));

    let parents = [layout::supervisor_assignments_parent(), layout::assignments()];
    for deleted in [&one, &parents[0], &both, &parents[1]] {
        cluster.tree.delete_recursive(deleted).await.expect("deleted");
        wait_until_restored(&cluster, &one).await;
        wait_until_restored(&cluster, &both).await;
        cluster.wait_until_tuples_flow(TOPOLOGY).await;
        assert_eq!(cluster.worker_processes(), before, "without {deleted}:\n{}", cluster.logs());
    }

    // Nobody can look.
    for nimbus in &mut cluster.nimbuses {
        nimbus.kill9();
    }
    let before_deletion: usize = cluster.count_in_logs(KEPT).iter().sum();
    for parent in &parents {
        cluster.tree.delete_recursive(parent).await.expect("deleted");
    }
    wait_until("the supervisors have seen it", WAIT_MAX, async || {
        let now: usize = cluster.count_in_logs(KEPT).iter().sum();
        if now > before_deletion { Ok(()) } else { Err(cluster.logs()) }
    })
    .await;
    assert_eq!(cluster.worker_processes(), before, "without a leader:\n{}", cluster.logs());
    for nimbus in &mut cluster.nimbuses {
        nimbus.start_again();
    }
    cluster.wait_until_ready().await;
    cluster.wait_until_whole(TOPOLOGY).await;
    finish(&cluster).await;
}
