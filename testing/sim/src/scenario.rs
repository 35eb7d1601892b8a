//! The random scenario of a run: the requests of users and the faults.
//!
//! Each run selects the kinds of its faults and the frequency of events, so that some runs have
//! many faults of one kind and others a few of every kind.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    Links,
    client::{Promise, RequestState},
    cluster::Cluster,
    connection::{Connection, SESSION_TIMEOUT},
    network::NetworkFaults,
    replica::Replica,
};
use stormkeeper_api_types::message::{KillRequest, RebalanceRequest};
use stormkeeper_coordination::{
    cluster::layout,
    tree::faulty::{FaultPlan, FaultRates},
};
use stormkeeper_model::{ComponentId, TopologyName};
use stormkeeper_nimbus::{change::Change, drain::DrainChange};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Bounds of the duration of the fault phase.
const FAULT_PHASE_MIN: Duration = Duration::from_secs(40);
const FAULT_PHASE_MAX: Duration = Duration::from_secs(240);

/// Maximum number of topologies submitted in one run.
const TOPOLOGIES_MAX: usize = 8;

/// Maximum jump of a clock.
const JUMP_MAX_MILLIS: i64 = 60_000;

/// Fault rates of a link that is bad during the whole fault phase.
const BAD_LINK: FaultRates = FaultRates {
    lost_response: 0.2,
    lost_request: 0.0,
    delay: 0.0,
    delay_max: Duration::ZERO,
    lost_event: 0.5,
};

/// A request of a user or a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScenarioEvent {
    Submit,
    Activate,
    Deactivate,
    Rebalance,
    Update,
    Kill,
    Drain,
    Undrain,
    BadLink,
    Expiry,
    Disconnect,
    FrozenLeader,
    Frozen,
    LeaderDeleted,
    TermDeleted,
    CutOffAtTakeover,
    Outage,
    NimbusDies,
    NimbusStops,
    DiskLost,
    BadNetwork,
    SupervisorDies,
    SupervisorStops,
    MachineDies,
    HostRestarts,
    HostCutOff,
    WorkerDies,
    WorkerHangs,
    ClockJumps,
    Restart,
}

use ScenarioEvent as E;

/// Requests of users, with their weights.
const WORK: &[(ScenarioEvent, u32)] = &[
    (E::Submit, 8),
    (E::Activate, 1),
    (E::Deactivate, 2),
    (E::Rebalance, 4),
    (E::Kill, 3),
    (E::Drain, 2),
    (E::Undrain, 2),
];

/// Weight of updates, in the runs that have them.
const UPDATES: (ScenarioEvent, u32) = (E::Update, 6);

/// Faults, with their weights in a run that has this kind of fault.
const FAULTS: &[(ScenarioEvent, u32)] = &[
    (E::BadLink, 6),
    (E::Expiry, 3),
    (E::Disconnect, 3),
    (E::FrozenLeader, 3),
    (E::Frozen, 2),
    (E::LeaderDeleted, 1),
    (E::CutOffAtTakeover, 2),
    (E::Outage, 1),
    (E::NimbusDies, 3),
    (E::NimbusStops, 2),
    (E::SupervisorDies, 3),
    (E::SupervisorStops, 1),
    (E::MachineDies, 1),
    (E::HostRestarts, 1),
    (E::HostCutOff, 1),
    (E::WorkerDies, 4),
    (E::WorkerHangs, 1),
    (E::ClockJumps, 2),
    (E::DiskLost, 2),
    (E::BadNetwork, 4),
    (E::TermDeleted, 1),
];

/// Generator and driver of the scenario of one run.
#[derive(Debug)]
pub(super) struct Scenario {
    random: fastrand::Rng,
    /// The possible events, with their weights.
    events: Vec<(ScenarioEvent, u32)>,
    pause_max: Duration,
    fault_phase: Duration,
    n_submitted: usize,
    /// Tasks of the faults under way, which end by themselves.
    faults: Tasks,
    links: Links,
    /// The connections whose links are bad during the whole fault phase.
    degraded: BTreeSet<u64>,
}

