//! A simulation of a whole cluster in one thread, under paused time, determined by one seed.
//!
//! ```text
//!  scenario ─▶ clients ─▶ nimbuses ─┐                     ┌─▶ journal ─▶ invariants
//!     │                             ├─▶ faulty links ─▶ memory tree
//!     └─ faults ─▶ supervisors ─────┤
//!                      └▶ workers ──┘
//! ```
//!
//! Nimbuses are the real daemons with all of their tasks, and with metric stores in memory.
//! Supervisors are the real daemons without the metrics of their machine. Worker processes are fakes
//! that behave towards the tree and their supervisor like real ones, and have their metrics. All
//! processes share a memory tree, each through its own link that can be made to fail, a network that
//! can lose requests, and a scratch directory. The seed determines the size of the cluster, the
//! requests of users, and the faults with their times.
//!
//! The same seed gives the same run: everything happens in one thread, in the order in which it
//! became due, and all randomness comes from the seed. A failure can therefore be reproduced as
//! often as needed.
//!
//! Start with [`run`], then `scenario` (requests and faults) and `invariants` (checked properties).

mod client;
mod cluster;
mod connection;
mod converge;
mod counters;
mod environment;
mod exporter;
mod host;
mod invariants;
mod journal;
mod machine;
mod masters;
mod metric_log;
mod model;
mod network;
mod replica;
#[cfg(test)]
mod replication_tests;
mod scenario;
mod scratch;
mod stores;
#[cfg(test)]
mod tests;
mod tuple_counter;
mod worker;

use std::time::Duration;

use self::{cluster::Cluster, scenario::Scenario};
pub use self::{converge::CONVERGENCE_MAX, invariants::Violation};
use stormkeeper_access::quota::Quota;
use stormkeeper_runtime::blocking;

/// Result of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed of the run.
    pub seed: u64,
    /// The first violated invariant, if any.
    pub violation: Option<Violation>,
    /// Digest of the whole journal; equal for equal runs.
    pub digest: u64,
    /// Number of committed transactions.
    pub n_commits: u64,
    /// Duration of the run, in simulated time.
    pub lasted: Duration,
    /// Time from the end of all faults to convergence.
    pub converged_in: Duration,
    /// The last lines of the journal.
    pub tail: Vec<String>,
}

/// Quality of the links between processes and the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Good, except for the faults that the seed selects.
    ByChance,
    /// The links of the nimbuses lose replies and events during the whole fault phase.
    Bad,
}

/// Runs the simulation of `seed` in this thread.
///
/// # Panics
/// If the scratch directory cannot be used.
pub fn run(seed: u64) -> Report {
    run_on(Links::ByChance, seed)
}

/// Runs the simulation of `seed` on the given links.
///
/// # Panics
/// If the scratch directory cannot be used.
pub fn run_on(links: Links, seed: u64) -> Report {
    in_simulated_time(seed, simulate(links, seed, None, Updates::No))
}

/// Runs the simulation of `seed` with a quota of every owner.
///
/// # Panics
/// If the scratch directory cannot be used.
pub fn run_with_quota(quota: Quota, seed: u64) -> Report {
    in_simulated_time(seed, simulate(Links::ByChance, seed, Some(quota), Updates::No))
}

/// Runs the simulation of `seed` with updates of running topologies among the requests of users.
///
/// # Panics
/// If the scratch directory cannot be used.
pub fn run_with_updates(seed: u64) -> Report {
    in_simulated_time(seed, simulate(Links::ByChance, seed, None, Updates::AtRandom))
}

/// Runs `work` in this thread, under paused time. The thread does all blocking work inline from now
/// on.
fn in_simulated_time<T>(seed: u64, work: impl Future<Output = T>) -> T {
    // All random generators of the daemons are seeded from this thread's generator.
    fastrand::seed(seed);
    blocking::run_inline();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(Box::pin(work))
}

/// Updates of running topologies in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Updates {
    No,
    AtRandom,
}

async fn simulate(links: Links, seed: u64, quota: Option<Quota>, updates: Updates) -> Report {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::new(seed, &mut random);
    if let Some(quota) = quota {
        cluster.env.journal().set_quota(quota);
    }
    let scenario = match updates {
        Updates::No => Scenario::new(links, random),
        Updates::AtRandom => Scenario::new(links, random).with_updates(),
    };
    let violated = cluster.env.journal().violated();
    let mut converged_in = Duration::ZERO;
    tokio::select! {
        biased;
        // The run ends at the first violation: at a livelock, time may not advance any more.
        () = violated.notified() => {}
        () = phases(scenario, &mut cluster, &mut converged_in) => {}
    }
    stores::record(&cluster);
    let lasted = cluster.env.now();
    let journal = cluster.env.journal();
    Report {
        seed,
        violation: journal.violation().cloned(),
        digest: journal.digest(),
        n_commits: journal.n_commits(),
        lasted,
        converged_in,
        tail: journal.tail(),
    }
}

/// Runs the scenario, and waits until the cluster and its stores have converged.
async fn phases(scenario: Scenario, cluster: &mut Cluster, converged_in: &mut Duration) {
    scenario.run(cluster).await;
    let is_valid = |cluster: &Cluster| cluster.env.journal().violation().is_none();
    if is_valid(cluster) {
        *converged_in = converge::converge(cluster).await;
    }
    if is_valid(cluster) {
        stores::await_counters(cluster).await;
    }
    if is_valid(cluster) {
        stores::converge(cluster).await;
    }
}
