//! Takeovers: the committed entries of a new leader, and the fate of a log that has other entries.

use super::*;
use stormkeeper_coordination::{
    cluster::metric_log::MetricLogState,
    tree::{
        SessionId,
        faulty::{FaultPlan, FaultRates, FaultyTree},
    },
};
use stormkeeper_metrics::protocol::{LogPage, LogQuery};

#[tokio::test]
async fn entries_of_a_follower_with_a_diverged_log_are_not_committed() {
    let cluster = Cluster::new().await;
    // The test sends the queries of the follower.
    let silent = Intervals { fetch_idle: 100 * LONG, fetch_lagging: 100 * LONG, ..INTERVALS };
    let (leader, follower) = cluster.start_leader_and_follower(silent).await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("accepted");
    let (at, _) = stored(&leader, &batch(&topology, cluster.minute(), 1, 5)).await;
    let term = follower.handle().leader().expect("it leads").term;
    let ask = async |leads: Option<Term>, has: LogPosition| {
        let nimbus = follower.handle().id().clone();
        let query = LogQuery { nimbus, term: has.term, index: has.index, max_bytes: 1, leader_term: leads };
        leader.handle().metrics_log(query).await.map(|(page, _)| page)
    };
    let status = async || leader.handle().metrics_status().await;
    // A query as a leader, or for another term, does not commit anything.
    ask(None, at).await.expect("answered");
    ask(Some(Term(term.0 + 1)), at).await.expect_err("the leader is of another term");
    assert!(status().await.high_watermark < at);
    ask(Some(term), at).await.expect("answered");
    leader.until_committed(at).await;
    let elsewhere = LogPosition { term: at.term + 1, ..at };
    assert_eq!(ask(Some(term), elsewhere).await.expect("answered"), LogPage::Diverged);
    let followers = status().await.followers;
    assert_eq!(followers[follower.handle().id()], LogPosition::default());
    // A committed entry stays committed; a later entry needs a follower with the right log.
    let (next, committed) = stored(&leader, &batch(&topology, cluster.minute(), 2, 5)).await;
    assert_eq!(committed, at);
    // Beyond what the nimbus may append by itself.
    ask(Some(term), LogPosition { index: next.index + 1000, ..next }).await.expect("answered");
    assert_eq!(status().await.high_watermark, at);
    ask(Some(term), next).await.expect("answered");
    leader.until_committed(next).await;
}

#[tokio::test]
async fn uncommitted_batch_is_counted_once_when_it_is_sent_again() {
    let cluster = Cluster::new().await;
    // Nor does the follower fetch the metas separately.
    let slow =
        Intervals { fetch_idle: LONG * 60, fetch_lagging: LONG * 60, check_metas: LONG * 60, ..INTERVALS };
    let (leader, follower) = cluster.start_leader_and_follower(slow).await;
    let (topology, minute) = (submit(&leader, "wc").await, cluster.minute());
    register(&leader, &topology).await.expect("accepted");
    let first = batch(&topology, minute, 1, 5);
    let (at, committed) = stored(&leader, &first).await;
    assert!(committed < at, "{committed:?} {at:?}");
    // From here on the next leader cannot reach the first one.
    let id = leader.handle().id().clone();
    let view = follower.handle().observation().expect("read").view;
    let lost = record::NimbusRecord { api: "127.0.0.1:1".to_owned(), ..view.nimbuses[&id].clone() };
    cluster.tree.set(&layout::nimbus(&id), &record::encode(&lost), None).await.expect("written");
    wait_until("the follower has the wrong address of the leader", LONG, || async {
        let view = follower.handle().observation().expect("read").view;
        let api = view.nimbuses[&id].api.clone();
        if api == lost.api { Ok(()) } else { Err(api) }
    })
    .await;
    let dir = leader.handle().options().local_dir.clone();
    leader.stop().await;
    std::fs::remove_dir_all(dir).expect("removed");
    follower.until_ingesting().await;
    assert_eq!(follower.count(&topology, minute).await, None, "this test is about a lost batch");
    let answer = ingest(&follower, &first).await;
    assert!(matches!(answer, IngestResponse::UnknownMetrics { .. }), "{answer:?}");
    register(&follower, &topology).await.expect("accepted");
    stored(&follower, &first).await;
    stored(&follower, &first).await;
    assert_eq!(follower.count(&topology, minute).await, Some(5));
}