impl Scenario {
    pub(super) fn new(links: Links, mut random: fastrand::Rng) -> Self {
        let mut events: Vec<_> = WORK.to_vec();
        events.extend(FAULTS.iter().filter(|_| random.bool()));
        // Every run restarts what was stopped.
        events.push((E::Restart, 6));
        let fault_phase = FAULT_PHASE_MIN + (FAULT_PHASE_MAX - FAULT_PHASE_MIN).mul_f64(random.f64());
        let pause_max = Duration::from_millis(random.u64(500..=12_000));
        Self {
            random,
            events,
            pause_max,
            fault_phase,
            n_submitted: 0,
            faults: Tasks::default(),
            links,
            degraded: BTreeSet::new(),
        }
    }

    /// Adds updates to the requests of users. Without them, the runs of all seeds are as before.
    pub(super) fn with_updates(mut self) -> Self {
        self.events.push(UPDATES);
        self
    }

    /// Starts the cluster, generates events for the fault phase, and ends all faults. Returns early
    /// when an invariant is violated.
    pub(super) async fn run(mut self, cluster: &mut Cluster) {
        for n in 0..cluster.replicas.len() {
            cluster.replicas[n].start();
            tokio::time::sleep(self.random_up_to(Duration::from_secs(1))).await;
        }
        for n in 0..cluster.hosts.len() {
            cluster.hosts[n].start().await;
            tokio::time::sleep(self.random_up_to(Duration::from_secs(1))).await;
        }
        while cluster.env.now() < self.fault_phase {
            self.degrade_nimbus_links(cluster);
            let event = self.draw();
            self.apply(event, cluster).await;
            if !cluster.pass(self.random_up_to(self.pause_max)).await {
                return;
            }
        }
        // Faults under way are cancelled, so that they do not change the healed cluster later.
        self.faults = Tasks::default();
        tokio::task::yield_now().await;
        cluster.heal().await;
    }

    fn draw(&mut self) -> ScenarioEvent {
        let total = self.events.iter().map(|(_, weight)| weight).sum();
        let mut pick = self.random.u32(0..total);
        for (event, weight) in &self.events {
            match pick.checked_sub(*weight) {
                Some(rest) => pick = rest,
                None => return *event,
            }
        }
        unreachable!("the pick is below the sum of the weights")
    }

