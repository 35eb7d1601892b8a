//! All processes of a run.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    client::{Clients, RequestState},
    connection::Connection,
    environment::Environment,
    host::Host,
    journal::Party,
    network::NetworkFaults,
    replica::Replica,
};
use stormkeeper_coordination::tree::faulty::FaultPlan;

/// Maximum initial error of a clock.
const SKEW_MAX_MILLIS: i64 = 20_000;

/// The cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) env: Arc<Environment>,
    pub(super) replicas: Vec<Replica>,
    pub(super) hosts: Vec<Host>,
    pub(super) clients: Clients,
    pub(super) operator: Arc<Connection>,
}

impl Cluster {
    /// Creates a cluster of random size; nothing runs yet.
    pub(super) fn new(seed: u64, random: &mut fastrand::Rng) -> Self {
        let mut size = fastrand::Rng::with_seed(seed ^ 0x5151);
        let (n_replicas, n_hosts) = (size.usize(1..=3), size.usize(1..=4));
        let slots: Vec<u16> = (0..n_hosts).map(|_| size.u16(2..=4)).collect();
        Self::of_size(seed, random, n_replicas, &slots)
    }

    /// Creates a cluster of `n_replicas` nimbuses and a host for each element of `slots`, its number
    /// of slots; nothing runs yet.
    pub(super) fn of_size(seed: u64, random: &mut fastrand::Rng, n_replicas: usize, slots: &[u16]) -> Self {
        let env = Environment::new(seed);
        let mut clock = |env: &Environment| {
            let millis = random.i64(-SKEW_MAX_MILLIS..=SKEW_MAX_MILLIS);
            (env.skewed_clock(millis), random.fork())
        };
        let replicas: Vec<Replica> = (1..=n_replicas).map(|n| Replica::new(&env, n, clock(&env).0)).collect();
        let hosts = (1..).zip(slots).map(|(n, n_slots)| {
            let (clock, random) = clock(&env);
            Host::new(&env, n, *n_slots, clock, random)
        });
        let hosts = hosts.collect();
        let clients = Clients::new(&env, replicas.iter().map(Replica::api).collect());
        let operator = Connection::open(&env, Party::Operator);
        Self { env, replicas, hosts, clients, operator }
    }

    /// The connections of all processes that run, with their names.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        let replicas = self.replicas.iter().filter_map(Replica::connection).cloned();
        let hosts = self.hosts.iter().filter_map(Host::connection).cloned();
        let workers = self.hosts.iter().flat_map(|host| host.machine.connections());
        replicas.chain(hosts).chain(workers).collect()
    }

    /// The slots of all hosts that are known not to be drained, except those of `without`.
    pub(super) fn n_slots(&self, without: Option<&str>) -> u32 {
        let drains = self.clients.drains();
        let is_used = |host: &&Host| {
            drains.get(&host.name).is_none_or(|drain| drain.drained == RequestState::NotDone)
                && Some(&*host.name) != without
        };
        self.hosts.iter().filter(is_used).map(|host| u32::from(host.n_slots)).sum()
    }

    /// The name of a process that has ended by itself, which is always a failure.
    pub(super) fn broken(&self) -> Option<&str> {
        let replica = self.replicas.iter().find(|replica| replica.is_broken()).map(|replica| &*replica.name);
        replica.or_else(|| self.hosts.iter().find(|host| host.is_broken()).map(|host| &*host.name))
    }

    /// Ends all faults and starts all processes that are down.
    pub(super) async fn heal(&mut self) {
        self.env.journal().log("all faults end, and the workers count no more");
        self.env.is_counting.store(false, Ordering::Relaxed);
        self.env.server.set_online(true);
        self.env.network.set_faults(NetworkFaults::default());
        for connection in self.connections() {
            connection.faults().set_plan(FaultPlan::none());
            connection.reconnect();
            connection.faults().thaw();
        }
        for replica in &mut self.replicas {
            self.env.network.freeze(&replica.api(), false);
            self.env.skew(&replica.clock, 0);
            replica.clear_quarantine();
            replica.start();
        }
        for host in &mut self.hosts {
            self.env.skew(&host.machine.clock, 0);
            host.start().await;
        }
    }

    /// Lets `time` pass. Returns false if an invariant was violated.
    pub(super) async fn pass(&self, time: Duration) -> bool {
        tokio::time::sleep(time).await;
        if let Some(name) = self.broken() {
            self.env.journal().fail("processes", format!("{name} has ended by itself"));
        }
        self.env.journal().violation().is_none()
    }
}
