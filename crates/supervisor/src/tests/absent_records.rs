//! Records that were deleted by hand: no worker ends before a leader has looked.

use super::*;
use stormkeeper_model::status::TopologyStatus;

/// A supervisor that runs a worker of topology 1 on port 6700.
async fn running() -> (World, Supervisor) {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    world.running_is(&[(6700, 1)]).await;
    supervisor.slot_is(6700, "running").await;
    (world, supervisor)
}

impl World {
    async fn delete(&self, path: &TreePath) {
        self.tree.delete(path, None).await.expect("deleted");
    }

    /// Checks that the worker of port 6700 runs on, through several passes of the reader.
    async fn runs_on(&self, without: &str) {
        self.pass(200).await;
        self.running_is(&[(6700, 1)]).await;
        assert_eq!((self.processes.n_launched(), self.processes.signals()), (1, vec![]), "without {without}");
    }
}

#[tokio::test(start_paused = true)]
async fn worker_runs_on_without_the_supervisor_assignments() {
    let (world, supervisor) = running().await;
    let path = layout::supervisor_assignments(&supervisor.me);
    world.delete(&path).await;
    world.runs_on("the supervisor assignments").await;
    let problems = supervisor.status.borrow().problems.clone();
    assert!(problems[0].starts_with("the supervisor assignments do not exist"), "{problems:?}");

    // A supervisor that starts meanwhile adopts the worker.
    supervisor.stop().await;
    let supervisor = world.supervisor().await;
    world.runs_on("the supervisor assignments at the start").await;

    // The leader writes them again.
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    world.runs_on("anything wrong").await;
    assert_eq!(supervisor.status.borrow().problems, [""; 0]);
    world.assign(&supervisor.me, &[]).await;
    world.running_is(&[]).await;
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn worker_runs_on_without_the_assignment_until_a_leader_has_placed_the_topology() {
    let (world, supervisor) = running().await;
    world.delete(&layout::assignment(&topology(1))).await;
    world.runs_on("the assignment").await;
    let problems = supervisor.status.borrow().problems.clone();
    assert!(problems[0].starts_with("/assignments/t1-1-100 does not exist"), "{problems:?}");

    world.delete(&layout::supervisor_assignments(&supervisor.me)).await;
    world.runs_on("both").await;

    world.assign(&supervisor.me, &[(1, &[(6701, 9)])]).await;
    world.running_is(&[(6701, 1)]).await;
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn assignment_elsewhere_ends_the_worker_without_the_supervisor_assignments() {
    let (world, supervisor) = running().await;
    world.delete(&layout::supervisor_assignments(&supervisor.me)).await;
    world.runs_on("the supervisor assignments").await;
    // As for a host that comes back after its tasks were placed elsewhere.
    let elsewhere = AssignedWorker {
        host: "other".to_owned(),
        tasks: TaskSet::range(1, 4),
        start: Timestamp::from_millis(9),
    };
    let slot = Slot { supervisor: "other".parse().expect("valid id"), port: Port(6700) };
    let assignment = Assignment { workers: [(slot, elsewhere)].into(), ..Assignment::default() };
    world.put(&layout::assignment(&topology(1)), record::encode_assignment(&assignment)).await;
    world.running_is(&[]).await;
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn worker_of_a_killed_or_removed_topology_ends_although_records_are_absent() {
    for is_removed in [false, true] {
        let (world, supervisor) = running().await;
        let (storm, assignment) = (layout::storm(&topology(1)), layout::assignment(&topology(1)));
        match is_removed {
            false => {
                let killed = TopologyRecord { status: TopologyStatus::Killed, ..topology_record(1) };
                world.put(&storm, record::encode(&killed)).await;
            }
            true => world.delete(&storm).await,
        }
        world.delete(&layout::supervisor_assignments(&supervisor.me)).await;
        world.delete(&assignment).await;
        world.running_is(&[]).await;
        supervisor.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn worker_runs_on_for_a_minute_while_only_its_own_assignment_names_the_supervisor() {
    let (world, supervisor) = running().await;
    let path = layout::supervisor_assignments(&supervisor.me);
    let good = world.tree.get(&path).await.expect("read").expect("there").data;
    for _ in 0..2 {
        world.put(&path, record::encode(&SupervisorAssignments::default())).await;
        world.pass(40).await;
        world.running_is(&[(6700, 1)]).await;
        let problems = supervisor.status.borrow().problems.clone();
        assert!(problems[0].contains("does not name the topology, although /assignments/"), "{problems:?}");
        // The leader writes it again.
        world.put(&path, good.to_vec()).await;
        world.runs_on("anything wrong").await;
    }
    world.put(&path, record::encode(&SupervisorAssignments::default())).await;
    world.pass(100).await;
    world.running_is(&[]).await;
    supervisor.stop().await;
}
