//! Failures and restarts in the record of the supervisor, on a virtual clock.

use super::*;
use stormkeeper_coordination::cluster::{
    failure::{FailureKind, ReportedFailure},
    record::SupervisorRecord,
};
use stormkeeper_topology_package::worker_restarts::{ComponentRestarts, RESTARTS_FILE, WorkerRestarts};

impl World {
    /// The record of the supervisor and the version of its znode.
    async fn record(&self, me: &SupervisorId) -> (SupervisorRecord, Version) {
        let path = layout::supervisor(me);
        let node = self.tree.get(&path).await.expect("read").expect("registered");
        (record::decode(&path, &node.data).expect("readable"), node.stat.version)
    }

    async fn failures(&self, me: &SupervisorId) -> Vec<ReportedFailure> {
        self.record(me).await.0.failures
    }
}

impl World {
    /// Runs a supervisor for some seconds and ends it without a stop.
    async fn run_and_kill(&self) {
        let agent = self.agent(self.processes.clone()).await.expect("started");
        let run = agent.run(CancellationToken::new());
        let _killed = tokio::time::timeout(Duration::from_secs(5), run).await.expect_err("runs on");
    }
}

#[tokio::test(start_paused = true)]
async fn worker_that_never_starts_is_a_failed_launch_of_its_placement() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.processes.behave(Behaviour::IsMissing);
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    // Launches at 0, 1, 3 and 7 s.
    world.pass(10).await;
    let failures = world.failures(&supervisor.me).await;
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!((failure.kind, failure.port, failure.n), (FailureKind::Launch, Some(Port(6700)), 4));
    assert_eq!(failure.topology, Some(topology(1)));
    assert_eq!(failure.placed, Some(Timestamp::from_millis(5)));
    assert_eq!(failure.reason, "could not be launched: cannot start worker: no such program");
    assert!(!failure.everywhere);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_ends_after_its_first_heartbeat_is_a_failure_of_its_topology_and_not_of_the_host() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.processes.behave(Behaviour::CrashesAfterStart);
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    world.pass(10).await;
    let failures = world.failures(&supervisor.me).await;
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!((failure.kind, failure.placed), (FailureKind::Topology, Some(Timestamp::from_millis(5))));
    assert!(failure.n >= 3, "{failure:?}");
    // One that ends before it says the least about its topology.
    world.processes.behave(Behaviour::Crashes);
    world.pass(120).await;
    let kinds: Vec<_> = world.failures(&supervisor.me).await.iter().map(|failure| failure.kind).collect();
    assert_eq!(kinds, [FailureKind::Launch, FailureKind::Topology]);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn code_that_cannot_be_fetched_is_a_task_error_and_a_failure_of_every_host() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    // No nimbus has the blob of topology 9.
    world.assign(&supervisor.me, &[(9, &[(6700, 5)])]).await;
    world.pass(10).await;
    let failures = world.failures(&supervisor.me).await;
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!((failure.kind, &*failure.reason), (FailureKind::Code, "no nimbus has the blob"));
    assert!(failure.everywhere);
    let errors = world.errors(9).await;
    let expected = "the code of the topology cannot be brought to h: no nimbus has the blob";
    assert_eq!(errors[0].message, expected);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn worker_that_is_killed_again_and_again_is_a_failure_and_forgotten_after_the_window() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    for n in 1..=3 {
        supervisor.slot_is(6700, "running").await;
        assert_eq!(world.failures(&supervisor.me).await, [], "{n} restarts");
        world.processes.end_all(ExitReport::OutOfMemory);
        world.pass(5).await;
    }
    let failures = world.failures(&supervisor.me).await;
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!((failure.kind, failure.n), (FailureKind::Worker, 3));
    assert_eq!(failure.reason, "was killed by signal 9: out of memory");
    supervisor.slot_is(6700, "running").await;
    world.pass(660).await;
    assert_eq!(world.failures(&supervisor.me).await, []);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restarts_of_components_are_read_from_the_file_of_their_worker() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.assign(&supervisor.me, &[(1, &[(6700, 5)])]).await;
    supervisor.slot_is(6700, "running").await;
    let (_, spec) = world.processes.running().pop().expect("runs");
    let component = ComponentRestarts {
        component: "a".parse().expect("valid id"),
        n: 4,
        reason: "exit status: 1".into(),
    };
    let restarts = WorkerRestarts { components: vec![component] };
    fs::write(spec.dir.join(RESTARTS_FILE), restarts.encode()).expect("written");
    world.pass(8).await;
    let failures = world.failures(&supervisor.me).await;
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!((failure.kind, failure.n), (FailureKind::Component, 4));
    assert_eq!(failure.component.as_ref().map(ToString::to_string), Some("a".to_owned()));
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn supervisor_that_is_killed_again_and_again_reports_it_and_one_that_is_stopped_does_not() {
    let world = World::new().await;
    let first = world.supervisor().await;
    let id = first.me.clone();
    first.stop().await;
    for _ in 0..4 {
        world.supervisor().await.stop().await;
    }
    let calm = world.supervisor().await;
    world.pass(5).await;
    assert_eq!(world.failures(&id).await, [], "stopped each time");
    calm.stop().await;
    for _ in 0..3 {
        world.run_and_kill().await;
    }
    let killed = world.supervisor().await;
    world.pass(5).await;
    let failures = world.failures(&id).await;
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!((failure.kind, failure.n, failure.port), (FailureKind::Supervisor, 3, None));
    world.pass(660).await;
    assert_eq!(world.failures(&id).await, []);
    killed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn record_is_written_seldom_while_everything_fails() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    world.processes.behave(Behaviour::Crashes);
    world.assign(&supervisor.me, &[(1, &[(6700, 5)]), (9, &[(6701, 5)])]).await;
    world.pass(1200).await;
    let (record, version) = world.record(&supervisor.me).await;
    assert_eq!(record.failures.len(), 2);
    // Both back off to a retry in up to a minute.
    assert!(version.0 < 120, "{version:?} writes in 20 minutes");
    // Nothing fails any more, and the record is at rest.
    world.assign(&supervisor.me, &[]).await;
    world.pass(900).await;
    let (record, version) = world.record(&supervisor.me).await;
    assert_eq!(record.failures, []);
    world.pass(900).await;
    assert_eq!(world.record(&supervisor.me).await.1, version);
    supervisor.stop().await;
}
