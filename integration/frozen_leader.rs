//! A leader that stands still (SIGSTOP) for longer than its session, with work under way:
//! nothing of that work lands after another one has begun to lead, and the process comes
//! back as a follower.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stormkeeper_api_types::message::Code;
use stormkeeper_coordination::cluster::{layout, record};
use stormkeeper_runtime::test_support::wait_until;
use tokio::task::JoinSet;

use crate::{
    cluster::{Cluster, Mode, PATIENCE, Shape, Wires},
    history::History,
};

/// How many submits wait at the leader when it is frozen, and how many reach it afterwards.
const N_SUBMITS: usize = 10;

/// A request that was sent to one nimbus, by what it asked for, and its answer.
type Answers = JoinSet<(String, Result<Value, String>)>;

/// Sends a request to that very nimbus, in a task of its own.
fn ask(answers: &mut Answers, what: String, api: &str, path: &str, body: Value) {
    let url = format!("http://{api}/api/v1/topology/{path}");
    answers.spawn(async move {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let sent = client.post(url).json(&body).send().await;
        let answer = match sent {
            Ok(answer) => answer.json::<Value>().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        (what, answer)
    });
}

/// What an answer says about the effect of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Done,
    Nothing,
    Unknown,
}

fn effect(answer: &Result<Value, String>) -> Effect {
    let Ok(answer) = answer else { return Effect::Unknown };
    match answer["code"].as_str() {
        None if answer["topologyId"].is_string() => Effect::Done,
        Some(code) if code == Code::OutcomeUnknown.as_str() => Effect::Unknown,
        Some(_) => Effect::Nothing,
        None => panic!("no answer of a nimbus: {answer}"),
    }
}

/// The records of all topologies, by name.
async fn storms(cluster: &Cluster) -> BTreeMap<String, Vec<record::Storm>> {
    let parent = layout::storms();
    let mut storms = BTreeMap::<String, Vec<_>>::new();
    for id in cluster.tree.children(&parent).await.expect("readable").unwrap_or_default() {
        let path = parent.child(&id).expect("it was read");
        let Some(node) = cluster.tree.get(&path).await.expect("readable") else { continue };
        let storm: record::Storm = record::decode(&path, &node.data).expect("a record");
        storms.entry(storm.name.to_string()).or_default().push(storm);
    }
    storms
}

