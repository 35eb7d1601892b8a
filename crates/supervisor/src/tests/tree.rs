//! Records that cannot be read, and a tree that is not reached.

use super::*;

#[tokio::test(start_paused = true)]
async fn workers_of_unreadable_records_keep_running() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    let placements: [Placement<'_>; 2] = [(1, &[(6700, 5)]), (2, &[(6701, 5)])];
    world.assign(&supervisor.me, &placements).await;
    world.running_is(&[(6700, 1), (6701, 2)]).await;
    let corrupt = [
        layout::assignment(&topology(1)),
        layout::storm(&topology(1)),
        layout::supervisor_assignments(&supervisor.me),
    ];
    for path in corrupt {
        world.tree.set(&path, b"nonsense", None).await.expect("written");
        // Wakes the reader as the leader would.
        world
            .tree
            .set(&layout::supervisor_assignments(&supervisor.me), b"nonsense", None)
            .await
            .expect("written");
        world.pass(100).await;
        assert_eq!(world.processes.n_launched(), 2, "{path}");
        world.assign(&supervisor.me, &placements).await;
        world.pass(100).await;
        assert_eq!(world.processes.n_launched(), 2, "{path}");
    }
    world.tree.set(&layout::assignment(&topology(1)), b"nonsense", None).await.expect("written");
    wait_until("the unreadable assignment is shown", TIMEOUT, || async {
        let problems = supervisor.status.borrow().problems.join(" ");
        if problems.contains("/assignments/t1-1-100") { Ok(()) } else { Err(problems) }
    })
    .await;
    // The worker of the unreadable assignment is even restarted; the other worker is unassigned.
    world.processes.end_all(ExitReport::Signal(9));
    world.running_is(&[(6700, 1), (6701, 2)]).await;
    let assignments = SupervisorAssignments {
        topologies: [(topology(1), Version(0))].into(),
        unknown_fields: Default::default(),
    };
    world.put(&layout::supervisor_assignments(&supervisor.me), record::encode(&assignments)).await;
    world.running_is(&[(6700, 1)]).await;
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_exits_before_its_supervisor_sees_the_change_is_not_relaunched() {
    let every_event_is_lost = FaultRates { lost_event: 1.0, ..FaultRates::default() };
    let world = World { faults: every_event_is_lost, ..World::new().await };
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    // Read by the periodic pass; the next pass is 30 s away.
    supervisor.slot_is(6700, "running").await;
    world.assign(&supervisor.me, &[]).await;
    world.pass(10).await;
    assert_eq!(supervisor.slot(6700).state, "running", "the supervisor has not read the change");
    world.processes.end_all(ExitReport::Code(0));
    world.pass(10).await;
    assert_eq!(supervisor.slot(6700).state, "empty");
    assert_eq!(world.processes.n_launched(), 1);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn workers_run_and_are_restarted_without_the_tree() {
    let world = World::new().await;
    let first = world.supervisor().await;
    world.assign(&first.me, &[(1, &[(6700, 5)])]).await;
    first.slot_is(6700, "running").await;
    world.server.set_online(false);
    world.pass(100).await;
    assert_eq!(world.processes.n_launched(), 1);
    world.processes.end_all(ExitReport::Signal(9));
    world.running_is(&[(6700, 1)]).await;
    first.stop().await;

    let second = world.supervisor().await;
    world.pass(100).await;
    assert!(!second.status.borrow().has_assignments);
    assert_eq!(second.slot(6700).state, "running");
    assert_eq!(world.processes.n_launched(), 2);
    world.server.set_online(true);
    world.assign(&second.me, &[]).await;
    world.running_is(&[]).await;
    second.stop().await;
}
