//! Changes of the leader, and a nimbus beside another.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stopped_leader_resigns_so_that_another_leads_at_once() {
    let cluster = Cluster::new();
    let first = cluster.nimbus("a").await;
    cluster.leading(&first).await;
    let second = cluster.nimbus("b").await;
    let stopped = cluster.clock.monotonic();
    first.stop.cancel();
    first.nimbus.stopped().await.expect("stopped on request");
    let handle = cluster.leading(&second).await;
    assert!(cluster.clock.monotonic().since(stopped) < Duration::from_millis(200));
    assert_eq!(handle.leader().expect("a leader").nimbus, *handle.id());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_api_accepts_nothing_resigns_if_another_nimbus_can_lead() {
    let cluster = Cluster::new();
    let first = cluster.nimbus("a").await;
    let handle = cluster.leading(&first).await;
    first.nimbus.api_accepts().send_replace(false);
    // Nobody else could lead: time passes, and it still leads.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((handle.takes_writes(), handle.term()), (true, Some(stormkeeper_model::Term(1))));
    let second = cluster.nimbus("b").await;
    cluster.leading(&second).await;
    assert!(!handle.takes_writes());
    // It leads although it accepts nothing when nobody else does, after a while.
    let stopped = cluster.clock.monotonic();
    second.stop.cancel();
    second.nimbus.stopped().await.expect("stopped on request");
    cluster.leading(&first).await;
    let leaderless = cluster.clock.monotonic().since(stopped);
    assert!(leaderless >= Duration::from_secs(30), "{leaderless:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_leader_takes_over_its_own_leadership() {
    let cluster = Cluster::new();
    let tree = FaultyTree::new(cluster.server.connect(), FaultPlan::none());
    let first = cluster.nimbus_on("a", Arc::clone(&tree) as _).await;
    let id = cluster.leading(&first).await.id().clone();
    let second = cluster.nimbus("b").await;
    // Its session stays alive for a while, as after `kill -9`.
    tree.kill();
    first.stop.cancel();
    first.nimbus.stopped().await.expect("stopped on request");
    let again = cluster.nimbus("a").await;
    let handle = cluster.leading(&again).await;
    assert_eq!(*handle.id(), id);
    assert!(!second.nimbus.handle().takes_writes(), "the other nimbus took over a live leadership");
    assert_eq!(handle.term(), Some(stormkeeper_model::Term(2)));
}

#[tokio::test(start_paused = true)]
async fn a_nimbus_pauses_before_it_leads_again_after_its_leader_task_failed() {
    let cluster = Cluster::new();
    let running = cluster.nimbus("a").await;
    let millis = Duration::from_millis;
    // Time that it led before the failure, and bounds of the time until it leads again.
    let rounds = [
        (millis(100), millis(500)..millis(1100)),
        (millis(100), millis(1000)..millis(2100)),
        (millis(100), millis(2000)..millis(4100)),
        (millis(61_000), millis(500)..millis(1100)),
    ];
    for (led, pause) in rounds {
        let handle = cluster.leading(&running).await;
        tokio::time::sleep(led).await;
        let commands = handle.commands.borrow().clone().expect("it leads");
        commands.try_send(leader::Command::Panic).expect("accepted");
        let broken = tokio::time::Instant::now();
        commands.closed().await;
        wait_until("it has stopped leading", LONG, || async {
            if handle.takes_writes() { Err("it has not".to_owned()) } else { Ok(()) }
        })
        .await;
        cluster.leading(&running).await;
        assert!(pause.contains(&broken.elapsed()), "{:?} is not in {pause:?}", broken.elapsed());
    }
    // A stop does not wait for the pause.
    let commands = running.nimbus.handle().commands.borrow().clone().expect("it leads");
    commands.try_send(leader::Command::Panic).expect("accepted");
    commands.closed().await;
    running.stop.cancel();
    running.nimbus.stopped().await.expect("stopped on request");
}

#[tokio::test(start_paused = true)]
async fn deadlines_survive_a_failover() {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let first = cluster.nimbus("a").await;
    let handle = cluster.leading(&first).await;
    let (killed, moved) =
        (submit(&handle, "killed").await.expect("accepted"), submit(&handle, "moved").await.expect("taken"));
    cluster.placed(&killed).await;
    cluster.placed(&moved).await;
    cluster.create_heartbeats(&moved).await;
    let second = cluster.nimbus("b").await;
    let asked = cluster.clock.now();
    let parallelism = [("count".parse().expect("valid"), 5)].into();
    let rebalance = RebalanceRequest { wait_secs: Some(40), workers: Some(1), parallelism, restart: false };
    handle.change("killed", kill(30), None).await.expect("killed");
    handle.change("moved", Change::Rebalance(rebalance), None).await.expect("rebalance accepted");
    tokio::time::sleep(Duration::from_secs(10)).await;

    // The first nimbus is cut off and its session ends, which it does not notice.
    cluster.server.disconnect(first.session);
    cluster.server.expire(first.session);
    let handle = cluster.leading(&second).await;
    let elapsed = |now: Timestamp| now.since(asked);
    wait_until("the killed topology is removed", LONG, || cluster.is_gone(&killed)).await;
    let took = elapsed(cluster.clock.now());
    assert!((Duration::from_secs(30)..Duration::from_secs(31)).contains(&took), "{took:?}");
    let store = Store::new(Arc::clone(&cluster.tree));
    let tasks = wait_until("the rebalance is done", LONG, || async {
        let topology_record = store.topology_record(&moved).await.expect("read").expect("there");
        let tasks = store.tasks(&moved).await.expect("read").expect("there");
        if topology_record.value.pending.is_none() {
            Ok(tasks.value)
        } else {
            Err(format!("{:?}", topology_record.value))
        }
    })
    .await;
    let took = elapsed(cluster.clock.now());
    assert!((Duration::from_secs(40)..Duration::from_secs(41)).contains(&took), "{took:?}");
    assert_eq!(tasks.n_tasks(), 7);
    assert_eq!(cluster.placed(&moved).await.value.workers.len(), 1);

    // Reconnected, the first nimbus becomes a follower, and none of its writes take effect.
    cluster.server.reconnect(first.session);
    let former = first.nimbus.handle();
    wait_until("the former leader follows", LONG, || async {
        if former.takes_writes() { Err("it leads".to_owned()) } else { Ok(()) }
    })
    .await;
    let refused = former.change("moved", Change::Deactivate, None).await.expect_err("it follows");
    assert!(matches!(refused, Refusal::NotLeading { leader: Some(leader) } if leader.nimbus == *handle.id()));
}

#[tokio::test(start_paused = true)]
async fn a_failover_with_healthy_workers_changes_no_assignment() {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let first = cluster.nimbus("a").await;
    let handle = cluster.leading(&first).await;
    let id = submit(&handle, "wc").await.expect("accepted");
    let before = cluster.placed(&id).await;
    cluster.create_heartbeats(&id).await;
    let second = cluster.nimbus("b").await;
    cluster.server.disconnect(first.session);
    cluster.server.expire(first.session);
    cluster.leading(&second).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(cluster.placed(&id).await, before);
}

/// Submits, rebalances and kills a topology while `plan` is in force, and returns the number
/// of writes.
async fn life_with(plan: FaultPlan) -> u64 {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let tree = FaultyTree::new(cluster.server.connect(), FaultPlan::none());
    let running = cluster.nimbus_on("a", Arc::clone(&tree) as _).await;
    let handle = cluster.leading(&running).await;
    put(&handle, "wc").await;
    let what = format!("{plan:?}");
    tree.set_plan(plan);
    let id = submit(&handle, "wc").await.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    cluster.placed(&id).await;
    let parallelism = [("count".parse().expect("valid"), 5)].into();
    let rebalance = RebalanceRequest { wait_secs: Some(1), workers: None, parallelism, restart: false };
    let changed = handle.change("wc", Change::Rebalance(rebalance), None).await;
    changed.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    let store = Store::new(Arc::clone(&cluster.tree));
    wait_until("the rebalance is done", LONG, || async {
        let tasks = store.tasks(&id).await.expect("read").expect("there");
        if tasks.value.n_tasks() == 7 { Ok(()) } else { Err(what.clone()) }
    })
    .await;
    handle.change("wc", kill(1), None).await.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    wait_until("nothing is left", LONG, || cluster.is_gone(&id)).await;
    wait_until("the supervisor assignments are empty", LONG, || async {
        let assignments =
            store.supervisor_assignments(&"s0".parse().expect("valid")).await.expect("read").expect("there");
        if assignments.value.topologies.is_empty() { Ok(()) } else { Err(format!("{assignments:?}")) }
    })
    .await;
    tree.n_writes()
}

#[tokio::test(start_paused = true)]
async fn whichever_write_fails_every_change_is_made_once() {
    let n_writes = life_with(FaultPlan::none()).await;
    assert!(n_writes >= 9, "{n_writes}");
    for n in 1..=n_writes {
        for fault in [TreeFault::LostResponse, TreeFault::LostRequest] {
            life_with(FaultPlan::none().fail_nth_write(n, fault)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_reported_and_other_topologies_are_placed() {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let running = cluster.nimbus("a").await;
    let handle = cluster.leading(&running).await;
    let bad = submit(&handle, "bad").await.expect("accepted");
    cluster.placed(&bad).await;
    cluster.tree.set(&layout::storm(&bad), b"garbage", None).await.expect("written");
    let good = submit(&handle, "good").await.expect("accepted");
    cluster.placed(&good).await;
    wait_until("it is reported", LONG, || async {
        let findings = handle.status().findings;
        if findings.iter().any(|finding| finding.topology.as_ref() == Some(&bad)) {
            Ok(())
        } else {
            Err(format!("{findings:?}"))
        }
    })
    .await;
    let refused = submit(&handle, "bad").await.expect_err("the name may be in use");
    assert!(matches!(refused, Refusal::NameUnclear { .. }), "{refused}");
    for topology in [bad.as_str(), "bad"] {
        let refused = handle.change(topology, kill(0), None).await.expect_err("unreadable");
        assert!(matches!(refused, Refusal::Unreadable { .. }), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_nimbus_in_the_same_directory_cannot_start() {
    let cluster = Cluster::new();
    let running = cluster.nimbus("a").await;
    let options = running.nimbus.handle().options().clone();
    let (tree, stop) = (cluster.server.connect(), CancellationToken::new());
    let refused = start(options, clients(), tree, cluster.clock.clone(), stop).await;
    assert!(matches!(refused, Err(Error::Identity(locked_dir::Error::InUse { .. }))));
    // Keeps the directory up to this line.
    drop(cluster);
}

#[tokio::test(start_paused = true)]
async fn leadership_that_is_taken_away_again_and_again_causes_few_elections() {
    let cluster = Cluster::new();
    let running = cluster.nimbus("a").await;
    let handle = cluster.leading(&running).await;
    let before = handle.leader().expect("it leads").term;
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while tokio::time::Instant::now() < end {
        // Absent while the nimbus pauses.
        let _absent = cluster.tree.delete(&layout::leader(), None).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let handle = cluster.leading(&running).await;
    let n_elections = handle.leader().expect("it leads").term.0 - before.0;
    assert!((10..=70).contains(&n_elections), "{n_elections} elections in a minute");
}

#[tokio::test(start_paused = true)]
async fn task_table_that_contradicts_the_topology_is_reported_and_changes_nothing() {
    let cluster = Cluster::new();
    cluster.supervisor("s0", 4).await;
    let running = cluster.nimbus("a").await;
    let handle = cluster.leading(&running).await;
    let id = submit(&handle, "wc").await.expect("accepted");
    let placed = cluster.placed(&id).await;
    let good = cluster.tree.get(&layout::tasks(&id)).await.expect("read").expect("there").data;
    let all = placed.value.tasks();
    let wrong = [
        (format!(r#"{{"v":1,"components":{{"nope":"{all}"}}}}"#), "the topology has no component nope"),
        (
            r#"{"v":1,"components":{"lines":"1"}}"#.to_owned(),
            "the component count of the topology has no tasks",
        ),
    ];
    for (data, reason) in wrong {
        cluster.tree.set(&layout::tasks(&id), data.as_bytes(), None).await.expect("written");
        wait_until("it is reported", LONG, || async {
            let found = handle.status().findings.iter().map(|it| it.problem.to_string()).collect::<Vec<_>>();
            let is_it = |text: &String| text.contains(reason) && text.contains("; correct it with zkCli");
            if found.iter().any(is_it) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.placed(&id).await, placed, "no worker is ended");
        cluster.tree.set(&layout::tasks(&id), &good, None).await.expect("written");
        wait_until("it is over", LONG, || async {
            let found = handle.status().findings;
            if found.iter().any(|it| it.problem.to_string().contains(reason)) {
                Err(format!("{found:?}"))
            } else {
                Ok(())
            }
        })
        .await;
    }
}
