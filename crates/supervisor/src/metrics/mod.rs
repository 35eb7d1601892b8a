//! Metric reports that a supervisor sends to the leader: the orphaned reports of its dead workers,
//! and the usage of its host.
//!
//! Both are separate tasks that the agent does not wait for. The spool on disk is their only source
//! about workers: a worker whose lock is free is dead, and its reports are undelivered while its
//! `done` file is missing.

mod host;
mod orphan_reports;

use std::sync::Arc;

use crate::Agent;
use stormkeeper_coordination::tree::SessionState;
use stormkeeper_metric_shipping::ingest_client::IngestTransport;
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Starts both tasks, for the directory and the host of `agent`. They begin when the layout of the
/// tree is checked: a leader of another layout must not receive anything.
pub(super) fn start(agent: &Agent, transport: Arc<dyn IngestTransport>, clock: &Clock, tasks: &Tasks) {
    agent.start_orphan_reports(Arc::clone(&transport), clock, tasks);
    let (local_dir, session) = (agent.options.local_dir.clone(), agent.store.tree().session());
    let host =
        host::HostMetrics::new(&agent.options.host, &agent.identity.id, local_dir, transport, clock.clone());
    tasks.start("metrics of this host", OnExit::Ignore, once_checked(session, host.run()));
}

impl Agent {
    /// Starts to send the orphaned reports of dead workers to the leader, in `tasks`. Reports that
    /// are not committed when `tasks` ends are still on disk.
    pub fn start_orphan_reports(&self, transport: Arc<dyn IngestTransport>, clock: &Clock, tasks: &Tasks) {
        let local_dir = self.options.local_dir.clone();
        let orphan_reports = orphan_reports::OrphanReportSender::new(local_dir, transport, clock.clone());
        let session = self.store.tree().session();
        tasks.start("orphaned metric reports", OnExit::Ignore, once_checked(session, orphan_reports.run()));
    }
}

/// Runs `task` from the first session whose layout is checked.
async fn once_checked(mut session: watch::Receiver<SessionState>, task: impl Future<Output = ()>) {
    if session.wait_for(|state| state.connected().is_some()).await.is_ok() {
        task.await;
    }
}
