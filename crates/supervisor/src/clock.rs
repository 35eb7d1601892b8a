//! Comparison of the supervisor's clock with the leader's, reported in the supervisor's record.

use std::sync::Arc;

use crate::agent::Agent;
use stormkeeper_api_types::leader_clock::{self, NimbusTime, Reference};
use stormkeeper_runtime::tasks::OnExit;

impl Agent {
    /// Compares the clock of this host with the leader's for as long as the agent runs.
    pub(super) fn compare_clocks(&self, nimbuses: Arc<dyn NimbusTime>) {
        let (store, registration) = (self.store.clone(), self.registration.clone());
        let leader = move || {
            let store = store.clone();
            async move {
                match store.leader().await {
                    Ok(Some(leader)) => Reference::Leader(leader.api),
                    Ok(None) | Err(_) => Reference::Unknown,
                }
            }
        };
        let announce = move |ahead_ms| registration.set_clock_ahead(ahead_ms);
        let comparison = leader_clock::compare(nimbuses, leader, self.clock.clone(), announce);
        self.tasks.start("clock", OnExit::Ignore, comparison);
    }
}
