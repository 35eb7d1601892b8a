//! Hosts whose clocks differ from the leader's.

use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, WAIT_MAX},
    recovery::{endless, finish},
};

#[tokio::test(flavor = "multi_thread")]
async fn daemons_with_a_wrong_clock_are_named_and_nothing_moves() {
    let mut cluster = Cluster::start().await;
    endless(&cluster).await;
    let before = cluster.placement().await;
    let follower = 1 - cluster.leading().await.expect("there is a leader").nimbus;
    cluster.nimbuses[follower].terminate();
    cluster.supervisors[0].terminate();
    cluster.nimbuses[follower].shift_clock("-3h");
    cluster.supervisors[0].shift_clock("+5s");
    cluster.nimbuses[follower].start_again();
    cluster.supervisors[0].start_again();
    for (command, of, difference) in [
        ("list", "supervisor 127.0.0.1", "s ahead of the leader's"),
        ("list", "nimbus 127.0.0.1", "s behind the leader's"),
        ("cluster", "supervisor 127.0.0.1", "s ahead of the leader's"),
        ("nimbuses", "nimbus 127.0.0.1", "s behind the leader's"),
    ] {
        wait_until(&format!("{command} names the clock of the {of}"), WAIT_MAX, async || {
            let listed = cluster.ok(&[command]);
            let names =
                |line: &str| line.contains(&format!("the clock of {of}")) && line.contains(difference);
            match listed.lines().any(|line| line.starts_with("! ") && names(line) && line.contains("NTP")) {
                true => Ok(()),
                false => Err(format!("{listed}\n{}", cluster.logs())),
            }
        })
        .await;
    }
    cluster.nimbuses[follower].terminate();
    cluster.supervisors[0].terminate();
    cluster.nimbuses[follower].set_clock_right();
    cluster.supervisors[0].set_clock_right();
    cluster.nimbuses[follower].start_again();
    cluster.supervisors[0].start_again();
    cluster.wait_until_nimbuses_registered().await;
    wait_until("no clock is named", WAIT_MAX, async || {
        let listed = cluster.ok(&["list"]);
        if listed.contains("the clock of") { Err(listed) } else { Ok(()) }
    })
    .await;
    assert_eq!(cluster.placement().await, before, "{}", cluster.logs());
    finish(&cluster).await;
}
