//! Access control lists that exclude the daemons, as after a clumsy `setAcl`.

use stormkeeper_coordination::cluster::layout;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, ROOT, WAIT_MAX},
    recovery::{endless, finish},
    zk_layout_sample::zk_cli,
};

const TOPOLOGY: &str = "word-count";

fn set_acl(cluster: &Cluster, path: &str, permissions: &str) {
    let command = format!("setAcl {ROOT}{path} world:anyone:{permissions}");
    zk_cli(&cluster.zookeeper.servers[0].address(), &[command]);
}

async fn until_nothing_is_denied(cluster: &Cluster) {
    wait_until("`list` names no znode any more", WAIT_MAX, async || {
        let listed = cluster.ok(&["list"]);
        if listed.contains("cannot be read") { Err(listed) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_znodes_are_named_and_nothing_that_they_concern_changes() {
    let mut cluster = Cluster::start().await;
    endless(&cluster).await;
    let before = cluster.placement().await;
    let names = cluster.tree.children(&layout::supervisors()).await.expect("read").expect("there");
    let supervisor = layout::supervisor(&names[0].parse().expect("valid id"));

    // A record: all others are still served. A change of an access control list is no event.
    let record = supervisor.as_str();
    set_acl(&cluster, record, "cdwa");
    wait_until("`list` names the znode", WAIT_MAX, async || {
        let listed = cluster.ok(&["list"]);
        let told = format!("{record} cannot be read");
        match listed.contains(&told) && listed.contains("does not authorize") && listed.contains("setAcl") {
            true => Ok(()),
            false => Err(format!("{listed}\n{}", cluster.logs())),
        }
    })
    .await;
    assert!(cluster.ok(&["cluster"]).contains(&format!("{record} cannot be read")));
    set_acl(&cluster, record, "cdrwa");
    until_nothing_is_denied(&cluster).await;

    // A list of records: the view stays as it was.
    set_acl(&cluster, "/storms", "cdwa");
    for command in ["list", "cluster", "nimbuses"] {
        wait_until(&format!("`{command}` says that the state cannot be read"), WAIT_MAX, async || {
            let listed = cluster.ok(&[command]);
            match listed.contains("the cluster state cannot be read") && listed.contains("setAcl") {
                true => Ok(()),
                false => Err(format!("{listed}\n{}", cluster.logs())),
            }
        })
        .await;
    }
    set_acl(&cluster, "/storms", "cdrwa");
    until_nothing_is_denied(&cluster).await;

    // The znode that fences every write of the leader.
    set_acl(&cluster, "/term", "a");
    let refused = cluster.run(&["deactivate", TOPOLOGY]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{message}");
    assert!(message.contains("does not authorize this process for /term"), "{message}");
    assert!(message.contains("setAcl") && !message.contains("check that ZooKeeper is up"), "{message}");
    set_acl(&cluster, "/term", "cdrwa");

    // The parent of a registration: many attempts, and two lines.
    let whole_count = |cluster: &Cluster, text| cluster.supervisors[0].log().matches(text).count();
    let texts = [
        "cannot register this process, its tasks or its blobs",
        "this process and all that it has are registered again",
    ];
    // The supervisor has noticed the denied record above as well, if it was its own.
    let noticed = texts.map(|text| whole_count(&cluster, text));
    let count = |cluster: &Cluster, n: usize| whole_count(cluster, texts[n]) - noticed[n];
    set_acl(&cluster, "/supervisors", "rwda");
    cluster.supervisors[0].terminate();
    cluster.supervisors[0].start_again();
    for (n, text) in texts.into_iter().enumerate() {
        if n == 1 {
            set_acl(&cluster, "/supervisors", "cdrwa");
        }
        wait_until(&format!("the supervisor logs {text:?}"), WAIT_MAX, async || match count(&cluster, n) {
            0 => Err(cluster.logs()),
            _ => Ok(()),
        })
        .await;
    }
    assert_eq!(count(&cluster, 0), 1, "{}", cluster.logs());
    cluster.wait_until_whole(TOPOLOGY).await;
    assert_eq!(cluster.placement().await, before, "{}", cluster.logs());
    finish(&cluster).await;
}
