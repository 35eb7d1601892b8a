//! Tests with a leader that dies at any one of its requests: the next leader finishes its
//! changes, or they leave nothing, and deadlines are kept.

use super::*;

/// The wait of the kill; long compared with everything else, so that a restarted wait shows.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Knowledge of a client that submits, rebalances and kills a topology.
#[derive(Debug, Default)]
struct Story {
    /// The topology, once the submit has returned.
    id: Option<TopologyId>,
    /// Time at which the kill was accepted.
    killed: Option<Timestamp>,
    /// True once the client has seen every step finish.
    is_over: bool,
}

/// Submits, rebalances and kills a topology, until it is gone or the nimbus dies.
async fn live(cluster: &Cluster, handle: &Handle, blob: BlobKey, tree: &FaultyTree) -> Story {
    let mut story = Story::default();
    let Ok(id) = submit_stored(handle, blob).await else { return story };
    story.id = Some(id.clone());
    let store = Store::new(Arc::clone(&cluster.tree));
    let until = async |what: &str, condition: &dyn Fn(usize) -> bool| {
        wait_until(what, LONG, || async {
            let assignment = store.assignment(&id).await.expect("read");
            let n_tasks = assignment.map_or(0, |assignment| assignment.value.tasks().len());
            if condition(n_tasks) || tree.is_dead() { Ok(()) } else { Err(n_tasks.to_string()) }
        })
        .await;
    };
    until("it is placed", &|n_tasks| n_tasks > 0).await;
    if handle.change("wc", rebalance(), None).await.is_err() {
        return story;
    }
    until("it is rebalanced", &|n_tasks| n_tasks == 7).await;
    let before = cluster.clock.now();
    if handle.change("wc", kill(KILL_WAIT.as_secs()), None).await.is_err() {
        return story;
    }
    story.killed = Some(before);
    wait_until("it is gone", LONG, || async {
        if tree.is_dead() { Ok(()) } else { cluster.is_gone(&id).await }
    })
    .await;
    story.is_over = !tree.is_dead();
    story
}

fn rebalance() -> Change {
    let parallelism = [("count".parse().expect("valid"), 5)].into();
    Change::Rebalance(RebalanceRequest { wait_secs: Some(1), workers: None, parallelism, restart: false })
}

/// The records of all topologies.
async fn traces(cluster: &Cluster) -> Vec<String> {
    let mut traces = Vec::new();
    for root in layout::topology_parents() {
        let names = cluster.tree.children(&root).await.expect("read").unwrap_or_default();
        traces.extend(names.iter().map(|name| format!("{root}/{name}")));
    }
    traces
}

/// Has the successor finish the client's steps, and checks the result of each.
async fn finish(cluster: &Cluster, handle: &Handle, story: &Story, n: u64) {
    let store = Store::new(Arc::clone(&cluster.tree));
    let storms = cluster.tree.children(&layout::storms()).await.expect("read").unwrap_or_default();
    assert!(storms.len() <= 1, "request {n}: submitted twice: {storms:?}");
    let found: Option<TopologyId> = storms.first().map(|name| name.parse().expect("valid"));
    let id = match (&story.id, found) {
        (_, Some(found)) => found,
        // Killed and removed already, or never submitted: nothing may be left either way.
        (Some(id), None) => {
            assert!(story.killed.is_some(), "request {n}: {id} was accepted and is lost");
            wait_until("nothing is left", LONG, || cluster.is_gone(id)).await;
            return;
        }
        (None, None) => {
            assert_eq!(traces(cluster).await, Vec::<String>::new(), "request {n}: half a submit");
            submit(handle, "wc").await.unwrap_or_else(|refusal| panic!("request {n}: {refusal}"))
        }
    };
    let topology_record = store.topology_record(&id).await.expect("read").expect("there").value;
    if topology_record.status != TopologyStatus::Killed {
        cluster.placed(&id).await;
        let tasks = store.tasks(&id).await.expect("read").expect("there");
        if topology_record.pending.is_none() && tasks.value.n_tasks() != 7 {
            let changed = handle.change("wc", rebalance(), None).await;
            changed.unwrap_or_else(|refusal| panic!("request {n}: {refusal}"));
        }
        wait_until("the rebalance is done", LONG, || async {
            let tasks = store.tasks(&id).await.expect("read").expect("there");
            if tasks.value.n_tasks() == 7 { Ok(()) } else { Err(format!("request {n}")) }
        })
        .await;
        let killed = handle.change("wc", kill(0), None).await;
        killed.unwrap_or_else(|refusal| panic!("request {n}: {refusal}"));
    }
    wait_until("nothing is left", LONG, || cluster.is_gone(&id)).await;
    if let Some(killed) = story.killed {
        let took = cluster.clock.now().since(killed);
        let allowed = KILL_WAIT..KILL_WAIT + Duration::from_secs(2);
        assert!(allowed.contains(&took), "request {n}: the kill took {took:?}");
    }
}

/// Submits, rebalances and kills a topology with a leader that dies with its `n`th request.
/// Returns whether it died at all.
async fn die_at_request(n: u64) -> bool {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let tree = FaultyTree::new(cluster.server.connect(), FaultPlan::none());
    let first = cluster.nimbus_on("a", Arc::clone(&tree) as _).await;
    let handle = cluster.leading(&first).await;
    let blob = put(&handle, "wc").await;
    tree.set_plan(FaultPlan::none().die_with_request(n));
    let story = live(&cluster, &handle, blob, &tree).await;
    if story.is_over {
        return false;
    }
    assert!(tree.is_dead(), "request {n}: rejected although nothing went wrong: {story:?}");
    cluster.server.disconnect(first.session);
    cluster.server.expire(first.session);
    let second = cluster.nimbus("b").await;
    let successor = cluster.leading(&second).await;
    finish(&cluster, &successor, &story, n).await;
    let assignments = Store::new(Arc::clone(&cluster.tree));
    wait_until("the supervisor assignments are empty", LONG, || async {
        let assignments =
            assignments.supervisor_assignments(&"s0".parse().expect("valid")).await.expect("read");
        match assignments.is_none_or(|assignments| assignments.value.topologies.is_empty()) {
            true => Ok(()),
            false => Err(format!("request {n}")),
        }
    })
    .await;
    assert_eq!(traces(&cluster).await, Vec::<String>::new(), "request {n}");
    true
}

#[tokio::test(start_paused = true)]
async fn wherever_a_leader_dies_the_next_one_finishes_its_work() {
    let mut n = 1;
    while die_at_request(n).await {
        n += 1;
    }
    assert!(n > 35, "a whole life took only {n} requests");
}
