//! Stop of a supervisor: it is announced in the tree first, and the registration is removed last.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::Agent;
use stormkeeper_coordination::cluster::{
    layout::Ephemeral,
    record::{StoppedSupervisor, UnknownFields},
};
use stormkeeper_model::backoff::Delays;
use stormkeeper_runtime::blocking;

/// Limit for announcing a stop in the tree.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pauses between two attempts to do that.
const ANNOUNCE_RETRY: Delays = Delays::between(Duration::from_millis(50), Duration::from_millis(300));

/// Limit for removing this supervisor's registration at a stop, and for recording the stop.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// Limit for writing launches under way to the ledger at a stop.
const TASKS_STOP_TIMEOUT: Duration = Duration::from_secs(5);

impl Agent {
    /// Announces in the tree that this supervisor stops and is expected back, so that its tasks
    /// wait for it even if its workers end too, as in a container.
    pub(super) async fn announce_stop(&self) {
        let stopped = StoppedSupervisor {
            host: self.options.host.clone(),
            stopped: self.clock.now(),
            unknown_fields: UnknownFields::new(),
        };
        let announce = async {
            let mut backoff = ANNOUNCE_RETRY.backoff();
            loop {
                match self.store.announce_stop(&self.identity.id, &stopped).await {
                    Ok(()) => return,
                    Err(error) => debug!(%error, "cannot announce the stop; trying again"),
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        };
        if tokio::time::timeout(ANNOUNCE_TIMEOUT, announce).await.is_err() {
            info!(
                "cannot announce the stop in ZooKeeper in time: if the workers end with this supervisor, their tasks \
                 move when the sessions expire"
            );
        }
    }

    pub(super) async fn leave(mut self, was_asked: bool) {
        self.presence.withdraw(&Ephemeral::Supervisor(self.identity.id.clone()));
        // Without a connection, the end of the session removes the registration later.
        let _withdrawn = tokio::time::timeout(WITHDRAW_TIMEOUT, self.presence.settled()).await;
        if !self.tasks.stop(TASKS_STOP_TIMEOUT).await {
            warn!("supervisor stopped while a launch was under way; the next start looks for its process");
        }
        if was_asked {
            // A disk that hangs costs one count of a restart.
            let written = blocking::run(move || self.starts.stopped());
            let _in_time = tokio::time::timeout(WITHDRAW_TIMEOUT, written).await;
        }
    }
}