    fn random_up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.random.f64())
    }

    /// Returns a duration that is often short and sometimes long.
    fn random_duration(&mut self) -> Duration {
        let pick = self.random.f64();
        Duration::from_secs(45).mul_f64(pick * pick * pick)
    }

    async fn apply(&mut self, event: ScenarioEvent, cluster: &mut Cluster) {
        match event {
            E::Submit => self.submit(cluster),
            E::Activate | E::Deactivate | E::Rebalance | E::Update | E::Kill => self.change(event, cluster),
            E::Drain | E::Undrain => self.drain(event, cluster),
            E::BadLink => self.degrade_link(cluster),
            E::Expiry => self.any_connection(cluster).iter().for_each(|connection| connection.expire()),
            E::Disconnect | E::Frozen => {
                let Some(connection) = self.any_connection(cluster) else { return };
                let time = self.random_duration();
                self.faults.start("fault", OnExit::Ignore, async move {
                    match event {
                        E::Disconnect => connection.disconnect(time).await,
                        _ => connection.freeze(time).await,
                    }
                });
            }
            E::FrozenLeader => self.freeze_leader(cluster),
            E::LeaderDeleted => self.delete_leader(cluster, Duration::ZERO),
            E::TermDeleted => self.delete_term(cluster),
            E::CutOffAtTakeover | E::HostCutOff | E::HostRestarts => self.disturb_host(event, cluster).await,
            E::Outage => self.outage(cluster),
            E::BadNetwork => self.degrade_network(cluster),
            E::NimbusDies | E::NimbusStops | E::DiskLost => {
                let Some(replica) = self.random.choice(&mut cluster.replicas) else { return };
                match event {
                    E::NimbusDies => replica.kill(),
                    E::DiskLost => replica.lose_disk(),
                    _ => replica.stop().await,
                }
            }
            E::SupervisorDies | E::SupervisorStops | E::MachineDies => {
                let Some(host) = self.random.choice(&mut cluster.hosts) else { return };
                match event {
                    E::SupervisorDies => host.kill(),
                    E::SupervisorStops => host.stop().await,
                    _ => host.crash(),
                }
            }
            E::WorkerDies | E::WorkerHangs => {
                let Some(host) = self.random.choice(&cluster.hosts) else { return };
                let Some(pid) = self.random.choice(host.machine.pids()) else { return };
                match event {
                    E::WorkerDies => {
                        host.machine.end(pid, stormkeeper_supervisor::process::ExitReport::Signal(11))
                    }
                    _ => host.machine.hang(pid),
                }
            }
            E::ClockJumps => {
                let replicas = cluster.replicas.iter().map(|replica| &replica.clock);
                let clocks = replicas.chain(cluster.hosts.iter().map(|host| &host.machine.clock));
                let Some(clock) = self.random.choice(clocks.collect::<Vec<_>>()) else { return };
                cluster.env.skew(clock, self.random.i64(-JUMP_MAX_MILLIS..=JUMP_MAX_MILLIS));
            }
            E::Restart => {
                let replicas = cluster.replicas.iter_mut().filter(|replica| !replica.is_running());
                if let Some(replica) = self.random.choice(replicas.collect::<Vec<_>>()) {
                    replica.start();
                }
                let hosts = cluster.hosts.iter_mut().filter(|host| !host.is_running());
                if let Some(host) = self.random.choice(hosts.collect::<Vec<_>>()) {
                    host.start().await;
                }
            }
        }
    }

    fn any_connection(&mut self, cluster: &Cluster) -> Option<Arc<Connection>> {
        self.random.choice(cluster.connections())
    }

    fn submit(&mut self, cluster: &Cluster) {
        if self.n_submitted == TOPOLOGIES_MAX {
            return;
        }
        let workers = self.random.u32(1..=3).min(free_workers(cluster, None));
        if workers > 0 {
            self.n_submitted += 1;
            let parallelism = self.random.u32(1..=3);
            cluster.clients.submit(self.n_submitted, workers, parallelism, self.random.fork());
        }
    }

    fn change(&mut self, event: ScenarioEvent, cluster: &Cluster) {
        let promises = cluster.clients.promises();
        let exists = |promise: &Promise| {
            promise.submitted != RequestState::NotDone && promise.killed != RequestState::Done
        };
        let names = promises.iter().filter(|(_, promise)| exists(promise)).map(|(name, _)| name);
        let Some(name) = self.random.choice(names.collect::<Vec<_>>()) else { return };
        let wait_secs = self.random.bool().then(|| self.random.u64(0..30));
        if event == E::Update {
            return cluster.clients.update(name, self.random.u32(1..=3), self.random.fork());
        }
        let change = match event {
            E::Activate => Change::Activate,
            E::Deactivate => Change::Deactivate,
            E::Kill => Change::Kill(KillRequest { wait_secs }),
            _ => {
                let free = free_workers(cluster, Some(name));
                let workers = self.random.bool().then(|| self.random.u32(1..=4).min(free)).filter(|n| *n > 0);
                let component: ComponentId = "count".parse().expect("a valid id");
                let parallelism = self.random.bool().then(|| (component, self.random.u32(1..=4)));
                let parallelism = parallelism.into_iter().collect();
                Change::Rebalance(RebalanceRequest { wait_secs, workers, parallelism, restart: false })
            }
        };
        cluster.clients.change(name, change, self.random.fork());
    }

    /// Drains a host, if all workers fit elsewhere, or undrains it.
    fn drain(&mut self, event: ScenarioEvent, cluster: &Cluster) {
        let Some(host) = self.random.choice(&cluster.hosts) else { return };
        let change = match event {
            E::Drain if cluster.n_slots(Some(&host.name)) >= n_requested_workers(cluster, None) => {
                DrainChange::Drain { wait_secs: self.random.bool().then(|| self.random.u64(0..30)) }
            }
            E::Drain => return,
            _ => DrainChange::Undrain,
        };
        cluster.clients.drain(&host.name, change, self.random.fork());
    }

    /// Degrades one link for a while.
    fn degrade_link(&mut self, cluster: &Cluster) {
        let Some(connection) = self.any_connection(cluster) else { return };
        let delay_max = Duration::from_millis(self.random.u64(1..=3000));
        let mut rate = |most: f64| if self.random.bool() { most * self.random.f64() } else { 0.0 };
        let rates = FaultRates {
            lost_response: rate(0.3),
            lost_request: rate(0.2),
            delay: rate(0.5),
            delay_max,
            lost_event: rate(0.8),
        };
        let plan = FaultPlan::seeded(self.random.u64(..), rates);
        let time = self.random_duration() + Duration::from_secs(1);
        self.faults.start("bad link", OnExit::Ignore, async move {
            connection.faults().set_plan(plan);
            tokio::time::sleep(time).await;
            connection.faults().set_plan(FaultPlan::none());
        });
    }

    /// Degrades the network between all processes for a while.
    fn degrade_network(&mut self, cluster: &Cluster) {
        let random = &mut self.random;
        let delay_max = Duration::from_millis(random.u64(1..=40_000));
        let mut rate = |most: f64| if random.bool() { most * random.f64() } else { 0.0 };
        let (lost_request, lost_answer, delay) = (rate(0.5), rate(0.5), rate(0.5));
        let faults = NetworkFaults { lost_request, lost_answer, delay, delay_max };
        let (env, time) = (Arc::clone(&cluster.env), self.random_duration() + Duration::from_secs(1));
        self.faults.start("bad network", OnExit::Ignore, async move {
            env.network.set_faults(faults);
            tokio::time::sleep(time).await;
            env.network.set_faults(NetworkFaults::default());
        });
    }

    /// Degrades the links of all nimbuses, in a run with [`Links::Bad`].
    fn degrade_nimbus_links(&mut self, cluster: &Cluster) {
        if self.links == Links::ByChance {
            return;
        }
        for connection in cluster.replicas.iter().filter_map(Replica::connection) {
            if self.degraded.insert(connection.id()) {
                connection.faults().set_plan(FaultPlan::seeded(self.random.u64(..), BAD_LINK));
            }
        }
    }

    /// Deletes `/leader` after `delay`, as an operator might.
    fn delete_leader(&mut self, cluster: &Cluster, delay: Duration) {
        let operator = Arc::clone(&cluster.operator);
        self.faults.start("operator", OnExit::Ignore, async move {
            tokio::time::sleep(delay).await;
            // There may be no leader, or the tree may be offline.
            let _done = operator.tree().delete(&layout::leader(), None).await;
        });
    }

    /// Cuts a host off until the sessions of its processes have ended, and lets a leader take over in
    /// the moment in which they are absent.
    fn cut_off_at_takeover(&mut self, cluster: &Cluster) {
        let Some(host) = self.random.choice(&cluster.hosts) else { return };
        let time = SESSION_TIMEOUT + Duration::from_secs(self.random.u64(1..=8));
        for connection in host.connection().cloned().into_iter().chain(host.machine.connections()) {
            self.faults.start("fault", OnExit::Ignore, async move { connection.disconnect(time).await });
        }
        self.delete_leader(cluster, SESSION_TIMEOUT);
    }

    async fn disturb_host(&mut self, event: ScenarioEvent, cluster: &mut Cluster) {
        match event {
            E::HostRestarts => self.restart_host(cluster).await,
            E::HostCutOff => self.cut_off_host(cluster),
            _ => self.cut_off_at_takeover(cluster),
        }
    }

    /// Restarts a host like the container of a supervisor: the supervisor stops cleanly, and its
    /// workers end with it.
    async fn restart_host(&mut self, cluster: &mut Cluster) {
        let pause = self.random_up_to(SESSION_TIMEOUT * 2);
        let Some(host) = self.random.choice(&mut cluster.hosts) else { return };
        host.stop().await;
        host.machine.crash();
        tokio::time::sleep(pause).await;
        host.start().await;
    }

    /// Cuts all processes of a host off until their sessions have ended, and some time longer.
    fn cut_off_host(&mut self, cluster: &Cluster) {
        let Some(host) = self.random.choice(&cluster.hosts) else { return };
        let time = SESSION_TIMEOUT + self.random_duration();
        for connection in host.connection().cloned().into_iter().chain(host.machine.connections()) {
            self.faults.start("fault", OnExit::Ignore, async move { connection.disconnect(time).await });
        }
    }

    /// Freezes the leader, while its session ends or an operator deletes `/leader`.
    fn freeze_leader(&mut self, cluster: &Cluster) {
        let Some(leader) = cluster.replicas.iter().find(|replica| replica.leads()) else { return };
        let Some(connection) = leader.connection().cloned() else { return };
        let (env, api) = (Arc::clone(&cluster.env), leader.api());
        let time = self.random_duration() + Duration::from_secs(1);
        if self.random.bool() {
            self.delete_leader(cluster, Duration::ZERO);
        }
        self.faults.start("frozen leader", OnExit::Ignore, async move {
            env.network.freeze(&api, true);
            connection.freeze(time).await;
            env.network.freeze(&api, false);
        });
    }

    /// Freezes the leader, and deletes `/term` with `/leader` meanwhile, as an operator might. Further
    /// elections follow: if terms began anew, one of them would get the term of the frozen leader.
    fn delete_term(&mut self, cluster: &Cluster) {
        let operator = Arc::clone(&cluster.operator);
        let n_elections = self.random.u64(0..=4);
        let pause = self.random_up_to(Duration::from_secs(3));
        self.freeze_leader(cluster);
        self.faults.start("operator deletes the term", OnExit::Ignore, async move {
            let tree = operator.tree();
            // The tree may be offline.
            let _done = tree.delete(&layout::term(), None).await;
            for _ in 0..=n_elections {
                let _done = tree.delete(&layout::leader(), None).await;
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Takes the ensemble offline; some sessions end meanwhile.
    fn outage(&mut self, cluster: &Cluster) {
        let (env, time) = (Arc::clone(&cluster.env), self.random_duration() / 2);
        let mut lost = cluster.connections();
        let share = if self.random.bool() { 0.0 } else { self.random.f64() };
        lost.retain(|_| self.random.f64() < share);
        self.faults.start("outage", OnExit::Ignore, async move {
            env.server.set_online(false);
            tokio::time::sleep(time).await;
            env.server.set_online(true);
            lost.iter().for_each(|connection| connection.expire());
        });
    }
}

/// Number of further workers that may be requested, or of all workers of `name`, so that there is
/// a slot for each when all machines are up.
fn free_workers(cluster: &Cluster, name: Option<&TopologyName>) -> u32 {
    cluster.n_slots(None).saturating_sub(n_requested_workers(cluster, name))
}

/// Number of workers requested by all topologies except `without`.
fn n_requested_workers(cluster: &Cluster, without: Option<&TopologyName>) -> u32 {
    let promises = cluster.clients.promises();
    let others = promises.iter().filter(|(name, _)| Some(*name) != without);
    others.map(|(_, promise)| promise.workers_max).sum()
}
