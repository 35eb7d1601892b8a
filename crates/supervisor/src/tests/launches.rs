//! Launches, failures of workers, and their ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn assigned_workers_run_and_unassigned_workers_stop() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5), (6701, 5)])]).await;
    world.running_is(&[(6700, 1), (6701, 1)]).await;
    supervisor.slot_is(6700, "running").await;
    let (_, spec) = &world.processes.running()[1];
    assert_eq!(spec.start, Timestamp::from_millis(5));
    assert_eq!(spec.code, world.path("blobs").join(blob(1).as_str()));
    assert!(spec.dir.join("pids").is_dir());

    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    // The remaining worker has all tasks now, so another launch replaces it.
    wait_until("one worker with all tasks runs", TIMEOUT, || async {
        let running = world.processes.running();
        if running.len() == 1 && world.processes.n_launched() == 3 {
            Ok(())
        } else {
            Err(format!("{running:?}"))
        }
    })
    .await;
    world.assign(&supervisor.me, &[]).await;
    world.running_is(&[]).await;
    supervisor.slot_is(6700, "empty").await;
    assert_eq!(fs::read_dir(world.path("ledger")).expect("listed").count(), 0);
    assert!(!world.processes.signals().contains(&StopSignal::Kill));
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn supervisor_is_registered_while_it_runs() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    let path = layout::supervisor(&supervisor.me);
    wait_until("the supervisor is registered", TIMEOUT, || async {
        world.tree.get(&path).await.expect("read").ok_or("not there".to_owned())
    })
    .await;
    supervisor.stop().await;
    assert_eq!(world.tree.get(&path).await.expect("read"), None);
}

#[tokio::test(start_paused = true)]
async fn killed_worker_runs_again_within_a_second() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    supervisor.slot_is(6700, "running").await;
    world.processes.end_all(ExitReport::Signal(9));
    let killed = world.clock.monotonic();
    wait_until("the next launch runs", TIMEOUT, || async {
        if world.processes.n_launched() == 2 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    assert!(world.clock.monotonic().since(killed) < Duration::from_secs(1));
    let errors = wait_until("the kill is reported", TIMEOUT, || async {
        let errors = world.errors(1).await;
        if errors.is_empty() { Err("no errors".to_owned()) } else { Ok(errors) }
    })
    .await;
    assert!(errors[0].message.ends_with("was killed by signal 9"), "{:?}", errors[0]);
    assert_eq!(errors[0].stack, "the last line");
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn crash_loop_backs_off_and_is_reported_at_most_every_ten_seconds() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.processes.behave(Behaviour::Crashes);
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    world.pass(64).await;
    // Launches at 0, 1, 3, 7, 15, 31 and 63 s.
    assert_eq!(world.processes.n_launched(), 7);
    assert_eq!(world.errors(1).await.len(), 4, "failures less than 10 s apart are reported once");
    world.processes.behave(Behaviour::Healthy);
    supervisor.slot_is(6700, "running").await;
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn missing_program_is_reported() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.processes.behave(Behaviour::IsMissing);
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    world.pass(10).await;
    let errors = world.errors(1).await;
    assert!(errors[0].message.contains("cannot start worker: no such program"), "{errors:?}");
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn silent_worker_is_killed_and_relaunched() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    supervisor.slot_is(6700, "running").await;
    world.pass(300).await;
    assert_eq!(world.processes.n_launched(), 1, "a worker with heartbeats keeps running");
    world.processes.behave(Behaviour::Hangs);
    world.pass(35).await;
    world.processes.behave(Behaviour::Healthy);
    supervisor.slot_is(6700, "running").await;
    assert_eq!(world.processes.signals(), [StopSignal::Terminate, StopSignal::Kill]);
    assert_eq!(world.processes.n_launched(), 2);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn unavailable_blob_delays_only_its_own_slot() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    // No nimbus has the blob of topology 9.
    world.assign(&supervisor.me, &[(9, &[(6700, 5)]), (1, &[(6701, 5)])]).await;
    world.running_is(&[(6701, 1)]).await;
    supervisor.slot_is(6701, "running").await;
    assert_eq!(supervisor.slot(6700).state, "localizing");
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn missing_code_is_not_run_and_does_not_delay_other_slots() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    fs::remove_dir_all(world.path("blobs").join(blob(1).as_str())).expect("removed");
    world.assign(&supervisor.me, &[(1, &[(6700, 5)]), (2, &[(6701, 5)])]).await;
    supervisor.slot_is(6701, "running").await;
    world.pass(10).await;
    supervisor.slot_is(6700, "localizing").await;
    assert_eq!(world.processes.n_launched(), 1);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stop_workers_option_stops_workers_with_their_supervisor() {
    let world = World { on_stop: OnStop::StopWorkers, ..World::new().await };
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)]), (2, &[(6701, 5)])]).await;
    world.running_is(&[(6700, 1), (6701, 2)]).await;
    world.processes.behave(Behaviour::Hangs);
    supervisor.stop().await;
    assert_eq!(world.processes.running(), []);
}

#[tokio::test(start_paused = true)]
async fn two_topologies_in_one_slot_are_reported_and_only_the_later_runs() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)]), (2, &[(6700, 6)])]).await;
    world.running_is(&[(6700, 2)]).await;
    world.pass(100).await;
    assert_eq!(world.processes.n_launched(), 1);
    assert_eq!(supervisor.status.borrow().problems.len(), 1);
    supervisor.stop().await;
}
