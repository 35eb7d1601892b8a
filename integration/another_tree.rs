//! ZooKeeper loses its data, or comes back with an old copy of it, under workers that count: nothing
//! is ended, everybody says what is wrong, and a recovery continues with the same processes.

use std::{collections::BTreeSet, fs, path::Path, path::PathBuf};

use stormkeeper_coordination::{
    cluster::layout,
    tree::{TreePath, Version},
};
use stormkeeper_model::Term;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Process, Shape, WAIT_MAX, copy_dir},
    exact_counts::{SETTINGS, counted, settled, submit, wait_until_counted},
};

/// The only server's snapshots and transaction logs.
fn data(cluster: &Cluster) -> PathBuf {
    cluster.zookeeper.servers[0].transactions_dir()
}

/// Restarts the only server with the data at `data`, or without data.
async fn restart_with(cluster: &mut Cluster, copy: Option<&Path>) {
    cluster.zookeeper.servers[0].kill9();
    let data = data(cluster);
    fs::remove_dir_all(&data).expect("deleted");
    if let Some(copy) = copy {
        copy_dir(copy, &data);
    }
    cluster.zookeeper.servers[0].restart().await.expect("the server starts");
}

/// Waits until every nimbus shows the problem in its lists, and every supervisor has logged it.
async fn wait_until_refused(cluster: &Cluster, text: &str) {
    wait_until("every daemon says what is wrong", WAIT_MAX, async || {
        let n_logged = cluster.count_in_logs(text);
        let listed = cluster.json(&["list"])["treeProblem"].clone();
        let of_nimbuses = cluster.json(&["nimbuses"])["nimbuses"].clone();
        let shows = |value: &serde_json::Value| value.as_str().is_some_and(|shown| shown.contains(text));
        let is_shown = shows(&listed)
            && cluster.ok(&["cluster"]).contains(text)
            && of_nimbuses.as_array().into_iter().flatten().all(|nimbus| shows(&nimbus["problem"]))
            && n_logged.iter().all(|n| *n > 0);
        if is_shown {
            Ok(())
        } else {
            Err(format!("{listed} {of_nimbuses} {n_logged:?}\n{}", cluster.logs()))
        }
    })
    .await;
    // Nothing is written, and a write of a client says why.
    let refused = cluster.run(&["deactivate", "exact"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains(text), "{error}");
}

/// Shows and then makes the recovery, and waits until the same processes run the topology.
async fn recover(cluster: &Cluster, processes: &BTreeSet<Process>) {
    let shown = cluster.ok(&["recover"]);
    assert!(shown.contains("exact") && shown.contains("Nothing was changed"), "{shown}");
    let done = cluster.ok(&["recover", "--yes"]);
    assert!(done.contains("Brought back 1 topology "), "{done}");
    cluster.wait_until_ready().await;
    cluster.wait_until_whole("exact").await;
    assert_eq!(&cluster.worker_processes(), processes, "{}", cluster.logs());
    let again = cluster.run(&["recover", "--yes"]);
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && error.contains("nothing to recover"), "{error}");
}

async fn wait_until_copied(cluster: &Cluster, id: &str) {
    wait_until("each nimbus has a copy of the topology", WAIT_MAX, async || {
        let copies = (1..=cluster.nimbuses.len()).map(|n| {
            let file = cluster.path(&format!("nimbus-{n}")).join("nimbus/tree-copy.json");
            fs::read_to_string(&file).map_err(|error| error.to_string())
        });
        for copy in copies {
            let copy = copy?;
            if !copy.contains(&format!("/assignments/{id}")) {
                return Err(copy);
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_outlive_the_loss_of_the_tree_and_are_adopted_after_the_recovery() {
    let mut cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    cluster.wait_until_whole("exact").await;
    wait_until_counted(&cluster, &counts).await;
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    wait_until_copied(&cluster, &id).await;
    let leading = cluster.leading().await.expect("there is a leader");
    let processes = cluster.worker_processes();

    restart_with(&mut cluster, None).await;
    wait_until_refused(&cluster, "lost its data").await;
    wait_until_counted(&cluster, &counts).await;
    assert_eq!(cluster.worker_processes(), processes);
    let names = wait_until("the tree is read", WAIT_MAX, async || {
        cluster.tree.children(&TreePath::root()).await.map_err(|error| error.to_string())
    });
    assert_eq!(names.await.unwrap_or_default(), Vec::<String>::new(), "nobody has begun a new tree");

    recover(&cluster, &processes).await;
    let next = cluster.wait_for_leader_after(leading.term).await;
    let version = cluster.tree.get(&layout::term()).await.expect("readable").map(|node| node.stat.version);
    assert_eq!(version, Some(Version(next.term.0)));
    // The counts of the workers from meanwhile arrive, once.
    wait_until_counted(&cluster, &counts).await;
    cluster.ok(&["deactivate", "exact"]);
    let stored = settled(&cluster, (&id, "sink", "Acked"), &counts).await;
    let (begun, done) = counted(&counts, "sink");
    assert_eq!((stored["component sink"], begun), (done, done), "{}", cluster.logs());
    cluster.ok(&["kill", "exact", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_copy_of_the_tree_is_refused_and_brought_up_to_date() {
    let mut cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    // The copy has no topology: those who believed it would end all workers.
    cluster.zookeeper.servers[0].kill9();
    let copy = cluster.path("copy");
    copy_dir(&data(&cluster), &copy);
    cluster.zookeeper.servers[0].restart().await.expect("the server starts");
    let leading = cluster.wait_for_leader_after(Term(0)).await;
    let status = cluster.nimbuses[leading.nimbus].terminate();
    assert!(status.success(), "{status}");
    cluster.wait_for_leader_after(leading.term).await;
    cluster.nimbuses[leading.nimbus].start_again();
    cluster.wait_until_ready().await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    cluster.wait_until_whole("exact").await;
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    wait_until_copied(&cluster, &id).await;
    let leading = cluster.leading().await.expect("there is a leader");
    let processes = cluster.worker_processes();

    restart_with(&mut cluster, Some(&copy)).await;
    wait_until_refused(&cluster, "older copy").await;
    assert_eq!(cluster.worker_processes(), processes);
    recover(&cluster, &processes).await;
    cluster.wait_for_leader_after(leading.term).await;
    wait_until_counted(&cluster, &counts).await;
}
