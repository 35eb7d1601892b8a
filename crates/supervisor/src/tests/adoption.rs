//! Workers that outlive their supervisor.

use super::*;

#[test]
fn directory_of_an_earlier_build_is_refused_and_not_changed() {
    for trace in ["supervisor-id", "ledger", "workers"] {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join(trace), "").expect("written");
        let refused = acquire(dir.path()).expect_err("refused");
        let is_unversioned =
            matches!(refused, locked_dir::Error::Layout(layout_file::Error::Unversioned { .. }));
        assert!(is_unversioned, "{refused}");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn next_supervisor_adopts_assigned_workers_and_stops_the_others() {
    let world = World::new().await;
    let first = world.supervisor().await;
    let me = first.me.clone();
    world.assign(&me, &[(1, &[(6700, 5)]), (2, &[(6701, 5)])]).await;
    world.running_is(&[(6700, 1), (6701, 2)]).await;
    first.slot_is(6700, "running").await;
    first.stop().await;
    assert_eq!(world.processes.running().len(), 2, "workers outlive their supervisor");

    world.assign(&me, &[(1, &[(6700, 5)]), (3, &[(6701, 6)])]).await;
    let second = world.supervisor().await;
    assert_eq!(second.me, me);
    world.running_is(&[(6700, 1), (6701, 3)]).await;
    second.slot_is(6701, "running").await;
    world.pass(100).await;
    assert_eq!(world.processes.n_launched(), 3, "the first worker was adopted");
    world.processes.end_all(ExitReport::Unknown);
    world.running_is(&[(6700, 1), (6701, 3)]).await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn worker_on_a_port_of_an_earlier_configuration_runs_on_and_is_not_relaunched() {
    let mut world = World::new().await;
    let first = world.supervisor().await;
    world.assign(&first.me, &[(1, &[(6700, 5)])]).await;
    first.slot_is(6700, "running").await;
    first.stop().await;
    world.ports = vec![Port(6702)];
    let second = world.supervisor().await;
    world.pass(100).await;
    world.running_is(&[(6700, 1)]).await;
    assert_eq!(world.processes.n_launched(), 1, "the worker was adopted");
    let problem = "port 6700 is assigned but is not a port of this supervisor";
    assert_eq!(second.status.borrow().problems, [problem]);
    world.processes.end_all(ExitReport::Unknown);
    world.running_is(&[]).await;
    world.pass(100).await;
    assert_eq!(world.processes.n_launched(), 1, "there is no such slot any more");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn launch_without_a_recorded_process_is_found_again() {
    let world = World::new().await;
    let first = world.supervisor().await;
    world.assign(&first.me, &[(1, &[(6700, 5)])]).await;
    first.slot_is(6700, "running").await;
    first.stop().await;
    // As if the supervisor had died between the launch and the record of its process.
    let file = world.path("ledger/6700.json");
    let mut entry: serde_json::Value = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
    assert!(entry.as_object_mut().expect("object").remove("process").is_some());
    fs::write(&file, entry.to_string()).expect("written");

    let second = world.supervisor().await;
    second.slot_is(6700, "running").await;
    world.pass(100).await;
    assert_eq!(world.processes.n_launched(), 1);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn damaged_or_deleted_ledger_entry_is_recovered_from_the_launch_spec_and_its_worker_runs_on() {
    let world = World::new().await;
    let first = world.supervisor().await;
    world.assign(&first.me, &[(1, &[(6700, 5)])]).await;
    first.slot_is(6700, "running").await;
    first.stop().await;
    let path = world.path("ledger/6700.json");
    let entry = fs::read(&path).expect("read");
    let damages: [&dyn Fn(); 2] =
        [&|| fs::write(&path, &entry[..entry.len() / 2]).expect("written"), &|| {
            fs::remove_file(&path).expect("deleted")
        }];
    for damage in damages {
        damage();
        let next = world.supervisor().await;
        next.slot_is(6700, "running").await;
        world.pass(100).await;
        assert_eq!((world.processes.running().len(), world.processes.n_launched()), (1, 1));
        assert_eq!(fs::read(&path).expect("written again"), entry);
        reports(&world, &next, &[]).await;
        next.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_ledger_and_spec_cost_one_restart_which_is_reported_and_nothing_runs_twice() {
    let world = World::new().await;
    let first = world.supervisor().await;
    world.assign(&first.me, &[(1, &[(6700, 5)])]).await;
    first.slot_is(6700, "running").await;
    first.stop().await;
    fs::write(world.path("ledger/6700.json"), "{").expect("written");
    let (_, spec) = world.processes.running().remove(0);
    fs::write(spec.path(), "{").expect("written");
    let second = world.supervisor().await;
    second.slot_is(6700, "running").await;
    world.running_is(&[(6700, 1)]).await;
    assert_eq!(world.processes.n_launched(), 2);
    let begin = "the worker at h:6700 was launched again when its supervisor started";
    reports(&world, &second, &[begin]).await;
    world.pass(610).await;
    reports(&world, &second, &[]).await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn second_supervisor_in_the_same_directory_is_rejected() {
    let world = World::new().await;
    let _first = world.agent(world.processes.clone()).await.expect("started");
    let error = world.agent(world.processes.clone()).await.expect_err("refused").to_string();
    assert!(error.contains(&world.dir.path().display().to_string()), "{error}");
}
