//! Tests of an agent with real processes: shell scripts that write heartbeats.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::process::{ProcessId, environment::WorkerEnvironment, os::OsProcesses};

/// A program that writes ten heartbeats a second and exits on SIGTERM.
const WORKER: &str = "#!/bin/sh
n=0
while :; do
  n=$((n + 1))
  echo $n >heartbeat.tmp
  mv heartbeat.tmp heartbeat
  sleep 0.1
done
";

impl World {
    fn os_processes(&self) -> Arc<OsProcesses> {
        let program = self.path("worker.sh");
        fs::write(&program, WORKER).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        let environment = WorkerEnvironment::select(std::env::vars_os(), &[]);
        Arc::new(OsProcesses::new(program, self.dir.path().to_owned(), environment))
    }
}

impl Supervisor {
    /// Returns the process in a slot, once it has written a heartbeat and is not `before`.
    async fn process_other_than(&self, port: u16, before: Option<ProcessId>) -> ProcessId {
        wait_until("a process has written a heartbeat", TIMEOUT, || async {
            let slot = self.slot(port);
            match slot.process {
                Some(process) if slot.state == "running" && Some(process) != before => Ok(process),
                _ => Err(format!("{slot:?}")),
            }
        })
        .await
    }
}

#[tokio::test]
async fn killed_worker_is_replaced_and_adopted_by_a_restarted_supervisor() {
    let world = World::new().await;
    let processes = world.os_processes();
    let first = world.supervisor_of(processes.clone()).await;
    world.assign(&first.me, &[(1, &[(6700, 5)])]).await;
    let original = first.process_other_than(6700, None).await;

    processes.signal(original, StopSignal::Kill).expect("signalled");
    let killed = world.clock.monotonic();
    let replaced = first.process_other_than(6700, Some(original)).await;
    println!("running again after {:?}", world.clock.monotonic().since(killed));
    assert!(!processes.is_alive(original) && processes.is_alive(replaced));
    first.stop().await;
    assert!(processes.is_alive(replaced), "workers outlive their supervisor");

    // A new table of children, as in a new supervisor process: the worker is not its child.
    let world = World { on_stop: OnStop::StopWorkers, ..world };
    let next = world.os_processes();
    let second = world.supervisor_of(next.clone()).await;
    assert_eq!(second.process_other_than(6700, None).await, replaced);
    second.stop().await;
    assert!(!next.is_alive(replaced));
}

#[tokio::test]
async fn assignment_starts_a_process_promptly() {
    let world = World { on_stop: OnStop::StopWorkers, ..World::new().await };
    let supervisor = world.supervisor_of(world.os_processes()).await;
    let mut status = supervisor.status.clone();
    status.wait_for(|status| status.has_assignments).await.expect("running");
    let mut waits = Vec::new();
    for start in 1..=5 {
        let assigned_at = world.clock.monotonic();
        world.assign(&supervisor.me, &[(1, &[(6700, start)])]).await;
        let launched = |status: &Status| {
            let slot = &status.slots[&Port(6700)];
            slot.process.is_some() && matches!(slot.state, "starting" | "running")
        };
        status.wait_for(launched).await.expect("running");
        waits.push(world.clock.monotonic().since(assigned_at));
        world.assign(&supervisor.me, &[]).await;
        supervisor.slot_is(6700, "empty").await;
    }
    waits.sort();
    println!("from assignment to process: {waits:?}");
    supervisor.stop().await;
}
