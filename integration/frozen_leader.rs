//! A leader is frozen (SIGSTOP) for longer than its session, with transactions in flight. After the
//! next leader begins its term, no transaction of the frozen leader takes effect, and the process
//! resumes as a follower.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stormkeeper_api_types::message::Code;
use stormkeeper_coordination::cluster::{layout, record};
use stormkeeper_model::Term;
use stormkeeper_runtime::test_support::wait_until;
use tokio::task::JoinSet;

use crate::{
    cluster::{Cluster, Mode, Network, Shape, WAIT_MAX},
    history::History,
};

/// Number of submits queued at the leader when it is frozen, and of submits sent afterwards.
const N_SUBMITS: usize = 10;

/// Requests to one nimbus, each with a description and the response.
type Answers = JoinSet<(String, Result<Value, String>)>;

/// Sends a request to exactly this nimbus, in its own task.
fn ask(answers: &mut Answers, what: String, api: &str, path: &str, body: Value) {
    let url = format!("http://{api}/api/stormkeeper/v1/topology/{path}");
    answers.spawn(async move {
        let client = stormkeeper_api_types::http::client().timeout(WAIT_MAX).build().expect("a client");
        let sent = client.post(url).json(&body).send().await;
        let answer = match sent {
            Ok(answer) => answer.json::<Value>().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        (what, answer)
    });
}

/// Effect of a request, according to its response.
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
        None => panic!("not a response of nimbus: {answer}"),
    }
}

/// Records of all topologies, by name.
async fn storms(cluster: &Cluster) -> BTreeMap<String, Vec<record::TopologyRecord>> {
    let parent = layout::storms();
    let mut storms = BTreeMap::<String, Vec<_>>::new();
    for id in cluster.tree.children(&parent).await.expect("readable").unwrap_or_default() {
        let path = parent.child(&id).expect("it was read");
        let Some(node) = cluster.tree.get(&path).await.expect("readable") else { continue };
        let topology_record: record::TopologyRecord = record::decode(&path, &node.data).expect("a record");
        storms.entry(topology_record.name.to_string()).or_default().push(topology_record);
    }
    storms
}

