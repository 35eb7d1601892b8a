//! Tests of an agent on a memory tree with fake processes, under paused time.

mod absent_records;
mod directory;
mod failures;
mod fake;
mod real;
mod stops;
mod taken_port;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use self::fake::{Behaviour, FakeProcesses};
use super::{
    process::{ExitReport, StopSignal},
    *,
};
use stormkeeper_api_types::blobs::BlobClient;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, SupervisorAssignments, TopologyRecord},
        store::Store,
    },
    tree::{
        CreateMode, TreePath, Version,
        faulty::{FaultPlan, FaultRates, FaultyTree},
        memory::MemoryTree,
    },
};
use stormkeeper_model::{
    BlobKey, Port, Slot, SupervisorId, TaskId, Timestamp, TopologyId,
    assignment::{AssignedWorker, Assignment},
    error::TaskError,
    task_set::TaskSet,
    topology::TaskTable,
};
use stormkeeper_runtime::{
    fs::{LockedDir, layout_file, locked_dir},
    tasks::{OnExit, Tasks},
    test_support::wait_until,
};

const TIMEOUT: Duration = Duration::from_secs(600);

/// A host and the tree, which outlive the supervisors of a test.
struct World {
    dir: TempDir,
    server: MemoryTree,
    tree: Arc<dyn Tree>,
    processes: Arc<FakeProcesses>,
    clock: Clock,
    tasks: Tasks,
    on_stop: OnStop,
    ports: Vec<Port>,
    /// Faults injected between supervisors and the tree.
    faults: FaultRates,
}

/// A running supervisor.
struct Supervisor {
    me: SupervisorId,
    status: stormkeeper_runtime::watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: Tasks,
}

impl Supervisor {
    async fn stop(self) {
        self.stop.cancel();
        // Not by cancelling the supervisor's task, which would drop it in the middle.
        let mut status = self.status;
        while status.changed().await.is_ok() {}
        assert!(self.tasks.stop(TIMEOUT).await);
    }

    fn slot(&self, port: u16) -> status::SlotStatus {
        self.status.borrow().slots[&Port(port)].clone()
    }

    async fn slot_is(&self, port: u16, state: &str) {
        wait_until(&format!("slot {port} is {state}"), TIMEOUT, || async {
            let slot = self.slot(port);
            if slot.state == state { Ok(()) } else { Err(format!("{slot:?}")) }
        })
        .await;
    }
}

fn topology(n: u8) -> TopologyId {
    format!("t{n}-1-100").parse().expect("valid id")
}

fn blob(n: u8) -> BlobKey {
    BlobKey::of(&[n])
}

/// Placement of the tasks 1 to 4 of a topology on one host: `(port, start)`.
type Placement<'a> = (u8, &'a [(u16, u64)]);

fn acquire(dir: &Path) -> Result<LockedDir<SupervisorId>, locked_dir::Error> {
    LockedDir::acquire(dir, &super::start::LAYOUT, "h")
}

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

impl World {
    async fn new() -> Self {
        let (server, tasks) = (MemoryTree::new(), Tasks::default());
        let tree: Arc<dyn Tree> = server.connect();
        Store::new(tree.clone()).ensure_layout().await.expect("layout");
        let world = Self {
            dir: tempfile::tempdir().expect("temporary directory"),
            server,
            tree,
            processes: FakeProcesses::new(&tasks),
            clock: Clock::new(),
            tasks,
            on_stop: OnStop::LeaveWorkers,
            ports: vec![Port(6700), Port(6701)],
            faults: FaultRates::default(),
        };
        drop(acquire(world.dir.path()).expect("a new directory"));
        for n in 1..4 {
            world.add_blob(n);
        }
        world
    }

