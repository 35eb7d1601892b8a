//! A host with its supervisors, for the tests of this folder.

use super::*;
use stormkeeper_access::locks::ZooKeeperProblems;
use stormkeeper_access::tls::client::ClientTls;
use stormkeeper_coordination::cluster::users::HeldUsers;

pub(super) const TIMEOUT: Duration = Duration::from_secs(600);

/// A host and the tree, which outlive the supervisors of a test.
pub(super) struct World {
    pub(super) dir: TempDir,
    pub(super) server: MemoryTree,
    pub(super) tree: Arc<dyn Tree>,
    pub(super) processes: Arc<FakeProcesses>,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) on_stop: OnStop,
    pub(super) ports: Vec<Port>,
    /// Faults injected between supervisors and the tree.
    pub(super) faults: FaultRates,
}

/// A running supervisor.
pub(super) struct Supervisor {
    pub(super) me: SupervisorId,
    pub(super) status: stormkeeper_runtime::watch::Receiver<Status>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: Tasks,
    /// File that it locks.
    lock: PathBuf,
}

impl Supervisor {
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // Not by cancelling the supervisor's task, which would drop it in the middle.
        let mut status = self.status;
        while status.changed().await.is_ok() {}
        assert!(self.tasks.stop(TIMEOUT).await);
        // A check of the directory in a thread holds the lock until it ends, as a process does.
        wait_until("its directory is free", TIMEOUT, || async {
            let file = std::fs::File::open(&self.lock).map_err(|error| error.to_string())?;
            file.try_lock().map_err(|error| error.to_string())
        })
        .await;
    }

    pub(super) fn slot(&self, port: u16) -> status::SlotStatus {
        self.status.borrow().slots[&Port(port)].clone()
    }

    pub(super) async fn slot_is(&self, port: u16, state: &str) {
        wait_until(&format!("slot {port} is {state}"), TIMEOUT, || async {
            let slot = self.slot(port);
            if slot.state == state { Ok(()) } else { Err(format!("{slot:?}")) }
        })
        .await;
    }
}

pub(super) fn topology(n: u8) -> TopologyId {
    format!("t{n}-1-100").parse().expect("valid id")
}

pub(super) fn blob(n: u8) -> BlobKey {
    BlobKey::of(&[n])
}

/// Placement of the tasks 1 to 4 of a topology on one host: `(port, start)`.
pub(super) type Placement<'a> = (u8, &'a [(u16, u64)]);

pub(super) fn acquire(dir: &Path) -> Result<LockedDir<SupervisorId>, locked_dir::Error> {
    LockedDir::acquire(dir, &super::start::LAYOUT, "h")
}

impl World {
    pub(super) async fn new() -> Self {
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

    pub(super) fn add_blob(&self, n: u8) {
        let dir = self.path("blobs").join(blob(n).as_str());
        fs::create_dir_all(&dir).expect("created");
        fs::write(dir.join("topology.json"), "{}").expect("written");
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) async fn agent(&self, processes: Arc<dyn Processes>) -> Result<Agent, Error> {
        let options = Options {
            local_dir: self.dir.path().to_owned(),
            host: "h".to_owned(),
            ports: self.ports.clone(),
            agent: None,
            exposed: None,
            held_users: HeldUsers::none(),
            zookeeper_problems: ZooKeeperProblems::default(),
            platform: None,
            capacity: Default::default(),
            worker_start_timeout: Duration::from_secs(120),
            worker_timeout: Duration::from_secs(30),
            worker_shutdown_grace: Duration::from_secs(3),
            unused_blob_retention: Duration::from_secs(3600),
            reconcile_period: Duration::from_secs(30),
        };
        let defaults = LaunchDefaults {
            locks: stormkeeper_access::locks::Locks::open(),
            zookeeper_users: None,
            fixed_credentials: None,
            zookeeper_identity: None,
            connections: None,
            run_as: None,
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
        let blobs = Arc::new(BlobClient::new(&ClientTls::off()).expect("made"));
        Agent::start(options, tree, processes, blobs, defaults, self.clock.clone()).await
    }

    pub(super) async fn supervisor(&self) -> Supervisor {
        self.supervisor_of(self.processes.clone()).await
    }

    pub(super) async fn supervisor_of(&self, processes: Arc<dyn Processes>) -> Supervisor {
        let agent = self.agent(processes).await.expect("started");
        let (status, stop, tasks) = (agent.status(), CancellationToken::new(), self.tasks.child());
        let me = status.borrow().supervisor.clone();
        let until = stop.clone();
        tasks.start_graceful("supervisor", OnExit::Ignore, async move {
            agent.run(until).await.expect("nothing broke");
        });
        Supervisor { me, status, stop, tasks, lock: self.path("supervisor.lock") }
    }

    pub(super) async fn put(&self, path: &TreePath, data: Vec<u8>) -> Version {
        match self.tree.get(path).await.expect("read") {
            Some(_) => self.tree.set(path, &data, None).await.expect("written"),
            None => {
                self.tree.create(path, &data, CreateMode::Persistent).await.expect("created");
                Version::FIRST
            }
        }
    }

    /// Writes assignments and, last, the supervisor assignments that name all of them. Assignments that
    /// were named before and are not any more are deleted, as the leader does.
    pub(super) async fn assign(&self, me: &SupervisorId, placements: &[Placement<'_>]) {
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
        let path = layout::supervisor_assignments(me);
        let before = self.tree.get(&path).await.expect("read").map(|node| node.data);
        let before = before.and_then(|data| record::decode::<SupervisorAssignments>(&path, &data).ok());
        for id in before.unwrap_or_default().topologies.keys() {
            if !assignments.topologies.contains_key(id) {
                // Fails if a test has deleted it.
                let _gone = self.tree.delete(&layout::assignment(id), None).await;
            }
        }
        self.put(&path, record::encode(&assignments)).await;
    }

    pub(super) async fn running_is(&self, expected: &[(u16, u8)]) {
        wait_until(&format!("{expected:?} run"), TIMEOUT, || async {
            let running = self.processes.running();
            let expected: Vec<_> = expected.iter().map(|(port, n)| (*port, topology(*n))).collect();
            let found: Vec<_> = running.iter().map(|(port, spec)| (*port, spec.topology.clone())).collect();
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    pub(super) async fn errors(&self, n: u8) -> Vec<TaskError> {
        Store::new(self.tree.clone()).errors(&topology(n), TaskId(1)).await.expect("read")
    }

    /// Lets the agent work for `secs` seconds.
    pub(super) async fn pass(&self, secs: u64) {
        tokio::time::sleep(Duration::from_secs(secs)).await;
    }
}

pub(super) fn topology_record(n: u8) -> TopologyRecord {
    TopologyRecord { blob: blob(n), ..TopologyRecord::sample(&format!("t{n}")) }
}

/// Waits until the problems of the supervisor begin with these texts.
pub(super) async fn reports(world: &World, supervisor: &Supervisor, expected: &[&str]) {
    let path = layout::supervisor(&supervisor.me);
    wait_until(&format!("the supervisor reports {expected:?}"), TIMEOUT, || async {
        let node = world.tree.get(&path).await.expect("read").ok_or("not registered")?;
        let record: record::SupervisorRecord = record::decode(&path, &node.data).expect("readable");
        let texts: Vec<_> = record.problems.iter().map(|problem| problem.text.clone()).collect();
        let is_it = texts.len() == expected.len()
            && texts.iter().zip(expected).all(|(text, begin)| text.starts_with(begin));
        if is_it { Ok(()) } else { Err(texts.join("\n")) }
    })
    .await;
}
