//! What a new leader has of what was safe, and what becomes of a nimbus that has more.

use super::*;
use crate::{
    cluster::archive::ArchiveRecord,
    rpc::metrics::{LogPage, LogQuery},
    tree::{
        SessionId,
        faulty::{FaultPlan, FaultyTree, Rates},
    },
};

#[tokio::test]
async fn what_a_follower_with_another_log_has_is_not_safe() {
    let cluster = Cluster::new().await;
    // The test asks in its place.
    let silent = Pace { pull_idle: 100 * LONG, pull_busy: 100 * LONG, ..PACE };
    let (leader, follower) = cluster.two(silent).await;
    let topology = submit(&leader, "wc").await;
    register(&leader, &topology).await.expect("taken");
    let (at, _) = stored(&leader, &contribution(&topology, cluster.minute(), 1, 5)).await;
    let term = follower.handle().leader().expect("it leads").term;
    let ask = async |leads: Option<Term>, has: Position| {
        let nimbus = follower.handle().id().clone();
        let query = LogQuery { nimbus, term: has.term, seq: has.seq, max_bytes: 1, leads };
        leader.handle().metrics_log(query).await.map(|(page, _)| page)
    };
    let status = async || leader.handle().measure_status().await;
    // Whoever asks as a leader, or thinks that another one leads, has no part in it.
    ask(None, at).await.expect("answered");
    ask(Some(Term(term.0 + 1)), at).await.expect_err("it leads another term");
    assert!(status().await.safe < at);
    ask(Some(term), at).await.expect("answered");
    leader.calls_safe(at).await;
    let elsewhere = Position { term: at.term + 1, ..at };
    assert_eq!(ask(Some(term), elsewhere).await.expect("answered"), LogPage::Diverged);
    let followers = status().await.followers;
    assert_eq!(followers[follower.handle().id()], Position::default());
    // What was called safe once stays so; what comes after is safe with the right log alone.
    let (next, safe) = stored(&leader, &contribution(&topology, cluster.minute(), 2, 5)).await;
    assert_eq!(safe, at);
    ask(Some(term), Position { seq: next.seq + 1, ..next }).await.expect("answered");
    assert_eq!(status().await.safe, at);
    ask(Some(term), next).await.expect("answered");
    leader.calls_safe(next).await;
}

#[tokio::test]
async fn what_was_not_safe_is_taken_once_when_it_is_sent_again() {
    let cluster = Cluster::new().await;
    // Nor does it fetch the names alone.
    let slow = Pace { pull_idle: LONG * 60, pull_busy: LONG * 60, check: LONG * 60, ..PACE };
    let (leader, follower) = cluster.two(slow).await;
    let (topology, minute) = (submit(&leader, "wc").await, cluster.minute());
    register(&leader, &topology).await.expect("taken");
    let first = contribution(&topology, minute, 1, 5);
    let (at, safe) = stored(&leader, &first).await;
    assert!(safe < at, "{safe:?} {at:?}");
    // From here on it cannot be reached by the one that leads next.
    let id = leader.handle().id().clone();
    let view = follower.handle().observation().expect("read").view;
    let lost = record::Nimbus { api: "127.0.0.1:1".to_owned(), ..view.nimbuses[&id].clone() };
    cluster.tree.set(&layout::nimbus(&id), &record::encode(&lost), None).await.expect("written");
    wait_until("the follower does not know its place", LONG, || async {
        let view = follower.handle().observation().expect("read").view;
        let api = view.nimbuses[&id].api.clone();
        if api == lost.api { Ok(()) } else { Err(api) }
    })
    .await;
    let dir = leader.handle().options().local_dir.clone();
    leader.stop().await;
    std::fs::remove_dir_all(dir).expect("removed");
    follower.takes_metrics().await;
    assert_eq!(follower.count(&topology, minute).await, None, "this test is about what was lost");
    let answer = contribute(&follower, &first).await;
    assert!(matches!(answer, ContributeAnswer::Unregistered { .. }), "{answer:?}");
    register(&follower, &topology).await.expect("taken");
    stored(&follower, &first).await;
    stored(&follower, &first).await;
    assert_eq!(follower.count(&topology, minute).await, Some(5));
}