/// Submits at one nimbus whose names begin with `prefix`.
fn ask_for_submits(answers: &mut Answers, api: &str, prefix: &str, blob: &str) {
    for i in 0..N_SUBMITS {
        let name = format!("{prefix}-{i}");
        // Inactive and never whole: what counts is the record.
        let body = json!({"name": name, "blob": blob, "owner": "test", "status": "inactive"});
        ask(answers, name, api, "submit", body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_frozen_leader_lands_and_it_follows_in_the_same_process() {
    let shape = Shape { nimbuses: 3, wires: Wires::Proxied, ..Shape::SMALL };
    let mut cluster = Cluster::of(shape).await;
    let file = cluster.ticker().display().to_string();
    for name in ["doomed", "spared", "kept"] {
        cluster.ok(&["submit", &file, "--name", name, "--wait"]);
    }
    let blob = storms(&cluster).await["kept"][0].blob.to_string();
    let old = cluster.leading().await.expect("someone leads");
    let process = cluster.nimbuses[old.nimbus].process();
    let api = cluster.api(old.nimbus).to_owned();

    // Its next transaction is held on the wire first, so that it is in the middle of one
    // change and has others in its queue when it is frozen itself. When it goes on, it will
    // try that change again, in a session that is alive: only the fence is against it.
    let mut answers = Answers::new();
    cluster.proxies[old.nimbus].set(Mode::HoldTransactions);
    ask_for_submits(&mut answers, &api, "queued", &blob);
    ask(&mut answers, "kill spared".to_owned(), &api, "spared/kill", json!({"waitSecs": 0}));
    wait_until("a transaction of the leader is held", PATIENCE, async || {
        let n = cluster.proxies[old.nimbus].n_held();
        if n > 0 { Ok(()) } else { Err(format!("{n} are held")) }
    })
    .await;
    cluster.nimbuses[old.nimbus].freeze();
    ask_for_submits(&mut answers, &api, "late", &blob);

    let new = cluster.wait_for_leader_after(old.term).await;
    assert_ne!(new.nimbus, old.nimbus, "a frozen process won an election");
    cluster.ok(&["kill", "doomed", "-w", "0s"]);
    cluster.ok(&["submit", &file, "--name", "fresh", "--wait"]);
    cluster.ok(&["rebalance", "kept", "-w", "0s", "-n", "3"]);
    wait_until("the new leader's changes are done", PATIENCE, async || {
        let listed = cluster.json(&["list"])["topologies"].clone();
        let kept = cluster.json(&["show", "kept"]);
        let is_gone = listed.as_array().is_some_and(|all| all.iter().all(|one| one["name"] != "doomed"));
        let is_spread = kept["workersTotal"] == 3 && kept["tasksAlive"] == 3 && kept["status"] == "active";
        if is_gone && is_spread { Ok(()) } else { Err(format!("{listed}\n{kept}\n{}", cluster.logs())) }
    })
    .await;

    cluster.nimbuses[old.nimbus].thaw();
    cluster.proxies[old.nimbus].heal();
    let answers = answers.join_all().await;
    wait_until("the old leader follows", PATIENCE, async || match cluster.role(old.nimbus).await {
        Ok(record::Role::Follower) => Ok(()),
        seen => Err(format!("{seen:?}\n{}", cluster.logs())),
    })
    .await;
    assert_eq!(cluster.nimbuses[old.nimbus].process(), process, "it follows in the same process");
    check_effects(&cluster, &answers).await;

    // It can lead again.
    let before = cluster.leading().await.expect("someone leads").term;
    for other in (0..shape.nimbuses).filter(|other| *other != old.nimbus) {
        let status = cluster.nimbuses[other].terminate();
        assert!(status.success(), "{status}");
    }
    let again = cluster.wait_for_leader_after(before).await;
    assert_eq!(again.nimbus, old.nimbus);
    assert_eq!(cluster.nimbuses[old.nimbus].process(), process, "it leads in the same process");
    // One of them is gone for sure.
    kill_what_is_left(&cluster, "doomed");
    for name in storms(&cluster).await.keys() {
        kill_what_is_left(&cluster, name);
    }
    cluster.wait_until_nothing_is_left().await;

    let history = History::of(&mut cluster);
    history.assert_lawful();
    assert!(history.n_fenced_off > 0, "nothing of the old leader's reached the fence");
    for (id, term) in &history.submitted {
        let is_under_way = id.starts_with("queued-") || id.starts_with("late-");
        assert!(!is_under_way || *term > old.term.0, "{id} was submitted in the frozen leader's term");
    }
}

/// Kills a topology, unless it went by itself since it was listed: a kill that was sent again in
/// a later term is lawful, and may be over at any time.
fn kill_what_is_left(cluster: &Cluster, name: &str) {
    let killed = cluster.run(&["kill", name, "-w", "0s"]);
    let said = String::from_utf8_lossy(&killed.stderr);
    let is_gone = said.contains(&format!("there is no topology {name:?}"));
    assert!(killed.status.success() || is_gone, "kill {name}: {}\n{said}\n{}", killed.status, cluster.logs());
}

/// What was asked of the frozen leader is there once, by an answer that says so or may mean
/// it, or not at all.
async fn check_effects(cluster: &Cluster, answers: &[(String, Result<Value, String>)]) {
    let storms = storms(cluster).await;
    assert!(!storms.contains_key("doomed"), "what the new leader removed came back");
    assert_eq!(storms["kept"][0].workers, 3, "what the new leader wrote was undone");
    for (what, answer) in answers {
        let n = match what.strip_prefix("kill ") {
            Some(name) => usize::from(!storms.contains_key(name)),
            None => storms.get(what).map_or(0, Vec::len),
        };
        let is_possible = match effect(answer) {
            // A kill that was taken may not be over yet.
            Effect::Done => n == 1 || what.starts_with("kill "),
            Effect::Nothing => n == 0,
            Effect::Unknown => n <= 1,
        };
        assert!(is_possible, "{what}: {answer:?}, and it is there {n} times: {:?}", storms.keys());
    }
}
