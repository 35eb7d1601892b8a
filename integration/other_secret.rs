//! A daemon with another cluster secret than the leader is named before it has something to send.

use std::fs;

use stormkeeper_access::file::{create_secret, replace_secret};
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX},
    locked::{Keys, text},
};

/// Waits until the output of a command has the text, or has not.
async fn wait_until_said(cluster: &Cluster, command: &str, what: &str, is_said: bool) {
    wait_until("the problem is said, or not any more", WAIT_MAX, async || {
        let output = cluster.run(&[command]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() && said.contains(what) == is_said {
            true => Ok(()),
            false => Err(format!("{command}: {said}\n{}", cluster.logs())),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_with_another_secret_is_named_before_it_sends_anything_and_until_the_secret_is_right() {
    let keys = Keys::new();
    let mut cluster = Cluster::with(Shape::SMALL, &keys.settings()).await;
    let other = keys.path("other-secret");
    create_secret(&other, &"z".repeat(64)).expect("written");
    let follower = 1 - cluster.leading().await.expect("a leader").nimbus;
    for name in [cluster.supervisors[1].name.clone(), cluster.nimbuses[follower].name.clone()] {
        let file = cluster.path(&name).join("storm.yaml");
        let before = fs::read_to_string(&file).expect("there");
        let (own, wrong) = (keys.path("secret"), text(&other));
        assert!(before.contains(text(&own)), "{before}");
        let after = before.replace(
            &format!("storm.cluster.secret.file: {}", text(&own)),
            &format!("storm.cluster.secret.file: {wrong}"),
        );
        fs::write(&file, after).expect("written");
    }
    cluster.supervisors[1].terminate();
    cluster.supervisors[1].start_again();
    cluster.nimbuses[follower].terminate();
    cluster.nimbuses[follower].start_again();
    let said = "has another cluster secret than the leader at ";
    for command in ["list", "cluster", "nimbuses"] {
        wait_until_said(&cluster, command, said, true).await;
    }
    // Either of the two is enough for `list` and `cluster`.
    wait_until("both daemons say it in their logs", WAIT_MAX, async || {
        let logs = [cluster.supervisors[1].log(), cluster.nimbuses[follower].log()];
        if logs.iter().all(|log| log.contains(said)) { Ok(()) } else { Err(cluster.logs()) }
    })
    .await;
    assert!(!cluster.supervisors[0].log().contains(said), "only those with another secret");

    replace_secret(&other, &keys.token("secret")).expect("written");
    for command in ["list", "cluster", "nimbuses"] {
        wait_until_said(&cluster, command, said, false).await;
    }
}
