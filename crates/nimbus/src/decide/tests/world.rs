//! Model of the tree for decisions: the znodes as a map, and the time.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    decide::{Moment, decide},
    liveness::Liveness,
    plan::{Effect, Plan},
    policy::{Policy, Share},
};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{
            self, Drain, StoppedSupervisor, Stored, SupervisorRecord, TasksRecord, TopologyRecord,
            UnknownFields,
        },
        reported_problem::ReportedProblem,
        view::ClusterView,
    },
    tree::{Op, TreePath, Version},
};
use stormkeeper_model::{
    ComponentId, Slot, TaskId, Timestamp, TopologyId,
    assignment::Assignment,
    clock::Clock,
    resources::{Capacity, TaskRequest},
    status::{PendingChange, TopologyStatus},
    topology::TaskTable,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn policy() -> Policy {
    Policy {
        task_timeout: 30 * SECOND,
        task_launch: 120 * SECOND,
        supervisor_timeout: 30 * SECOND,
        lost_hosts_share_max: Share::HALF,
        settle: 15 * SECOND,
        max_moves_per_round: 1000,
    }
}

/// A cluster without a network: znodes, a clock, and the observations of one leader.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) nodes: BTreeMap<TreePath, (Vec<u8>, Version)>,
    pub(super) clock: Clock,
    pub(super) liveness: Liveness,
    pub(super) policy: Policy,
}

