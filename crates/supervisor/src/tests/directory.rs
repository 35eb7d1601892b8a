//! Files that are deleted or damaged under a running supervisor.

use super::*;

#[tokio::test(start_paused = true)]
async fn deleted_directory_of_a_running_supervisor_is_put_back_and_its_workers_stay() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    world.running_is(&[(6700, 1)]).await;
    supervisor.slot_is(6700, "running").await;
    let id = fs::read_to_string(world.path("supervisor-id")).expect("read");
    for name in ["supervisor-id", "supervisor.lock", "layout", "ledger", "blobs"] {
        let path = world.path(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("deleted");
    }
    world.pass(20).await;
    assert_eq!(fs::read_to_string(world.path("supervisor-id")).expect("put back"), id);
    for name in ["supervisor.lock", "layout", "ledger/6700.json"] {
        assert!(world.path(name).exists(), "{name} was not put back");
    }
    assert_eq!((world.processes.running().len(), world.processes.n_launched()), (1, 1));
    supervisor.stop().await;
    // The next supervisor adopts the worker.
    let supervisor = world.supervisor().await;
    world.pass(20).await;
    assert_eq!((world.processes.running().len(), world.processes.n_launched()), (1, 1));
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn damaged_code_is_put_aside_and_not_run() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    let code = world.path("blobs").join(blob(1).as_str());
    fs::write(code.join("topology.json"), "{\"na").expect("cut");
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    world.pass(10).await;
    supervisor.slot_is(6700, "localizing").await;
    assert_eq!(world.processes.n_launched(), 0);
    let aside = world.path("blobs").join(format!("{}.damaged", blob(1)));
    assert_eq!(fs::read_to_string(aside.join("topology.json")).expect("kept"), "{\"na");
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failed_write_is_in_the_record_until_it_succeeds_and_costs_no_running_worker() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    supervisor.slot_is(6700, "running").await;
    // A directory in the way of each write, also for root: of the probe, and of an entry.
    let in_the_way = ["write-probe", "ledger/6701.json.tmp"].map(|name| world.path(name));
    for path in &in_the_way {
        fs::create_dir(path).expect("created");
    }
    let failing = world.clock.monotonic();
    let text = |begin: PathBuf| format!("supervisor at h cannot write {} since", begin.display());
    reports(&world, &supervisor, &[&text(world.dir.path().to_owned())]).await;
    assert!(world.clock.monotonic().since(failing) < Duration::from_secs(10));

    fs::remove_dir(&in_the_way[0]).expect("removed");
    world.assign(&supervisor.me, &[(1, &[(6700, 5)]), (2, &[(6701, 5)])]).await;
    reports(&world, &supervisor, &[&text(world.path("ledger/6701.json"))]).await;
    assert_eq!((world.processes.running().len(), world.processes.n_launched()), (1, 1));

    fs::remove_dir(&in_the_way[1]).expect("removed");
    world.running_is(&[(6700, 1), (6701, 2)]).await;
    reports(&world, &supervisor, &[]).await;
    supervisor.stop().await;
}

/// As after a copy of the data directory to another host.
#[tokio::test(start_paused = true)]
async fn supervisor_whose_registration_is_replaced_reports_the_other_host_for_a_while() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    reports(&world, &supervisor, &[]).await;
    let path = layout::supervisor(&supervisor.me);
    let data = world.tree.get(&path).await.expect("read").expect("there").data;
    let mut other: record::SupervisorRecord = record::decode(&path, &data).expect("readable");
    other.host = "elsewhere".to_owned();
    let twin = world.server.connect();
    twin.delete(&path, None).await.expect("deleted");
    twin.create(&path, &record::encode(&other), CreateMode::Ephemeral).await.expect("created");
    reports(&world, &supervisor, &[&format!("two supervisors run with the id {}, at ", supervisor.me)]).await;
    world.pass(120).await;
    reports(&world, &supervisor, &[]).await;
    supervisor.stop().await;
}