#[tokio::test]
async fn a_new_leader_first_takes_what_another_follower_has() {
    let cluster = Cluster::new().await;
    let slow = Pace { pull_idle: LONG * 60, pull_busy: LONG * 60, ..PACE };
    let (leader, behind) = cluster.two(slow).await;
    let ahead = cluster.start("c").await;
    ahead.open().await;
    let (topology, minute) = (submit(&leader, "wc").await, cluster.minute());
    register(&leader, &topology).await.expect("taken");
    let first = contribution(&topology, minute, 1, 5);
    let (at, _) = stored(&leader, &first).await;
    ahead.has_all_of(&leader).await;
    assert!(behind.archive().position() < at);
    // Whichever of the two leads next has it.
    leader.stop().await;
    let next = wait_until("one of them leads", LONG, || async {
        for one in [&behind, &ahead] {
            if one.handle().measure_status().await.stage == Stage::Leading {
                return Ok(one);
            }
        }
        Err("none does".to_owned())
    })
    .await;
    assert_eq!(next.count(&topology, minute).await, Some(5));
    let (_, _) = stored(next, &first).await;
    assert_eq!(next.count(&topology, minute).await, Some(5), "it is known which cuts were taken");
}

/// A leader that is alone and has called 5 of a minute safe.
pub(super) async fn alone(cluster: &Cluster) -> (One, TopologyId, Position) {
    let first = cluster.start("a").await;
    first.takes_metrics().await;
    let topology = submit(&first, "wc").await;
    register(&first, &topology).await.expect("taken");
    let (at, _) = stored(&first, &contribution(&topology, cluster.minute(), 1, 5)).await;
    first.calls_safe(at).await;
    (first, topology, at)
}

/// Waits until `one` leads and waits for others, and answers what it says.
pub(super) async fn waits(one: &One) -> String {
    wait_until("it waits for others", LONG, || async {
        let status = one.handle().measure_status().await;
        let trouble = status.trouble.clone().filter(|_| status.stage == Stage::TakingOver);
        trouble.ok_or(format!("{status:?}"))
    })
    .await
}

pub(super) async fn record(cluster: &Cluster) -> ArchiveRecord {
    Store::new(cluster.server.connect()).archive().await.expect("readable").expect("written")
}

