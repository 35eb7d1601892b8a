//! Failover after the leader is stopped, after it is killed, and after it is killed and restarted.

use std::time::Duration;

use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::clock::Monotonic;

use crate::{
    cluster::{Cluster, Settings},
    floor,
    report::{Report, Samples},
    watching::until_gone,
};

const N_STOPS: usize = 15;
const N_KILLS: usize = 10;
const N_RESTARTS: usize = 15;

/// The shortest timeout that ZooKeeper grants with its default tick of two seconds.
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// Long compared with a restart, so that waiting for the dead session would be visible.
const LONG_SESSION_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn run(n_servers: usize) -> Report {
    let mut report = Report::new("Loss of the leader");
    let settings = Settings { session_timeout: SESSION_TIMEOUT, extra: "" };
    let mut cluster = Cluster::start(n_servers, 2, &settings).await;
    let (multi, watch) = floor::round_trips(cluster.options(), &cluster.clock).await;
    stops(&mut cluster, &mut report).await;
    kills(&mut cluster, &mut report).await;
    drop(cluster);
    let settings = Settings { session_timeout: LONG_SESSION_TIMEOUT, extra: "" };
    restarts(&mut Cluster::start(n_servers, 2, &settings).await, &mut report).await;
    report.floor("one transaction, synced to disk", multi);
    report.floor("one transaction until another session was woken and has read", watch);
    report
}

/// Waits until `/leader` is gone, and until the next leader has written in its own term.
async fn succession(cluster: &Cluster) -> (Monotonic, Monotonic) {
    let gone = until_gone(&*cluster.tree, &cluster.clock, &layout::leader()).await;
    // The old leader no longer writes, so the task is done by the next leader.
    cluster.request_write().await;
    (gone, cluster.write_done().await)
}

async fn stops(cluster: &mut Cluster, report: &mut Report) {
    let (mut resigned, mut written) = (Samples::default(), Samples::default());
    for _ in 0..N_STOPS {
        let leader = cluster.leader().await;
        let nimbus = cluster.take_nimbus(leader);
        let succession = succession(cluster);
        let began = cluster.clock.monotonic();
        nimbus.terminate();
        let (gone, wrote) = succession.await;
        resigned.add(gone.since(began));
        written.add(wrote.since(began));
        nimbus.ended();
        cluster.start_nimbus(leader);
        cluster.ready(2).await;
    }
    report.row(
        "SIGTERM to the leader: until its successor has written under its own term",
        "200 ms",
        written,
    );
    report.floor("until the leader has resigned", resigned);
}

async fn kills(cluster: &mut Cluster, report: &mut Report) {
    let (mut expired, mut written, mut since) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..N_KILLS {
        let leader = cluster.leader().await;
        let nimbus = cluster.take_nimbus(leader);
        let succession = succession(cluster);
        let began = cluster.clock.monotonic();
        nimbus.kill9();
        let (gone, wrote) = succession.await;
        expired.add(gone.since(began));
        written.add(wrote.since(began));
        since.add(wrote.since(gone));
        cluster.start_nimbus(leader);
        cluster.ready(2).await;
    }
    report.row(
        "kill -9 of the leader, session timeout 4 s, tick 2 s: until its successor has written",
        "6.3 s",
        written,
    );
    report.floor("until the server has ended the session", expired);
    report.row("from there until its successor has written", "300 ms", since);
}

async fn restarts(cluster: &mut Cluster, report: &mut Report) {
    let (mut led, mut written) = (Samples::default(), Samples::default());
    for _ in 0..N_RESTARTS {
        let leader = cluster.leader().await;
        let term = cluster.term().await;
        cluster.take_nimbus(leader).kill9();
        cluster.request_write().await;
        let began = cluster.clock.monotonic();
        cluster.start_nimbus(leader);
        led.add(cluster.led_after(term).await.since(began));
        written.add(cluster.write_done().await.since(began));
        assert_eq!(cluster.leader().await, leader, "the other nimbus waits for the dead session");
        cluster.ready(2).await;
    }
    report.row(
        "kill -9 of the leader and its start, session timeout 30 s: from the start until it leads",
        "1 s",
        led,
    );
    report.row("until it has written under its new term", "1 s", written);
}