    fn add_blob(&self, n: u8) {
        let dir = self.path("blobs").join(blob(n).as_str());
        fs::create_dir_all(&dir).expect("created");
        fs::write(dir.join("topology.json"), "{}").expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn agent(&self, processes: Arc<dyn Processes>) -> Result<Agent, Error> {
        let options = Options {
            local_dir: self.dir.path().to_owned(),
            host: "h".to_owned(),
            ports: self.ports.clone(),
            capacity: Default::default(),
            worker_start_timeout: Duration::from_secs(120),
            worker_timeout: Duration::from_secs(30),
            worker_shutdown_grace: Duration::from_secs(3),
            unused_blob_retention: Duration::from_secs(3600),
            reconcile_period: Duration::from_secs(30),
        };
        let defaults = LaunchDefaults {
            config_file: None,
            overrides: Vec::new(),
            heartbeat_period: Duration::from_secs(1),
            task_heartbeat_period: Duration::from_secs(10),
            subprocess_timeout: Duration::from_secs(30),
            metric_report_period: Duration::from_secs(60),
            settings: Settings::new(),
            on_stop: self.on_stop,
            withheld_variables: Vec::new(),
            abandoned_after: Duration::from_secs(3600),
        };
        let tree = FaultyTree::new(self.server.connect(), FaultPlan::seeded(0, self.faults));
        let blobs = Arc::new(BlobClient::new().expect("made"));
        Agent::start(options, tree, processes, blobs, defaults, self.clock.clone()).await
    }

    async fn supervisor(&self) -> Supervisor {
        self.supervisor_of(self.processes.clone()).await
    }

    async fn supervisor_of(&self, processes: Arc<dyn Processes>) -> Supervisor {
        let agent = self.agent(processes).await.expect("started");
        let (status, stop, tasks) = (agent.status(), CancellationToken::new(), self.tasks.child());
        let me = status.borrow().supervisor.clone();
        let until = stop.clone();
        tasks.start_graceful("supervisor", OnExit::Ignore, async move {
            agent.run(until).await.expect("nothing broke");
        });
        Supervisor { me, status, stop, tasks }
    }

    async fn put(&self, path: &TreePath, data: Vec<u8>) -> Version {
        match self.tree.get(path).await.expect("read") {
            Some(_) => self.tree.set(path, &data, None).await.expect("written"),
            None => {
                self.tree.create(path, &data, CreateMode::Persistent).await.expect("created");
                Version::FIRST
            }
        }
    }

    /// Writes assignments and, last, the supervisor assignments that name all of them.
    async fn assign(&self, me: &SupervisorId, placements: &[Placement<'_>]) {
        let mut assignments = SupervisorAssignments::default();
        for (n, workers) in placements {
            let (id, mut first) = (topology(*n), 1);
            let mut assignment = Assignment::default();
            let n_tasks = 4 / u32::try_from(workers.len()).expect("few");
            for (port, start) in *workers {
                let worker = AssignedWorker {
                    host: "h".to_owned(),
                    tasks: TaskSet::range(first, first + n_tasks - 1),
                    start: Timestamp::from_millis(*start),
                };
                first += n_tasks;
                assignment.workers.insert(Slot { supervisor: me.clone(), port: Port(*port) }, worker);
            }
            self.put(&layout::storm(&id), record::encode(&topology_record(*n))).await;
            let table = TaskTable::number([("a".parse().expect("valid id"), 4)]);
            self.put(
                &layout::tasks(&id),
                record::encode(&record::TasksRecord {
                    components: table,
                    requests: Default::default(),
                    unknown_fields: Default::default(),
                }),
            )
            .await;
            self.tree.ensure(&layout::taskerrors(&id)).await.expect("created");
            self.tree.ensure(&layout::last_errors(&id)).await.expect("created");
            let data = record::encode_assignment(&assignment);
            let version = self.put(&layout::assignment(&id), data).await;
            assignments.topologies.insert(id, version);
        }
        self.put(&layout::supervisor_assignments(me), record::encode(&assignments)).await;
    }

    async fn running_is(&self, expected: &[(u16, u8)]) {
        wait_until(&format!("{expected:?} run"), TIMEOUT, || async {
            let running = self.processes.running();
            let expected: Vec<_> = expected.iter().map(|(port, n)| (*port, topology(*n))).collect();
            let found: Vec<_> = running.iter().map(|(port, spec)| (*port, spec.topology.clone())).collect();
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    async fn errors(&self, n: u8) -> Vec<TaskError> {
        Store::new(self.tree.clone()).errors(&topology(n), TaskId(1)).await.expect("read")
    }

    /// Lets the agent work for `secs` seconds.
    async fn pass(&self, secs: u64) {
        tokio::time::sleep(Duration::from_secs(secs)).await;
    }
}

fn topology_record(n: u8) -> TopologyRecord {
    TopologyRecord { blob: blob(n), ..TopologyRecord::sample(&format!("t{n}")) }
}

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
async fn damaged_ledger_costs_one_restart_and_nothing_runs_twice() {
    let world = World::new().await;
    let first = world.supervisor().await;
    world.assign(&first.me, &[(1, &[(6700, 5)])]).await;
    first.slot_is(6700, "running").await;
    first.stop().await;
    fs::write(world.path("ledger/6700.json"), "{").expect("written");
    let second = world.supervisor().await;
    second.slot_is(6700, "running").await;
    world.running_is(&[(6700, 1)]).await;
    assert_eq!(world.processes.n_launched(), 2);
    second.stop().await;
}

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
async fn second_supervisor_in_the_same_directory_is_rejected() {
    let world = World::new().await;
    let _first = world.agent(world.processes.clone()).await.expect("started");
    let error = world.agent(world.processes.clone()).await.expect_err("refused").to_string();
    assert!(error.contains(&world.dir.path().display().to_string()), "{error}");
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
