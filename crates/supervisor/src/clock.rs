//! Comparison of the supervisor's clock and of its cluster secret with the leader's, reported in the
//! supervisor's record.

use std::sync::Arc;

use crate::agent::Agent;
use stormkeeper_api_types::{
    leader_clock::{self, NimbusTime, Reference},
    proof_check::{self, ShowProof},
};
use stormkeeper_coordination::cluster::store::Store;
use stormkeeper_runtime::tasks::OnExit;

impl Agent {
    /// Compares the clock of this host with the leader's for as long as the agent runs.
    pub(super) fn compare_clocks(&self, nimbuses: Arc<dyn NimbusTime>) {
        let (leader, registration) = (leader(self.store.clone()), self.registration.clone());
        let announce = move |ahead_ms| registration.set_clock_ahead(ahead_ms);
        let comparison = leader_clock::compare(nimbuses, leader, self.clock.clone(), announce);
        self.tasks.start("clock", OnExit::Ignore, comparison);
    }

    /// Asks the leader, for as long as the agent runs, whether it believes the proofs of this supervisor.
    pub(super) fn show_proof(&self, proof: Arc<dyn ShowProof>) {
        let (leader, registration) = (leader(self.store.clone()), self.registration.clone());
        let daemon = format!("supervisor at {}", self.options.host);
        let announce = move |problem| registration.set_proof_problem(problem);
        let showing = proof_check::keep_showing(proof, leader, daemon, announce);
        self.tasks.start("proof", OnExit::Ignore, showing);
    }
}

/// Returns a function that reads from the tree which nimbus leads.
fn leader(store: Store) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = Reference> + Send>> + Send {
    move || {
        let store = store.clone();
        Box::pin(async move {
            match store.leader().await {
                Ok(Some(leader)) => Reference::Leader(leader.api),
                Ok(None) | Err(_) => Reference::Unknown,
            }
        })
    }
}
