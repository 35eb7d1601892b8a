//! A whole cluster in one thread, under paused time, led by one seed.
//!
//! ```text
//!  script ─▶ clients ─▶ nimbuses ─┐                       ┌─▶ journal ─▶ invariants
//!     │                           ├─▶ faulty links ─▶ memory tree
//!     └─ faults ─▶ supervisors ───┤
//!                      └▶ workers ┘
//! ```
//!
//! Nimbuses and supervisors are the real ones, with all of their tasks. Worker processes are
//! fakes that behave towards the tree and their supervisor as real ones do. What they share
//! is a memory tree, each through a link of its own that can be made to fail, a network
//! between nimbuses, and a scratch directory. The seed decides the size of the cluster, what
//! users ask for, and what goes wrong when.
//!
//! The same seed gives the same run: everything happens in one thread, in the order in which
//! it became due, and all chance comes from the seed. So a failure found once can be looked
//! at again and again.
//!
//! Start with [`run`], then `script` (what happens) and `invariants` (what must hold).

mod client;
mod cluster;
mod connection;
mod converge;
mod facts;
mod ground;
mod host;
mod invariants;
mod journal;
mod machine;
mod network;
mod replica;
mod scratch;
mod script;
#[cfg(test)]
mod tests;
mod worker;

use std::time::Duration;

use self::{cluster::Cluster, script::Script};
pub use self::{converge::CONVERGENCE_MAX, invariants::Violation};
use crate::daemon::blocking;

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Tells it from every other run.
    pub digest: u64,
    /// How many transactions took effect.
    pub n_commits: u64,
    /// How long it lasted, in its own time.
    pub lasted: Duration,
    /// How long the cluster took to be as it should be once all faults had ended.
    pub converged_in: Duration,
    /// The last lines of the journal.
    pub tail: Vec<String>,
}

/// What the links of a run are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Good, until the script says otherwise.
    ByChance,
    /// Those of the nimbuses lose answers and events all the time that there are faults.
    Bad,
}

/// Plays the run of `seed` in this thread.
///
/// # Panics
/// When the scratch directory cannot be used.
pub fn run(seed: u64) -> Report {
    run_on(Links::ByChance, seed)
}

/// Plays the run of `seed` on such links.
///
/// # Panics
/// When the scratch directory cannot be used.
pub fn run_on(links: Links, seed: u64) -> Report {
    // All generators that the daemons make take their seeds from this thread's.
    fastrand::seed(seed);
    blocking::run_inline();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(Box::pin(play(links, seed)))
}

async fn play(links: Links, seed: u64) -> Report {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::new(seed, &mut random);
    Script::new(links, random).play(&mut cluster).await;
    let is_well = cluster.ground.journal().violation().is_none();
    let converged_in = if is_well { converge::converge(&cluster).await } else { Duration::ZERO };
    let lasted = cluster.ground.now();
    let journal = cluster.ground.journal();
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