/// Waits until it is counted that another archive took the place of its own, once.
pub(super) async fn replaced(one: &One) {
    wait_until("the exchange is counted", LONG, || async {
        let n = one.handle().measure_status().await.counts.checkpoints;
        if n == 1 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
}

pub(super) async fn aside(one: &One) -> Vec<PathBuf> {
    one.handle().measure_status().await.archive.expect("open").aside
}

pub(super) fn received_in(cluster: &Cluster, name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(cluster.dir.path().join(name)).expect("listed").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("metrics-")).collect()
}

#[tokio::test]
async fn a_leader_waits_for_safe_metrics_that_it_lacks() {
    let cluster = Cluster::new().await;
    let (first, topology, at) = alone(&cluster).await;
    let (minute, id) = (cluster.minute(), first.handle().id().clone());
    assert_eq!(
        (record(&cluster).await.safe >= at, record(&cluster).await.holders),
        (true, [id.clone()].into())
    );
    first.stop().await;
    let second = cluster.start("b").await;
    let said = waits(&second).await;
    assert!(said.contains(&format!("waiting for {id} until")), "{said}");
    assert_eq!(second.handle().metrics_trouble(), Some(said));
    assert!(matches!(
        contribute(&second, &contribution(&topology, minute, 2, 2)).await,
        ContributeAnswer::NotNow { .. }
    ));
    assert_eq!(second.handle().metrics_behind().get(second.handle().id()), None, "it is not level");
    let query = LogQuery { nimbus: id, term: at.term, seq: at.seq, max_bytes: 1, leads: None };
    second.handle().metrics_log(query).await.expect_err("it has nothing to give yet");
    second.handle().metrics_checkpoint().await.expect_err("nor as a whole");
    // Not for so long that it would go on without.
    cluster.clock.turn(Duration::from_secs(590));

    let first = cluster.start("a").await;
    second.takes_metrics().await;
    assert_eq!(second.handle().measure_status().await.trouble, None);
    assert_eq!(second.count(&topology, minute).await, Some(5));
    stored(&second, &contribution(&topology, minute, 1, 5)).await;
    let (next, _) = stored(&second, &contribution(&topology, minute, 2, 2)).await;
    first.has_all_of(&second).await;
    second.calls_safe(next).await;
    assert_eq!(first.count(&topology, minute).await, Some(7));
    assert_eq!(first.handle().measure_status().await.counts.checkpoints, 0);
    assert_eq!((aside(&first).await, aside(&second).await), (Vec::new(), Vec::new()));
    let ids = [&first, &second].map(|one| one.handle().id().clone());
    let record = record(&cluster).await;
    assert_eq!((record.holders, record.given_up), (ids.into(), None));
}

#[tokio::test]
async fn a_leader_that_is_cut_off_calls_nothing_safe_and_its_successor_takes_all_that_was() {
    let cluster = Cluster::new().await;
    let before = cluster.server.sessions();
    let (first, topology, safe) = alone(&cluster).await;
    let minute = cluster.minute();
    let session = session_since(&cluster, &before);
    cluster.server.disconnect(session);
    cluster.server.expire(session);
    let second = cluster.start("b").await;
    waits(&second).await;
    // It does not know, and can be reached by the worker all the same.
    let late = contribution(&topology, minute, 2, 2);
    let (at, said) = stored(&first, &late).await;
    assert!(said < at && said >= safe, "{said} {at}");
    assert!(record(&cluster).await.safe < at);
    cluster.server.reconnect(session);
    second.takes_metrics().await;
    first.has_all_of(&second).await;
    stored(&second, &late).await;
    first.has_all_of(&second).await;
    for one in [&first, &second] {
        assert_eq!(one.count(&topology, minute).await, Some(7));
        assert_eq!(aside(one).await, Vec::<PathBuf>::new());
    }
    assert_eq!(record(&cluster).await.given_up, None);
}

/// Two logs that part.
struct Parted {
    /// Cut off, with 2 in cut 2 that it never called safe; it does not know that its session ended.
    first: One,
    session: SessionId,
    /// It leads since, with all that was safe.
    second: One,
    topology: TopologyId,
}

async fn parted(cluster: &Cluster) -> Parted {
    let before = cluster.server.sessions();
    let (first, topology, safe) = alone(cluster).await;
    let session = session_since(cluster, &before);
    let second = cluster.start("b").await;
    second.open().await;
    second.has_all_of(&first).await;
    cluster.server.disconnect(session);
    // What nobody follows any more: it has no time to ask.
    second.stop().await;
    let (late, said) = stored(&first, &contribution(&topology, cluster.minute(), 2, 2)).await;
    assert!(said < late, "{said}");
    cluster.server.expire(session);
    let second = cluster.start("b").await;
    second.takes_metrics().await;
    assert!(second.archive().position() >= safe);
    Parted { first, session, second, topology }
}

#[tokio::test]
async fn what_was_never_safe_goes_when_the_log_does_not_lead_on() {
    let cluster = Cluster::new().await;
    let Parted { first, session, second, topology } = parted(&cluster).await;
    let minute = cluster.minute();
    stored(&second, &contribution(&topology, minute, 2, 2)).await;
    stored(&second, &contribution(&topology, minute, 3, 1)).await;
    cluster.server.reconnect(session);
    first.has_all_of(&second).await;
    assert_eq!(first.count(&topology, minute).await, Some(8));
    replaced(&first).await;
    assert_eq!(aside(&first).await, Vec::<PathBuf>::new());
    assert_eq!(received_in(&cluster, "a"), Vec::<String>::new());
}

#[tokio::test]
async fn a_leader_that_was_deposed_replaces_nothing() {
    let cluster = Cluster::new().await;
    let Parted { first, session, second, topology } = parted(&cluster).await;
    let minute = cluster.minute();
    let (at, _) = stored(&second, &contribution(&topology, minute, 3, 3)).await;
    second.calls_safe(at).await;
    second.stop().await;
    cluster.server.reconnect(session);
    waits(&first).await;
    // Another one led for a moment, and went on with nothing: what the first one has is to be kept.
    let record = record(&cluster).await;
    assert!(!record.lacks(first.archive().position()), "{record:?}");
    let other = "c".parse().expect("valid");
    let record = record.give_up(&other, Term(4), Position::default(), cluster.clock.now());
    let election = record::Election { term: Term(4), nimbus: other };
    let version = cluster.tree.set(&layout::term(), &record::encode(&election), None).await.expect("written");
    assert_eq!(version.0, 4);
    cluster.tree.set(&layout::archive(), &record::encode(&record), None).await.expect("written");
    let second = cluster.start("b").await;
    wait_until("it leads another term", LONG, || async {
        let leader = first.handle().leader();
        let me = first.handle().id();
        let is_so = leader.as_ref().is_some_and(|it| it.term > Term(4) && it.nimbus == *me);
        if is_so { Ok(()) } else { Err(format!("{leader:?}")) }
    })
    .await;
    cluster.clock.turn(Duration::from_secs(601));
    first.takes_metrics().await;
    assert_eq!(first.count(&topology, minute).await, Some(7), "its own");
    drop(second);
}

#[tokio::test]
async fn a_follower_replaces_nothing_by_what_a_leader_of_the_past_has() {
    let cluster = Cluster::new().await;
    let (first, topology, _) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    let before = cluster.server.sessions();
    let second = cluster.start("b").await;
    waits(&second).await;
    cluster.clock.turn(Duration::from_secs(601));
    second.takes_metrics().await;
    // It leads no more, and nobody has told it.
    let leader = second.handle().leader().expect("it leads");
    cluster.server.disconnect(session_since(&cluster, &before));
    let election = record::Election { term: Term(leader.term.0 + 1), nimbus: "c".parse().expect("valid") };
    cluster.tree.set(&layout::term(), &record::encode(&election), None).await.expect("written");
    let first = cluster.start("a").await;
    wait_until("it says why it does not follow", LONG, || async {
        let trouble = first.handle().metrics_trouble();
        let is_so = trouble.as_ref().is_some_and(|text| text.contains("another nimbus leads since"));
        if is_so { Ok(()) } else { Err(format!("{trouble:?}")) }
    })
    .await;
    assert_eq!(first.count(&topology, minute).await, Some(5));
    assert_eq!(first.handle().measure_status().await.counts.checkpoints, 0);
}

#[tokio::test]
async fn a_mark_that_makes_no_sense_costs_no_wait_and_no_metrics() {
    let cluster = Cluster::new().await;
    let (first, topology, _) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    cluster.tree.set(&layout::archive(), b"garbage", None).await.expect("written");
    let second = cluster.start("b").await;
    second.takes_metrics().await;
    register(&second, &topology).await.expect("taken");
    stored(&second, &contribution(&topology, minute, 2, 2)).await;
    let first = cluster.start("a").await;
    first.open().await;
    first.has_all_of(&second).await;
    assert_eq!(first.count(&topology, minute).await, Some(2));
    assert_eq!(aside(&first).await.len(), 1);
}

#[tokio::test]
async fn a_mark_that_is_gone_is_made_anew_and_what_there_is_goes_on() {
    let cluster = Cluster::new().await;
    let (first, topology, _) = alone(&cluster).await;
    let minute = cluster.minute();
    first.stop().await;
    cluster.tree.delete(&layout::archive(), None).await.expect("deleted");
    let first = cluster.start("a").await;
    first.takes_metrics().await;
    assert_eq!(first.count(&topology, minute).await, Some(5));
    let given_up = record(&cluster).await.given_up.expect("nobody knows what was safe");
    assert_eq!((given_up.term, given_up.after.term), (Term(2), 1));
    let (at, _) = stored(&first, &contribution(&topology, minute, 2, 2)).await;
    first.calls_safe(at).await;
    // It is made again when it goes while the leader leads.
    cluster.tree.delete(&layout::archive(), None).await.expect("deleted");
    let (at, _) = stored(&first, &contribution(&topology, minute, 3, 2)).await;
    first.calls_safe(at).await;
    assert!(record(&cluster).await.safe >= at);
}

#[tokio::test]
async fn a_new_cluster_has_a_mark_from_the_start() {
    let cluster = Cluster::new().await;
    let first = cluster.start("a").await;
    first.takes_metrics().await;
    let record = record(&cluster).await;
    assert_eq!((record.given_up, record.safe.term <= 1), (None, true));
}

#[tokio::test]
async fn an_answer_that_is_lost_keeps_nothing_from_being_safe() {
    let cluster = Cluster::new().await;
    let plan = FaultPlan::seeded(3, Rates { lost_reply: 0.2, ..Rates::default() });
    let tree = FaultyTree::new(cluster.server.connect(), plan);
    let stop = CancellationToken::new();
    let running = api::start(cluster.options("a", PACE), tree, cluster.clock.clone(), stop.clone()).await;
    let one = One { running: running.expect("started"), stop };
    one.takes_metrics().await;
    let topology: TopologyId = NIMBUS.parse().expect("valid");
    register(&one, &topology).await.expect("taken");
    for cut in 1..=10 {
        let (at, _) = stored(&one, &contribution(&topology, cluster.minute(), cut, 1)).await;
        one.calls_safe(at).await;
        assert!(record(&cluster).await.safe >= at);
    }
}

#[tokio::test]
async fn an_archive_of_another_tree_is_left_as_it_is() {
    let cluster = Cluster::new().await;
    let (first, ..) = alone(&cluster).await;
    first.stop().await;
    // The next leader of that tree is of term 2; in a new one, of term 1 again.
    let again = cluster.start("a").await;
    again.takes_metrics().await;
    let topology = submit(&again, "again").await;
    register(&again, &topology).await.expect("taken");
    let position = again.archive().position();
    assert_eq!(position.term, 2);
    again.stop().await;
    let new = Cluster { dir: cluster.dir, ..Cluster::new().await };
    let one = new.start("a").await;
    let said = waits(&one).await;
    assert!(said.contains("has entries of term 2, and this nimbus leads in term 1"), "{said}");
    assert_eq!(one.archive().position(), position);
}

#[tokio::test]
async fn one_that_does_not_follow_keeps_nothing_from_being_safe_for_long() {
    let cluster = Cluster::new().await;
    let (leader, topology, _) = alone(&cluster).await;
    let dir = cluster.dir.path().join("b");
    std::fs::create_dir_all(&dir).expect("made");
    // A file where the directory should be.
    std::fs::write(dir.join("metrics"), b"x").expect("written");
    let broken = cluster.start("b").await;
    wait_until("the leader sees it", LONG, || async {
        let view = leader.handle().observation().expect("read").view;
        if view.nimbuses.contains_key(broken.handle().id()) { Ok(()) } else { Err("it does not".to_owned()) }
    })
    .await;
    let (first, _) = stored(&leader, &contribution(&topology, cluster.minute(), 2, 1)).await;
    cluster.clock.turn(Duration::from_secs(599));
    let (second, safe) = stored(&leader, &contribution(&topology, cluster.minute(), 3, 1)).await;
    assert!(safe < first, "{safe} {first}");
    cluster.clock.turn(Duration::from_secs(2));
    stored(&leader, &contribution(&topology, cluster.minute(), 3, 1)).await;
    leader.calls_safe(second).await;
}

#[tokio::test]
async fn what_was_written_with_another_tree_is_neither_followed_nor_taken_over() {
    let old = Cluster::new().await;
    for _ in 0..3 {
        let one = old.start("old").await;
        one.takes_metrics().await;
        let topology = submit(&one, "old").await;
        register(&one, &topology).await.expect("taken");
        one.handle()
            .change("old", Change::Kill(KillRequest { wait_secs: Some(0) }), None)
            .await
            .expect("killed");
        one.stop().await;
    }
    let new = Cluster { dir: old.dir, ..Cluster::new().await };
    let (first, topology, at) = alone(&new).await;
    let foreign = new.start("old").await;
    let theirs = foreign.open().await.position();
    assert!(theirs > at, "this test is about a later term: {theirs}");
    wait_until("it says why it does not follow", LONG, || async {
        let trouble = foreign.handle().metrics_trouble();
        let is_so = trouble.as_ref().is_some_and(|text| text.contains("ZooKeeper's tree is a new one"));
        if is_so { Ok(()) } else { Err(format!("{trouble:?}")) }
    })
    .await;
    // When it leads, it writes nothing; and the archive of this tree goes on after it.
    first.stop().await;
    waits(&foreign).await;
    let first = new.start("a").await;
    first.open().await;
    foreign.stop().await;
    first.takes_metrics().await;
    assert_eq!(first.count(&topology, new.minute()).await, Some(5));
    assert_eq!(aside(&first).await, Vec::<PathBuf>::new());
    let foreign = new.start("old").await;
    assert_eq!(foreign.open().await.position(), theirs);
}

/// The one session that is there besides those before.
fn session_since(cluster: &Cluster, before: &[SessionId]) -> SessionId {
    let since: Vec<SessionId> =
        cluster.server.sessions().into_iter().filter(|session| !before.contains(session)).collect();
    let [session] = since[..] else { panic!("{since:?}") };
    session
}
