//! What happens in a run, by chance: the work that is asked for, and what goes wrong.
//!
//! Each run draws which kinds of faults it has and how often anything happens, so that some
//! runs see much of one kind and others a little of everything.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    cluster::layout,
    daemon::tasks::{Ending, Tasks},
    model::{ComponentId, TopologyName},
    nimbus::{change::Change, drain::DrainChange},
    rpc::message::{KillRequest, RebalanceRequest},
    test_support::sim::{
        Links,
        client::{Promise, Said},
        cluster::Cluster,
        connection::Connection,
        replica::Replica,
    },
    tree::faulty::{FaultPlan, Rates},
};

/// How long a run goes on before its faults end.
const TROUBLE_MIN: Duration = Duration::from_secs(40);
const TROUBLE_MAX: Duration = Duration::from_secs(240);

/// The most topologies that are ever submitted in one run.
const TOPOLOGIES_MAX: usize = 8;

/// How far a clock may jump.
const JUMP_MAX_MILLIS: i64 = 60_000;

/// A link that is always bad.
const BAD_LINK: Rates =
    Rates { lost_reply: 0.2, lost_request: 0.0, delay: 0.0, delay_max: Duration::ZERO, lost_event: 0.5 };

/// Everything that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Submit,
    Activate,
    Deactivate,
    Rebalance,
    Kill,
    Drain,
    Undrain,
    BadLink,
    Expiry,
    Cut,
    FrozenLeader,
    Frozen,
    LeaderDeleted,
    Outage,
    NimbusDies,
    NimbusStops,
    SupervisorDies,
    SupervisorStops,
    MachineDies,
    WorkerDies,
    WorkerHangs,
    ClockJumps,
    Restart,
}

use Happening as H;

/// What users do, and how often.
const WORK: &[(Happening, u32)] = &[
    (H::Submit, 8),
    (H::Activate, 1),
    (H::Deactivate, 2),
    (H::Rebalance, 4),
    (H::Kill, 3),
    (H::Drain, 2),
    (H::Undrain, 2),
];

/// What goes wrong, and how often, in a run that has this kind of fault.
const FAULTS: &[(Happening, u32)] = &[
    (H::BadLink, 6),
    (H::Expiry, 3),
    (H::Cut, 3),
    (H::FrozenLeader, 3),
    (H::Frozen, 2),
    (H::LeaderDeleted, 1),
    (H::Outage, 1),
    (H::NimbusDies, 3),
    (H::NimbusStops, 2),
    (H::SupervisorDies, 3),
    (H::SupervisorStops, 1),
    (H::MachineDies, 1),
    (H::WorkerDies, 4),
    (H::WorkerHangs, 1),
    (H::ClockJumps, 2),
];

/// Whoever writes the story of a run.
#[derive(Debug)]
pub(super) struct Script {
    random: fastrand::Rng,
    /// What may happen, by weight.
    deck: Vec<(Happening, u32)>,
    pause_max: Duration,
    trouble: Duration,
    n_submitted: usize,
    /// Faults that are under way and end by themselves.
    faults: Tasks,
    links: Links,
    /// The connections that were made bad ones for good.
    spoilt: BTreeSet<u64>,
}

impl Script {
    pub(super) fn new(links: Links, mut random: fastrand::Rng) -> Self {
        let mut deck: Vec<_> = WORK.to_vec();
        deck.extend(FAULTS.iter().filter(|_| random.bool()));
        // What was switched off comes back in every run.
        deck.push((H::Restart, 6));
        let trouble = TROUBLE_MIN + (TROUBLE_MAX - TROUBLE_MIN).mul_f64(random.f64());
        let pause_max = Duration::from_millis(random.u64(500..=12_000));
        Self {
            random,
            deck,
            pause_max,
            trouble,
            n_submitted: 0,
            faults: Tasks::default(),
            links,
            spoilt: BTreeSet::new(),
        }
    }

    /// Starts the cluster, makes trouble for a while, and ends all faults. Stops early when
    /// something that must hold does not.
    pub(super) async fn play(mut self, cluster: &mut Cluster) {
        for n in 0..cluster.replicas.len() {
            cluster.replicas[n].start();
            tokio::time::sleep(self.up_to(Duration::from_secs(1))).await;
        }
        for n in 0..cluster.hosts.len() {
            cluster.hosts[n].start().await;
            tokio::time::sleep(self.up_to(Duration::from_secs(1))).await;
        }
        while cluster.ground.now() < self.trouble {
            self.spoil_all(cluster);
            let happening = self.draw();
            self.happen(happening, cluster).await;
            if !cluster.pass(self.up_to(self.pause_max)).await {
                return;
            }
        }
        // Nothing that was begun is undone later on.
        self.faults = Tasks::default();
        tokio::task::yield_now().await;
        cluster.heal().await;
    }