impl World {
    pub(super) fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let liveness = Liveness::new(clock.monotonic());
        Self { nodes: BTreeMap::new(), clock, liveness, policy: policy() }
    }

    /// `n` supervisors called `s0`, `s1`, … with `ports` slots each.
    pub(super) fn with_supervisors(n: usize, ports: u16) -> Self {
        let mut world = Self::new();
        for i in 0..n {
            world.supervisor(&format!("s{i}"), ports);
        }
        world
    }

    /// `n` supervisors that announce their stops.
    pub(super) fn with_announcers(n: usize, ports: u16) -> Self {
        let mut world = Self::new();
        for i in 0..n {
            world.announcer(&format!("s{i}"), ports);
        }
        world
    }

    /// A supervisor of an older build, which does not announce its stops.
    pub(super) fn supervisor(&mut self, id: &str, ports: u16) {
        self.register(id, ports, false);
    }

    pub(super) fn announcer(&mut self, id: &str, ports: u16) {
        self.register(id, ports, true);
    }

    fn register(&mut self, id: &str, ports: u16, announces_stop: bool) {
        let supervisor = SupervisorRecord {
            host: format!("host-{id}"),
            ports: (0..ports).map(|n| stormkeeper_model::Port(6700 + n)).collect(),
            resources: record::Resources { cpu_percent: 400, memory_mb: 4096 },
            capacity: Default::default(),
            memory_limits_unenforced: None,
            version: "0".to_owned(),
            start: Timestamp::EPOCH,
            announces_stop,
            tracks_tuples: true,
            platform: None,
            problems: Vec::new(),
            clock_ahead_ms: None,
            agent: None,
            failures: Vec::new(),
            exposed: None,
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: Default::default(),
        };
        self.put(layout::supervisor(&id.parse().expect("valid")), record::encode(&supervisor));
    }

    /// Announces another name of a host, and a problem of the whole host.
    pub(super) fn rename_host(&mut self, id: &str, host: &str, problem: Option<&str>) {
        let path = layout::supervisor(&id.parse().expect("valid"));
        let mut record: SupervisorRecord = self.read(&path).expect("registered").value;
        host.clone_into(&mut record.host);
        record.problems = problem.into_iter().map(ReportedProblem::of_supervisor).collect();
        self.put(path, record::encode(&record));
    }

    pub(super) fn set_certificate_expired(&mut self, id: &str, is_expired: bool) {
        let id = id.parse().expect("valid");
        let mut supervisor = self.view().supervisors[&id].clone();
        supervisor.certificate_expired = is_expired;
        self.put(layout::supervisor(&id), record::encode(&supervisor));
    }

    pub(super) fn remove_supervisor(&mut self, id: &str) {
        self.nodes.remove(&layout::supervisor(&id.parse().expect("valid")));
    }

    /// The supervisor stops cleanly.
    pub(super) fn stop(&mut self, id: &str) {
        let stopped = StoppedSupervisor {
            host: format!("host-{id}"),
            stopped: self.clock.now(),
            unknown_fields: UnknownFields::new(),
        };
        self.put(layout::stopped_supervisor(&id.parse().expect("valid")), record::encode(&stopped));
        self.remove_supervisor(id);
    }

    /// The supervisor comes back, and withdraws the announcement of its stop.
    pub(super) fn start(&mut self, id: &str, ports: u16) {
        self.announcer(id, ports);
        self.nodes.remove(&layout::stopped_supervisor(&id.parse().expect("valid")));
    }

    pub(super) fn drain(&mut self, host: &str, wait_secs: Option<u64>) {
        let drain = Drain {
            since: self.clock.now(),
            by: "ann".to_owned(),
            wait_secs,
            unknown_fields: UnknownFields::new(),
        };
        self.put(layout::drain(&host.parse().expect("valid")), record::encode(&drain));
    }

    pub(super) fn undrain(&mut self, host: &str) {
        self.nodes.remove(&layout::drain(&host.parse().expect("valid")));
    }

    /// The records of a new topology with one component of `n_tasks`.
    pub(super) fn submit(&mut self, name: &str, n_tasks: u32, workers: u32) -> TopologyId {
        let now = self.clock.now();
        let name = name.parse().expect("valid");
        let id = TopologyId::new(&name, 1, now);
        let component: ComponentId = "work".parse().expect("valid");
        let tasks = TasksRecord {
            components: TaskTable::number([(component, n_tasks)]),
            requests: Default::default(),
            unknown_fields: Default::default(),
        };
        let topology_record =
            TopologyRecord { launched: now, workers, ..TopologyRecord::sample(name.as_str()) };
        self.put(layout::tasks(&id), record::encode(&tasks));
        self.put(layout::taskbeats(&id), Vec::new());
        self.put(layout::taskerrors(&id), Vec::new());
        self.put(layout::last_errors(&id), Vec::new());
        self.put(layout::metrics(&id), Vec::new());
        self.put(layout::storm(&id), record::encode(&topology_record));
        id
    }

    /// As [`submit`](Self::submit), with a request of each task.
    pub(super) fn submit_with(
        &mut self,
        name: &str,
        n_tasks: u32,
        workers: u32,
        request: TaskRequest,
    ) -> TopologyId {
        let id = self.submit(name, n_tasks, workers);
        let mut tasks: TasksRecord = self.read(&layout::tasks(&id)).expect("there").value;
        tasks.requests = tasks.components.0.keys().map(|component| (component.clone(), request)).collect();
        self.put(layout::tasks(&id), record::encode(&tasks));
        id
    }

    /// Changes the capacity that a supervisor declares.
    pub(super) fn offer(&mut self, id: &str, capacity: Capacity) {
        let path = layout::supervisor(&id.parse().expect("valid"));
        let mut supervisor: SupervisorRecord = self.read(&path).expect("there").value;
        supervisor.capacity = capacity;
        self.put(path, record::encode(&supervisor));
    }

    pub(super) fn put(&mut self, path: TreePath, data: Vec<u8>) {
        let version = self.nodes.get(&path).map_or(Version::FIRST, |(_, version)| version.next());
        self.nodes.insert(path, (data, version));
    }

    pub(super) fn edit(&mut self, id: &TopologyId, edit: impl FnOnce(&mut TopologyRecord)) {
        let mut topology_record: TopologyRecord = self.read(&layout::storm(id)).expect("there").value;
        edit(&mut topology_record);
        self.put(layout::storm(id), record::encode(&topology_record));
    }

    pub(super) fn kill(&mut self, id: &TopologyId, wait: Duration) {
        let deadline = self.clock.now().plus(wait);
        self.edit(id, |topology_record| {
            topology_record.status = TopologyStatus::Killed;
            topology_record.pending = Some(PendingChange::Kill { deadline });
        });
    }

    pub(super) fn rebalance(&mut self, id: &TopologyId, wait: Duration, workers: u32, n_tasks: Option<u32>) {
        let deadline = self.clock.now().plus(wait);
        let component: ComponentId = "work".parse().expect("valid");
        self.edit(id, |topology_record| {
            topology_record.pending = Some(PendingChange::Rebalance {
                deadline,
                resume: topology_record.status,
                workers: Some(workers),
                parallelism: n_tasks.map(|n| (component, n)).into_iter().collect(),
                only_drained: false,
                restart: false,
                grow_back: false,
            });
            topology_record.status = TopologyStatus::Rebalancing;
        });
    }

    /// Creates the heartbeats of all tasks assigned to present supervisors, and of no others.
    pub(super) fn send_heartbeats(&mut self) {
        let view = self.view();
        self.nodes.retain(|path, _| {
            !(path.is_at_or_below(&layout::taskbeats_parent()) && path.parts().count() == 3)
        });
        for (id, assignment) in &view.assignments {
            for (slot, worker) in &assignment.value.workers {
                if view.supervisors.contains_key(&slot.supervisor) && view.heartbeats.contains_key(id) {
                    for task in worker.tasks.iter() {
                        self.put(layout::taskbeat(id, task), b"{}".to_vec());
                    }
                }
            }
        }
    }

    pub(super) fn silence(&mut self, id: &TopologyId, tasks: impl IntoIterator<Item = TaskId>) {
        for task in tasks {
            self.nodes.remove(&layout::taskbeat(id, task));
        }
    }

    /// Lets the leader see that the workers in these slots have drained for a change.
    pub(super) fn drained(
        &mut self,
        id: &TopologyId,
        slots: impl IntoIterator<Item = Slot>,
        change: Timestamp,
    ) {
        let slots = slots.into_iter().map(|slot| (slot, change)).collect();
        self.liveness.note_drained([(id.clone(), slots)].into());
    }

    /// Deadline of the change that a topology waits for.
    pub(super) fn deadline(&self, id: &TopologyId) -> Timestamp {
        self.topology_record(id).expect("there").pending.expect("a pending change").deadline()
    }

    /// Another leader takes over, without any observation.
    pub(super) fn fail_over(&mut self) {
        self.liveness = Liveness::new(self.clock.monotonic());
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.clock.advance(time);
    }

    pub(super) fn decide(&mut self) -> Plan {
        let view = self.view();
        let monotonic = self.clock.monotonic();
        self.liveness.observe(&view, monotonic);
        let moves_left = self.policy.max_moves_per_round;
        decide(&view, &self.liveness, Moment { wall: self.clock.now(), monotonic, moves_left }, &self.policy)
    }

    /// Applies a whole plan. Every action must be possible on the state on which it was decided.
    pub(super) fn execute(&mut self, plan: &Plan) {
        for action in &plan.actions {
            self.act(&action.effect, usize::MAX);
            self.check();
        }
    }

    /// Applies one action; of several transactions of an action, only the first `n`.
    pub(super) fn act(&mut self, effect: &Effect, n: usize) {
        if let Some(ops) = effect.ops() {
            self.multi(&ops).unwrap_or_else(|why| panic!("{effect:?} failed: {why}"));
            return;
        }
        let Effect::RemoveRecords { id } = effect else { panic!("{effect:?} has no operations") };
        let roots = [layout::taskbeats(id), layout::tasks(id), layout::taskerrors(id), layout::metrics(id)];
        let mut doomed: Vec<TreePath> = self
            .nodes
            .keys()
            .filter(|path| roots.iter().any(|root| path.is_at_or_below(root)))
            .cloned()
            .collect();
        doomed.sort_by_key(|path| std::cmp::Reverse(path.parts().count()));
        for path in doomed.into_iter().take(n) {
            self.nodes.remove(&path);
        }
    }

    /// A transaction: takes effect as a whole, or returns the reason.
    pub(super) fn multi(&mut self, ops: &[Op]) -> Result<(), String> {
        let mut nodes = self.nodes.clone();
        for op in ops {
            let path = op.path().clone();
            let is = nodes.get(&path).map(|(_, version)| *version);
            let expect = |version: Option<Version>| match (is, version) {
                (None, _) => Err(format!("{path} is not there")),
                (Some(is), Some(version)) if is != version => {
                    Err(format!("{path} is at {is}, not {version}"))
                }
                (Some(is), _) => Ok(is),
            };
            match op {
                Op::Check { version, .. } => drop(expect(*version)?),
                Op::Create { data, .. } => {
                    if is.is_some() {
                        return Err(format!("{path} is there already"));
                    }
                    nodes.insert(path, (data.clone(), Version::FIRST));
                }
                Op::Set { data, version, .. } => {
                    let is = expect(*version)?;
                    nodes.insert(path, (data.clone(), is.next()));
                }
                Op::Delete { version, .. } => {
                    expect(*version)?;
                    if nodes.keys().any(|other| other.parent().as_ref() == Some(&path)) {
                        return Err(format!("{path} has children"));
                    }
                    nodes.remove(&path);
                }
            }
        }
        self.nodes = nodes;
        Ok(())
    }

    pub(super) fn view(&self) -> ClusterView {
        let mut view = ClusterView::default();
        for (path, (data, version)) in &self.nodes {
            let parts: Vec<&str> = path.parts().collect();
            let (root, name) = (parts[0], parts[1]);
            let id = || name.parse::<TopologyId>().expect("valid");
            let read = match (root, parts.len()) {
                ("storms", 2) => record::decode(path, data).map(|value| {
                    view.topologies.insert(id(), Stored { value, version: *version });
                }),
                ("tasks", 2) => record::decode(path, data).map(|value| {
                    view.tasks.insert(id(), Stored { value, version: *version });
                }),
                ("assignments", 2) => record::decode_assignment(path, data).map(|value| {
                    view.assignments.insert(id(), Stored { value, version: *version });
                }),
                ("credentials", 2) => record::decode(path, data).map(|value| {
                    view.credentials.insert(id(), Stored { value, version: *version });
                }),
                ("supervisors", 2) => record::decode(path, data).map(|value| {
                    view.supervisors.insert(name.parse().expect("valid"), value);
                }),
                ("supervisor-assignments", 2) => record::decode(path, data).map(|value| {
                    view.supervisor_assignments
                        .insert(name.parse().expect("valid"), Stored { value, version: *version });
                }),
                ("stopped-supervisors", 2) => record::decode(path, data).map(|value| {
                    view.stopped_supervisors.insert(name.parse().expect("valid"), value);
                }),
                ("drains", 2) => record::decode(path, data).map(|value| {
                    view.drains.insert(name.parse().expect("valid"), Stored { value, version: *version });
                }),
                ("taskbeats", 2) => {
                    view.heartbeats.entry(id()).or_default();
                    Ok(())
                }
                ("taskbeats", 3) => {
                    view.heartbeats.entry(id()).or_default().insert(parts[2].parse().expect("a task"));
                    Ok(())
                }
                ("taskerrors", 2) => {
                    view.errors.insert(id());
                    Ok(())
                }
                ("blobs", 2) => {
                    view.blobs.entry(name.parse().expect("a key")).or_default();
                    Ok(())
                }
                ("blobs", 3) => {
                    let holders = view.blobs.entry(name.parse().expect("a key")).or_default();
                    holders.insert(parts[2].parse().expect("valid"));
                    Ok(())
                }
                // Empty until the leader publishes a fingerprint.
                ("metrics", 2) if data.is_empty() => {
                    let value = record::MetaFingerprint::default();
                    view.metric_fingerprints.insert(id(), Stored { value, version: *version });
                    Ok(())
                }
                ("metrics", 2) => record::decode(path, data).map(|value| {
                    view.metric_fingerprints.insert(id(), Stored { value, version: *version });
                }),
                _ => Ok(()),
            };
            if let Err(unreadable) = read {
                view.unreadable.insert(path.clone(), unreadable.defect);
            }
        }
        view
    }

    pub(super) fn assignment(&self, id: &TopologyId) -> Option<Assignment> {
        let path = layout::assignment(id);
        let (data, _) = self.nodes.get(&path)?;
        Some(record::decode_assignment(&path, data).expect("readable"))
    }

    pub(super) fn topology_record(&self, id: &TopologyId) -> Option<TopologyRecord> {
        self.read(&layout::storm(id)).map(|stored: Stored<TopologyRecord>| stored.value)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, path: &TreePath) -> Option<Stored<T>> {
        let (data, version) = self.nodes.get(path)?;
        Some(Stored { value: record::decode(path, data).expect("readable"), version: *version })
    }

    /// Applies plans until a plan is empty; panics if that takes more rounds than any sequence
    /// of steps has.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            let plan = self.decide();
            if plan.actions.is_empty() {
                return;
            }
            self.execute(&plan);
        }
        panic!("not settled: {:?}", self.decide());
    }

    /// A topology that runs: placed, with heartbeats, after the settle time of the term.
    pub(super) fn running(&mut self, name: &str, n_tasks: u32, workers: u32) -> TopologyId {
        let id = self.submit(name, n_tasks, workers);
        self.settle();
        self.send_heartbeats();
        self.decide();
        id
    }

    /// Checks the invariants of the tree.
    pub(super) fn check(&self) {
        let view = self.view();
        let mut taken: BTreeMap<Slot, &TopologyId> = BTreeMap::new();
        for (id, assignment) in &view.assignments {
            for slot in assignment.value.workers.keys() {
                if let Some(other) = taken.insert(slot.clone(), id) {
                    panic!("slot {slot} holds workers of {other} and {id}");
                }
            }
            assert!(
                view.topologies.contains_key(id) || view.is_unreadable(&layout::storm(id)),
                "orphan {id}"
            );
        }
        for (id, root) in
            view.tasks.keys().map(|id| (id, "tasks")).chain(view.heartbeats.keys().map(|id| (id, "beats")))
        {
            let known = view.topologies.contains_key(id) || view.is_unreadable(&layout::storm(id));
            assert!(known, "{root} of {id} outlived its record");
        }
    }
}
