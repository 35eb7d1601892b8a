//! Slots whose port another program uses.

use super::*;
use stormkeeper_coordination::cluster::record::SupervisorRecord;

async fn record(world: &World, supervisor: &Supervisor) -> Option<SupervisorRecord> {
    let path = layout::supervisor(&supervisor.me);
    let node = world.tree.get(&path).await.expect("answers")?;
    Some(record::decode(&path, &node.data).expect("readable"))
}

async fn offers(world: &World, supervisor: &Supervisor, ports: &[u16]) {
    wait_until(&format!("the slots {ports:?} are offered"), TIMEOUT, || async {
        let record = record(world, supervisor).await.ok_or("not registered")?;
        let offered: Vec<u16> = record.ports.iter().map(|port| port.0).collect();
        if offered == ports { Ok(()) } else { Err(format!("{offered:?}")) }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slot_of_a_taken_port_is_not_offered_until_the_port_is_free() {
    let world = World::new().await;
    world.processes.take_port(6701);
    let supervisor = world.supervisor().await;
    offers(&world, &supervisor, &[6700]).await;
    let record = record(&world, &supervisor).await.expect("registered");
    let [problem] = &record.problems[..] else { panic!("{:?}", record.problems) };
    assert!(problem.unusable && problem.port == Some(Port(6701)), "{problem:?}");
    assert!(problem.text.contains("port 6701 is taken"), "{problem:?}");
    world.processes.free_ports();
    offers(&world, &supervisor, &[6700, 6701]).await;
}

#[tokio::test(start_paused = true)]
async fn worker_is_not_launched_at_a_taken_port_and_starts_when_the_port_is_free() {
    let world = World::new().await;
    world.processes.take_port(6700);
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 1)])]).await;
    supervisor.slot_is(6700, "relaunching").await;
    offers(&world, &supervisor, &[6701]).await;
    assert_eq!(world.processes.n_launched(), 0);
    wait_until("the author is told", TIMEOUT, || async {
        let errors = world.errors(1).await;
        let told =
            errors.iter().any(|error| error.message.contains("could not be launched: port 6700 is taken"));
        if told { Ok(()) } else { Err(format!("{errors:?}")) }
    })
    .await;
    // Many attempts have failed by now, so the pause before the next one is long.
    tokio::time::sleep(Duration::from_secs(500)).await;
    world.processes.free_ports();
    let freed = world.clock.monotonic();
    supervisor.slot_is(6700, "running").await;
    assert!(world.clock.monotonic().since(freed) < Duration::from_secs(10));
    offers(&world, &supervisor, &[6700, 6701]).await;
}

#[tokio::test(start_paused = true)]
async fn problem_that_a_worker_reports_is_in_the_record_of_its_supervisor() {
    use stormkeeper_topology_package::worker_report::{REPORT_FILE, WorkerReport};
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 1)])]).await;
    supervisor.slot_is(6700, "running").await;
    let (_, spec) = world.processes.running().remove(0);
    let report = WorkerReport { idle: TaskSet::range(2, 3), problems: vec!["no peers".to_owned()] };
    let problems = |n: usize| {
        let (world, supervisor) = (&world, &supervisor);
        async move {
            wait_until(&format!("{n} problems"), TIMEOUT, || async {
                let record = record(world, supervisor).await.ok_or("not registered")?;
                if record.problems.len() == n { Ok(record.problems) } else { Err(format!("{record:?}")) }
            })
            .await
        }
    };
    fs::write(spec.dir.join(REPORT_FILE), report.encode()).expect("written");
    let [problem] = &problems(1).await[..] else { panic!("one problem") };
    assert_eq!((&problem.topology, &problem.idle), (&Some(topology(1)), &report.idle));
    assert!(problem.text.ends_with(":6700: no peers") && !problem.unusable, "{problem:?}");
    fs::write(spec.dir.join(REPORT_FILE), WorkerReport::default().encode()).expect("written");
    problems(0).await;
}