/// Sends submits of topologies with names that begin with `prefix` to one nimbus.
fn ask_for_submits(answers: &mut Answers, api: &str, prefix: &str, blob: &str) {
    for i in 0..N_SUBMITS {
        let name = format!("{prefix}-{i}");
        // The topology is inactive and is never placed: only its record matters.
        let body = json!({"name": name, "blob": blob, "owner": "test", "status": "inactive"});
        ask(answers, name, api, "submit", body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_leader_changes_nothing_after_its_term_and_follows_in_the_same_process() {
    let shape = Shape { nimbuses: 3, network: Network::Proxied, ..Shape::SMALL };
    let mut cluster = Cluster::of(shape).await;
    let file = cluster.ticker().display().to_string();
    for name in ["doomed", "spared", "kept"] {
        cluster.ok(&["submit", &file, "--name", name, "--wait"]);
    }
    let blob = storms(&cluster).await["kept"][0].blob.to_string();
    let old = cluster.leading().await.expect("there is a leader");
    let process = cluster.nimbuses[old.nimbus].process();
    let api = cluster.api(old.nimbus).to_owned();

    // The proxy first holds the leader's next transaction, so that the leader has one change in
    // flight and others in its queue when it is frozen. After it is resumed, it retries that change
    // in a live session: only the fence rejects the change.
    let mut answers = Answers::new();
    cluster.proxies[old.nimbus].set(Mode::HoldTransactions);
    ask_for_submits(&mut answers, &api, "queued", &blob);
    ask(&mut answers, "kill spared".to_owned(), &api, "spared/kill", json!({"waitSecs": 0}));
    wait_until("a transaction of the leader is held", WAIT_MAX, async || {
        let n = cluster.proxies[old.nimbus].n_held();
        if n > 0 { Ok(()) } else { Err(format!("{n} are held")) }
    })
    .await;
    cluster.nimbuses[old.nimbus].freeze();
    ask_for_submits(&mut answers, &api, "late", &blob);

    let new = cluster.wait_for_leader_after(old.term).await;
    assert_ne!(new.nimbus, old.nimbus, "a frozen process won an election");
    wait_until_named(&cluster, new.term, old.nimbus).await;
    cluster.ok(&["kill", "doomed", "-w", "0s"]);
    cluster.ok(&["submit", &file, "--name", "fresh", "--wait"]);
    cluster.ok(&["rebalance", "kept", "-w", "0s", "-n", "3"]);
    wait_until("the new leader's changes are applied", WAIT_MAX, async || {
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
    wait_until("the old leader follows", WAIT_MAX, async || match cluster.role(old.nimbus).await {
        Ok(record::Role::Follower) => Ok(()),
        seen => Err(format!("{seen:?}\n{}", cluster.logs())),
    })
    .await;
    assert_eq!(cluster.nimbuses[old.nimbus].process(), process, "the old leader follows in a new process");
    check_effects(&cluster, &answers).await;

    // The former leader can be elected again.
    let before = cluster.leading().await.expect("there is a leader").term;
    for other in (0..shape.nimbuses).filter(|other| *other != old.nimbus) {
        let status = cluster.nimbuses[other].terminate();
        assert!(status.success(), "{status}");
    }
    let again = cluster.wait_for_leader_after(before).await;
    assert_eq!(again.nimbus, old.nimbus);
    assert_eq!(cluster.nimbuses[old.nimbus].process(), process, "the old leader leads in a new process");
    // `doomed` was removed by the second leader.
    kill_what_is_left(&cluster, "doomed");
    for name in storms(&cluster).await.keys() {
        kill_what_is_left(&cluster, name);
    }
    cluster.wait_until_nothing_is_left().await;

    let history = History::of(&mut cluster);
    history.assert_valid();
    assert!(history.n_rejected_by_fence > 0, "the fence rejected no transaction of the old leader");
    for (id, term) in &history.submitted {
        let is_under_way = id.starts_with("queued-") || id.starts_with("late-");
        assert!(!is_under_way || *term > old.term.0, "{id} was submitted in the frozen leader's term");
    }
}

/// Waits until every nimbus but `frozen` names the leader of `term`. A replica whose view is older
/// would send commands to the frozen process.
async fn wait_until_named(cluster: &Cluster, term: Term, frozen: usize) {
    for nimbus in (0..cluster.nimbuses.len()).filter(|nimbus| *nimbus != frozen) {
        wait_until("the running nimbuses name the new leader", WAIT_MAX, async || {
            let named = named_term(cluster.api(nimbus)).await?;
            if named >= term { Ok(()) } else { Err(format!("nimbus {nimbus} names term {named}")) }
        })
        .await;
    }
}

/// Returns the term of the leader that this nimbus names.
async fn named_term(api: &str) -> Result<Term, String> {
    let client = stormkeeper_api_types::http::client().timeout(WAIT_MAX).build().expect("a client");
    let answer = client.get(format!("http://{api}/api/stormkeeper/v1/cluster/summary")).send().await;
    let summary: Value =
        answer.map_err(|error| error.to_string())?.json().await.map_err(|error| error.to_string())?;
    let term = summary["leader"]["term"].as_i64().and_then(|term| i32::try_from(term).ok());
    term.map(Term).ok_or_else(|| format!("no leader is named: {summary}"))
}

/// Kills a topology, unless it has disappeared since it was listed: a kill that was retried in a
/// later term is valid and may complete at any time.
fn kill_what_is_left(cluster: &Cluster, name: &str) {
    let killed = cluster.run(&["kill", name, "-w", "0s"]);
    let message = String::from_utf8_lossy(&killed.stderr);
    let is_gone = message.contains(&format!("there is no topology {name:?}"));
    assert!(
        killed.status.success() || is_gone,
        "kill {name}: {}\n{message}\n{}",
        killed.status,
        cluster.logs()
    );
}

/// Checks that each request to the frozen leader took effect once or not at all, consistently with
/// its response.
async fn check_effects(cluster: &Cluster, answers: &[(String, Result<Value, String>)]) {
    let storms = storms(cluster).await;
    assert!(!storms.contains_key("doomed"), "a topology reappeared that the new leader had removed");
    assert_eq!(storms["kept"][0].workers, 3, "a change of the new leader was undone");
    for (what, answer) in answers {
        let n = match what.strip_prefix("kill ") {
            Some(name) => usize::from(!storms.contains_key(name)),
            None => storms.get(what).map_or(0, Vec::len),
        };
        let is_possible = match effect(answer) {
            // An accepted kill may not be complete yet.
            Effect::Done => n == 1 || what.starts_with("kill "),
            Effect::Nothing => n == 0,
            Effect::Unknown => n <= 1,
        };
        assert!(is_possible, "{what}: {answer:?}, but there are {n} records: {:?}", storms.keys());
    }
}