#[tokio::test]
async fn new_leader_first_fetches_the_entries_of_another_follower() {
    let cluster = Cluster::new().await;
    let slow = Intervals { fetch_idle: LONG * 60, fetch_lagging: LONG * 60, ..INTERVALS };
    let (leader, behind) = cluster.start_leader_and_follower(slow).await;
    let ahead = cluster.start("c").await;
    ahead.until_open().await;
    ahead.until_seen_by(&[&leader, &behind]).await;
    let (topology, minute) = (submit(&leader, "wc").await, cluster.minute());
    register(&leader, &topology).await.expect("accepted");
    let first = batch(&topology, minute, 1, 5);
    let (at, _) = stored(&leader, &first).await;
    ahead.until_caught_up_with(&leader).await;
    assert!(behind.metric_store().position() < at);
    // Either follower has the entries if it leads next.
    leader.stop().await;
    let next = wait_until("one of the followers leads", LONG, || async {
        for one in [&behind, &ahead] {
            if one.handle().metrics_status().await.state == ReplicaState::Leading {
                return Ok(one);
            }
        }
        Err("no follower leads".to_owned())
    })
    .await;
    assert_eq!(next.count(&topology, minute).await, Some(5));
    let (_, _) = stored(next, &first).await;
    assert_eq!(next.count(&topology, minute).await, Some(5), "the stored reports are known");
}

/// Starts a leader without followers that has committed a count of 5 in one minute.
pub(super) async fn alone(cluster: &Cluster) -> (TestNimbus, TopologyId, LogPosition) {
    let first = cluster.start("a").await;
    first.until_ingesting().await;
    let topology = submit(&first, "wc").await;
    register(&first, &topology).await.expect("accepted");
    let (at, _) = stored(&first, &batch(&topology, cluster.minute(), 1, 5)).await;
    first.until_committed(at).await;
    (first, topology, at)
}

/// Waits until `one` leads and waits for other nimbuses, and returns its problem text.
pub(super) async fn waits(one: &TestNimbus) -> String {
    wait_until("the new leader waits for other nimbuses", LONG, || async {
        let status = one.handle().metrics_status().await;
        let problem = status.problem.clone().filter(|_| status.state == ReplicaState::TakingOver);
        problem.ok_or(format!("{status:?}"))
    })
    .await
}

pub(super) async fn record(cluster: &Cluster) -> MetricLogState {
    Store::new(cluster.server.connect()).metric_log_state().await.expect("readable").expect("written")
}

