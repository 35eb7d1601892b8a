//! What a supervisor brings to the leader: what its dead workers left, and what its machine uses.
//!
//! Both are tasks of their own that the agent does not wait for. They know of workers what is on
//! disk and nothing else: whose lock is free is gone, and whose `done` is missing is not brought.

mod host;
mod leftovers;

use crate::{
    clock::Clock,
    daemon::tasks::{Ending, Tasks},
    rpc::metrics_client::MetricsClient,
    supervisor::Agent,
};

/// Starts both, for the directory and the host of `agent`.
pub(super) fn start(agent: &Agent, client: MetricsClient, clock: &Clock, tasks: &Tasks) {
    let local_dir = agent.options.local_dir.clone();
    let leftovers = leftovers::Leftovers::new(local_dir.clone(), client.clone(), clock.clone());
    tasks.start("metrics of workers that are gone", Ending::Normal, leftovers.run());
    let host =
        host::HostMetrics::new(&agent.options.host, &agent.identity.id, local_dir, client, clock.clone());
    tasks.start("metrics of this machine", Ending::Normal, host.run());
}