    fn draw(&mut self) -> Happening {
        let total = self.deck.iter().map(|(_, weight)| weight).sum();
        let mut luck = self.random.u32(0..total);
        for (happening, weight) in &self.deck {
            match luck.checked_sub(*weight) {
                Some(rest) => luck = rest,
                None => return *happening,
            }
        }
        unreachable!("the luck is below the sum of the weights")
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.random.f64())
    }

    /// A time that is often short and sometimes long.
    fn a_while(&mut self) -> Duration {
        let luck = self.random.f64();
        Duration::from_secs(45).mul_f64(luck * luck * luck)
    }

    async fn happen(&mut self, happening: Happening, cluster: &mut Cluster) {
        match happening {
            H::Submit => self.submit(cluster),
            H::Activate | H::Deactivate | H::Rebalance | H::Kill => self.change(happening, cluster),
            H::Drain | H::Undrain => self.drain(happening, cluster),
            H::BadLink => self.spoil(cluster),
            H::Expiry => {
                if let Some(connection) = self.any(cluster) {
                    connection.expire();
                }
            }
            H::Cut | H::Frozen => {
                let Some(connection) = self.any(cluster) else { return };
                let time = self.a_while();
                self.faults.start("fault", Ending::Normal, async move {
                    match happening {
                        H::Cut => connection.cut(time).await,
                        _ => connection.freeze(time).await,
                    }
                });
            }
            H::FrozenLeader => self.freeze_leader(cluster),
            H::LeaderDeleted => delete_leader(Arc::clone(&cluster.operator), &self.faults),
            H::Outage => self.outage(cluster),
            H::NimbusDies | H::NimbusStops => {
                let Some(replica) = self.random.choice(&mut cluster.replicas) else { return };
                match happening {
                    H::NimbusDies => replica.kill(),
                    _ => replica.stop().await,
                }
            }
            H::SupervisorDies | H::SupervisorStops | H::MachineDies => {
                let Some(host) = self.random.choice(&mut cluster.hosts) else { return };
                match happening {
                    H::SupervisorDies => host.kill(),
                    H::SupervisorStops => host.stop().await,
                    _ => host.crash(),
                }
            }
            H::WorkerDies | H::WorkerHangs => {
                let Some(host) = self.random.choice(&cluster.hosts) else { return };
                let Some(pid) = self.random.choice(host.machine.pids()) else { return };
                match happening {
                    H::WorkerDies => {
                        host.machine.end(pid, crate::supervisor::process::ExitReport::Signal(11))
                    }
                    _ => host.machine.hang(pid),
                }
            }
            H::ClockJumps => {
                let replicas = cluster.replicas.iter().map(|replica| &replica.clock);
                let clocks = replicas.chain(cluster.hosts.iter().map(|host| &host.machine.clock));
                let Some(clock) = self.random.choice(clocks.collect::<Vec<_>>()) else { return };
                cluster.ground.skew(clock, self.random.i64(-JUMP_MAX_MILLIS..=JUMP_MAX_MILLIS));
            }
            H::Restart => {
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

    fn any(&mut self, cluster: &Cluster) -> Option<Arc<Connection>> {
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

    fn change(&mut self, happening: Happening, cluster: &Cluster) {
        let promises = cluster.clients.promises();
        let there = |promise: &Promise| promise.submitted != Said::No && promise.killed != Said::Yes;
        let names = promises.iter().filter(|(_, promise)| there(promise)).map(|(name, _)| name);
        let Some(name) = self.random.choice(names.collect::<Vec<_>>()) else { return };
        let wait_secs = self.random.bool().then(|| self.random.u64(0..30));
        let change = match happening {
            H::Activate => Change::Activate,
            H::Deactivate => Change::Deactivate,
            H::Kill => Change::Kill(KillRequest { wait_secs }),
            _ => {
                let free = free_workers(cluster, Some(name));
                let workers = self.random.bool().then(|| self.random.u32(1..=4).min(free)).filter(|n| *n > 0);
                let component: ComponentId = "count".parse().expect("a valid id");
                let parallelism = self.random.bool().then(|| (component, self.random.u32(1..=4)));
                let parallelism = parallelism.into_iter().collect();
                Change::Rebalance(RebalanceRequest { wait_secs, workers, parallelism })
            }
        };
        cluster.clients.change(name, change, self.random.fork());
    }

    /// Drains a host, if there is room for everything elsewhere, or takes it into use again.
    fn drain(&mut self, happening: Happening, cluster: &Cluster) {
        let Some(host) = self.random.choice(&cluster.hosts) else { return };
        let change = match happening {
            H::Drain if cluster.n_slots(Some(&host.name)) >= taken(cluster, None) => {
                DrainChange::Drain { wait_secs: self.random.bool().then(|| self.random.u64(0..30)) }
            }
            H::Drain => return,
            _ => DrainChange::Undrain,
        };
        cluster.clients.drain(&host.name, change, self.random.fork());
    }

    /// Makes one link a bad one for a while.
    fn spoil(&mut self, cluster: &Cluster) {
        let Some(connection) = self.any(cluster) else { return };
        let delay_max = Duration::from_millis(self.random.u64(1..=3000));
        let mut rate = |most: f64| if self.random.bool() { most * self.random.f64() } else { 0.0 };
        let rates = Rates {
            lost_reply: rate(0.3),
            lost_request: rate(0.2),
            delay: rate(0.5),
            delay_max,
            lost_event: rate(0.8),
        };
        let plan = FaultPlan::seeded(self.random.u64(..), rates);
        let time = self.a_while() + Duration::from_secs(1);
        self.faults.start("bad link", Ending::Normal, async move {
            connection.faults().set_plan(plan);
            tokio::time::sleep(time).await;
            connection.faults().set_plan(FaultPlan::none());
        });
    }

    /// Makes the links of all nimbuses bad ones, if this run is to have such.
    fn spoil_all(&mut self, cluster: &Cluster) {
        if self.links == Links::ByChance {
            return;
        }
        for connection in cluster.replicas.iter().filter_map(Replica::connection) {
            if self.spoilt.insert(connection.id()) {
                connection.faults().set_plan(FaultPlan::seeded(self.random.u64(..), BAD_LINK));
            }
        }
    }

    /// The leader stands still, while its session ends or an operator helps a successor up.
    fn freeze_leader(&mut self, cluster: &Cluster) {
        let Some(leader) = cluster.replicas.iter().find(|replica| replica.leads()) else { return };
        let Some(connection) = leader.connection().cloned() else { return };
        let (ground, api, operator) =
            (Arc::clone(&cluster.ground), leader.api(), Arc::clone(&cluster.operator));
        let (time, is_deleted) = (self.a_while() + Duration::from_secs(1), self.random.bool());
        let deletion = self.faults.child();
        self.faults.start("frozen leader", Ending::Normal, async move {
            ground.network.freeze(&api, true);
            if is_deleted {
                delete_leader(operator, &deletion);
            }
            connection.freeze(time).await;
            ground.network.freeze(&api, false);
        });
    }

    /// The ensemble is away; some sessions do not survive it.
    fn outage(&mut self, cluster: &Cluster) {
        let (ground, time) = (Arc::clone(&cluster.ground), self.a_while() / 2);
        let mut lost = cluster.connections();
        let share = if self.random.bool() { 0.0 } else { self.random.f64() };
        lost.retain(|_| self.random.f64() < share);
        self.faults.start("outage", Ending::Normal, async move {
            ground.server.set_online(false);
            tokio::time::sleep(time).await;
            ground.server.set_online(true);
            lost.iter().for_each(|connection| connection.expire());
        });
    }
}

fn delete_leader(operator: Arc<Connection>, tasks: &Tasks) {
    tasks.start("operator", Ending::Normal, async move {
        // Nobody may lead, or the tree be away.
        let _done = operator.tree().delete(&layout::leader(), None).await;
    });
}

/// How many workers more may be asked for, or by `name` in all, so that there are slots for
/// all of them when every machine is up.
fn free_workers(cluster: &Cluster, name: Option<&TopologyName>) -> u32 {
    cluster.n_slots(None).saturating_sub(taken(cluster, name))
}

/// How many workers were asked for, but by `without`.
fn taken(cluster: &Cluster, without: Option<&TopologyName>) -> u32 {
    let promises = cluster.clients.promises();
    let others = promises.iter().filter(|(name, _)| Some(*name) != without);
    others.map(|(_, promise)| promise.workers_max).sum()
}