/// Waits until the metrics of `one` count one replacement of the database by a checkpoint.
pub(super) async fn replaced(one: &TestNimbus) {
    wait_until("the replacement is counted", LONG, || async {
        let n = one.handle().metrics_status().await.counts.checkpoints;
        if n == 1 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
}

pub(super) async fn quarantined(one: &TestNimbus) -> Vec<PathBuf> {
    one.handle().metrics_status().await.store.expect("open").quarantined
}

pub(super) fn received_in(cluster: &Cluster, name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(cluster.dir.path().join(name)).expect("listed").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("metrics-")).collect()
}

#[tokio::test]
async fn leader_that_is_missing_committed_entries_waits_for_the_replica_that_has_them() {
    let cluster = Cluster::new().await;
    let (first, topology, at) = alone(&cluster).await;
    let (minute, id) = (cluster.minute(), first.handle().id().clone());
    assert_eq!(
        (record(&cluster).await.high_watermark >= at, record(&cluster).await.in_sync_replicas),
        (true, [id.clone()].into())
    );
    first.stop().await;
    let second = cluster.start("b").await;
    let reason = waits(&second).await;
    assert!(reason.contains(&format!("waiting for {id} until")), "{reason}");
    assert_eq!(second.handle().metrics_problem(), Some(reason));
    assert!(matches!(
        ingest(&second, &batch(&topology, minute, 2, 2)).await,
        IngestResponse::RetryLater { .. }
    ));
    assert_eq!(second.handle().metrics_lag_entries().get(second.handle().id()), None, "its lag is unknown");
    let query = LogQuery { nimbus: id, term: at.term, index: at.index, max_bytes: 1, leader_term: None };
    second.handle().metrics_log(query).await.expect_err("a nimbus that takes over serves no log");
    second.handle().metrics_checkpoint().await.expect_err("nor a checkpoint");
    // Shorter than the takeover grace.
    cluster.clock.advance(Duration::from_secs(590));

    let first = cluster.start("a").await;
    second.until_ingesting().await;
    assert_eq!(second.handle().metrics_status().await.problem, None);
    assert_eq!(second.count(&topology, minute).await, Some(5));
    stored(&second, &batch(&topology, minute, 1, 5)).await;
    let (next, _) = stored(&second, &batch(&topology, minute, 2, 2)).await;
    first.until_caught_up_with(&second).await;
    second.until_committed(next).await;
    assert_eq!(first.count(&topology, minute).await, Some(7));
    assert_eq!(first.handle().metrics_status().await.counts.checkpoints, 0);
    assert_eq!((quarantined(&first).await, quarantined(&second).await), (Vec::new(), Vec::new()));
    let ids = [&first, &second].map(|one| one.handle().id().clone());
    let record = record(&cluster).await;
    assert_eq!((record.in_sync_replicas, record.unclean_takeover), (ids.into(), None));
}

#[tokio::test]
async fn partitioned_leader_commits_nothing_and_the_next_leader_has_every_committed_entry() {
    let cluster = Cluster::new().await;
    let before = cluster.server.sessions();
    let (first, topology, committed) = alone(&cluster).await;
    let minute = cluster.minute();
    let session = session_since(&cluster, &before);
    cluster.server.disconnect(session);
    cluster.server.expire(session);
    let second = cluster.start("b").await;
    waits(&second).await;
    // The first leader has not noticed, and a worker can still reach it.
    let late = batch(&topology, minute, 2, 2);
    let (at, high_watermark) = stored(&first, &late).await;
    assert!(high_watermark < at && high_watermark >= committed, "{high_watermark} {at}");
    assert!(record(&cluster).await.high_watermark < at);
    cluster.server.reconnect(session);
    second.until_ingesting().await;
    first.until_caught_up_with(&second).await;
    stored(&second, &late).await;
    first.until_caught_up_with(&second).await;
    for one in [&first, &second] {
        assert_eq!(one.count(&topology, minute).await, Some(7));
        assert_eq!(quarantined(one).await, Vec::<PathBuf>::new());
    }
    assert_eq!(record(&cluster).await.unclean_takeover, None);
}

/// Two nimbuses whose logs have diverged.
struct Parted {
    /// Partitioned, with an uncommitted report 2 that counts 2. It has not noticed the end of its
    /// session.
    first: TestNimbus,
    session: SessionId,
    /// The leader since then, with every committed entry.
    second: TestNimbus,
    topology: TopologyId,
}

async fn parted(cluster: &Cluster) -> Parted {
    let before = cluster.server.sessions();
    let (first, topology, committed) = alone(cluster).await;
    let session = session_since(cluster, &before);
    let second = cluster.start("b").await;
    second.until_open().await;
    second.until_caught_up_with(&first).await;
    cluster.server.disconnect(session);
    // Without a follower that fetches the next entry: the second nimbus has no time to fetch it.
    second.stop().await;
    let (late, high_watermark) = stored(&first, &batch(&topology, cluster.minute(), 2, 2)).await;
    assert!(high_watermark < late, "{high_watermark}");
    cluster.server.expire(session);
    let second = cluster.start("b").await;
    second.until_ingesting().await;
    assert!(second.metric_store().position() >= committed);
    Parted { first, session, second, topology }
}

#[tokio::test]
async fn uncommitted_entries_are_deleted_when_the_log_has_diverged() {
    let cluster = Cluster::new().await;
    let Parted { first, session, second, topology } = parted(&cluster).await;
    let minute = cluster.minute();
    stored(&second, &batch(&topology, minute, 2, 2)).await;
    stored(&second, &batch(&topology, minute, 3, 1)).await;
    cluster.server.reconnect(session);
    first.until_caught_up_with(&second).await;
    assert_eq!(first.count(&topology, minute).await, Some(8));
    replaced(&first).await;
    assert_eq!(quarantined(&first).await, Vec::<PathBuf>::new());
    assert_eq!(received_in(&cluster, "a"), Vec::<String>::new());
}

#[tokio::test]
async fn deposed_leader_replaces_no_database() {
    let cluster = Cluster::new().await;
    let Parted { first, session, second, topology } = parted(&cluster).await;
    let minute = cluster.minute();
    let (at, _) = stored(&second, &batch(&topology, minute, 3, 3)).await;
    second.until_committed(at).await;
    second.stop().await;
    cluster.server.reconnect(session);
    waits(&first).await;
    // Another nimbus led for a moment and discarded everything: the first log must be quarantined.
    let record = record(&cluster).await;
    assert!(!record.may_hold_discarded(first.metric_store().position()), "{record:?}");
    let other = "c".parse().expect("valid");
    let record = record.record_unclean_takeover(&other, Term(4), LogPosition::default(), cluster.clock.now());
    let election = record::Election { term: Term(4), nimbus: other, unknown_fields: Default::default() };
    let version = cluster.tree.set(&layout::term(), &record::encode(&election), None).await.expect("written");
    assert_eq!(version.0, 4);
    cluster.tree.set(&layout::metric_log(), &record::encode(&record), None).await.expect("written");
    let second = cluster.start("b").await;
    wait_until("the first nimbus leads another term", LONG, || async {
        let leader = first.handle().leader();
        let me = first.handle().id();
        let leads_later_term = leader.as_ref().is_some_and(|it| it.term > Term(4) && it.nimbus == *me);
        if leads_later_term { Ok(()) } else { Err(format!("{leader:?}")) }
    })
    .await;
    cluster.clock.advance(Duration::from_secs(601));
    first.until_ingesting().await;
    assert_eq!(first.count(&topology, minute).await, Some(7), "its own log");
    drop(second);
}

#[tokio::test]
async fn follower_replaces_no_database_by_the_checkpoint_of_a_deposed_leader() {
    let cluster = Cluster::new().await;
    let (first, topology, _) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    let before = cluster.server.sessions();
    let second = cluster.start("b").await;
    waits(&second).await;
    cluster.clock.advance(Duration::from_secs(601));
    second.until_ingesting().await;
    // The second nimbus is deposed, and has not noticed.
    let leader = second.handle().leader().expect("it leads");
    cluster.server.disconnect(session_since(&cluster, &before));
    let election = record::Election {
        term: Term(leader.term.0 + 1),
        nimbus: "c".parse().expect("valid"),
        unknown_fields: Default::default(),
    };
    cluster.tree.set(&layout::term(), &record::encode(&election), None).await.expect("written");
    let first = cluster.start("a").await;
    wait_until("the follower reports why it does not follow", LONG, || async {
        let problem = first.handle().metrics_problem();
        let reports_other_leader =
            problem.as_ref().is_some_and(|text| text.contains("another nimbus became leader"));
        if reports_other_leader { Ok(()) } else { Err(format!("{problem:?}")) }
    })
    .await;
    assert_eq!(first.count(&topology, minute).await, Some(5));
    assert_eq!(first.handle().metrics_status().await.counts.checkpoints, 0);
}

#[tokio::test]
async fn unreadable_high_watermark_costs_no_wait_and_no_metrics() {
    let cluster = Cluster::new().await;
    let (first, topology, _) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    cluster.tree.set(&layout::metric_log(), b"garbage", None).await.expect("written");
    let second = cluster.start("b").await;
    second.until_ingesting().await;
    register(&second, &topology).await.expect("accepted");
    stored(&second, &batch(&topology, minute, 2, 2)).await;
    let first = cluster.start("a").await;
    first.until_open().await;
    first.until_caught_up_with(&second).await;
    assert_eq!(first.count(&topology, minute).await, Some(2));
    assert_eq!(quarantined(&first).await.len(), 1);
}

#[tokio::test]
async fn deleted_high_watermark_is_published_again_and_the_local_log_continues() {
    let cluster = Cluster::new().await;
    let (first, topology, _) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    cluster.tree.delete(&layout::metric_log(), None).await.expect("deleted");
    let first = cluster.start("a").await;
    first.until_ingesting().await;
    assert_eq!(first.count(&topology, minute).await, Some(5));
    let unclean_takeover = record(&cluster).await.unclean_takeover.expect("the high watermark was unknown");
    assert_eq!((unclean_takeover.term, unclean_takeover.log_end.term), (Term(2), 1));
    let (at, _) = stored(&first, &batch(&topology, minute, 2, 2)).await;
    first.until_committed(at).await;
    // The record is created again if it is deleted while the leader leads.
    cluster.tree.delete(&layout::metric_log(), None).await.expect("deleted");
    let (at, _) = stored(&first, &batch(&topology, minute, 3, 2)).await;
    first.until_committed(at).await;
    assert!(record(&cluster).await.high_watermark >= at);
}

#[tokio::test]
async fn new_cluster_has_a_high_watermark_from_the_start() {
    let cluster = Cluster::new().await;
    let first = cluster.start("a").await;
    first.until_ingesting().await;
    let record = record(&cluster).await;
    assert_eq!((record.unclean_takeover, record.high_watermark.term <= 1), (None, true));
}

#[tokio::test]
async fn lost_zookeeper_reply_does_not_hold_back_the_commit() {
    let cluster = Cluster::new().await;
    let plan = FaultPlan::seeded(3, FaultRates { lost_response: 0.2, ..FaultRates::default() });
    let tree = FaultyTree::new(cluster.server.connect(), plan);
    let stop = CancellationToken::new();
    let running =
        api::start(cluster.options("a", INTERVALS), tree, cluster.clock.clone(), stop.clone()).await;
    let one = TestNimbus { running: running.expect("started"), stop };
    one.until_ingesting().await;
    let topology: TopologyId = NIMBUS.parse().expect("valid");
    register(&one, &topology).await.expect("accepted");
    for sequence in 1..=10 {
        let (at, _) = stored(&one, &batch(&topology, cluster.minute(), sequence, 1)).await;
        one.until_committed(at).await;
        assert!(record(&cluster).await.high_watermark >= at);
    }
}

#[tokio::test]
async fn database_of_another_zookeeper_tree_is_left_unchanged() {
    let cluster = Cluster::new().await;
    let (first, ..) = alone(&cluster).await;
    first.stop().await;
    // The next leader of this tree has term 2; a leader of a new tree has term 1 again.
    let again = cluster.start("a").await;
    again.until_ingesting().await;
    let topology = submit(&again, "again").await;
    register(&again, &topology).await.expect("accepted");
    let store = again.metric_store();
    again.stop().await;
    // Read after the stop: a leader appends to its log on its own, too.
    let position = store.position();
    assert_eq!(position.term, 2);
    drop(store);
    forget_tree(&cluster, "a");
    let new = Cluster { dir: cluster.dir, ..Cluster::new().await };
    let one = new.start("a").await;
    let reason = waits(&one).await;
    assert!(reason.contains("has entries of term 2, and this nimbus leads in term 1"), "{reason}");
    assert_eq!(one.metric_store().position(), position);
}

#[tokio::test]
async fn nimbus_that_does_not_follow_stops_holding_back_commits_after_the_maximum_lag() {
    let cluster = Cluster::new().await;
    let (leader, topology, _) = alone(&cluster).await;
    let dir = cluster.dir.path().join("b");
    std::fs::create_dir_all(&dir).expect("made");
    // A file in place of the directory.
    std::fs::write(dir.join("metrics"), b"x").expect("written");
    let broken = cluster.start("b").await;
    wait_until("the leader sees the broken nimbus", LONG, || async {
        let view = leader.handle().observation().expect("read").view;
        if view.nimbuses.contains_key(broken.handle().id()) { Ok(()) } else { Err("it does not".to_owned()) }
    })
    .await;
    let (first, _) = stored(&leader, &batch(&topology, cluster.minute(), 2, 1)).await;
    cluster.clock.advance(Duration::from_secs(599));
    let (second, committed) = stored(&leader, &batch(&topology, cluster.minute(), 3, 1)).await;
    assert!(committed < first, "{committed} {first}");
    cluster.clock.advance(Duration::from_secs(2));
    stored(&leader, &batch(&topology, cluster.minute(), 3, 1)).await;
    leader.until_committed(second).await;
}

#[tokio::test]
async fn log_of_another_zookeeper_tree_is_neither_extended_nor_fetched() {
    let old = Cluster::new().await;
    for _ in 0..3 {
        let one = old.start("old").await;
        one.until_ingesting().await;
        let topology = submit(&one, "old").await;
        register(&one, &topology).await.expect("accepted");
        one.handle()
            .change("old", Change::Kill(KillRequest { wait_secs: Some(0) }), None)
            .await
            .expect("killed");
        one.stop().await;
    }
    forget_tree(&old, "old");
    let new = Cluster { dir: old.dir, ..Cluster::new().await };
    let (first, topology, at) = alone(&new).await;
    let foreign = new.start("old").await;
    let theirs = foreign.until_open().await.position();
    assert!(theirs > at, "this test is about a log of a later term: {theirs}");
    wait_until("the foreign nimbus reports why it does not follow", LONG, || async {
        let problem = foreign.handle().metrics_problem();
        let reports_new_tree =
            problem.as_ref().is_some_and(|text| text.contains("the ZooKeeper tree is a new one"));
        if reports_new_tree { Ok(()) } else { Err(format!("{problem:?}")) }
    })
    .await;
    // As the leader, the foreign nimbus writes nothing; the log of this tree continues after it.
    first.stop().await;
    waits(&foreign).await;
    let first = new.start("a").await;
    first.until_open().await;
    foreign.stop().await;
    first.until_ingesting().await;
    assert_eq!(first.count(&topology, new.minute()).await, Some(5));
    assert_eq!(quarantined(&first).await, Vec::<PathBuf>::new());
    let foreign = new.start("old").await;
    assert_eq!(foreign.until_open().await.position(), theirs);
}

/// Lets the nimbus `name` use another tree than before, as an operator may.
fn forget_tree(cluster: &Cluster, name: &str) {
    std::fs::remove_file(cluster.dir.path().join(name).join("tree")).expect("it remembered its tree");
}

/// Returns the one session that is not in `before`.
fn session_since(cluster: &Cluster, before: &[SessionId]) -> SessionId {
    let since: Vec<SessionId> =
        cluster.server.sessions().into_iter().filter(|session| !before.contains(session)).collect();
    let [session] = since[..] else { panic!("{since:?}") };
    session
}
