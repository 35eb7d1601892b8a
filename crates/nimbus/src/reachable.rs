//! Reachability of the API of a nimbus, and when it leaves the leadership to others for lack of it.
//!
//! A nimbus whose API accepts no connections, or whose certificate has expired, can lead: what it decides is
//! in the tree. But nobody can submit or ask, and no worker can report metrics, so another one leads if it
//! can.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stormkeeper_coordination::cluster::{observer::Observation, record::NimbusRecord, view::ClusterView};
use stormkeeper_model::NimbusId;
use stormkeeper_runtime::watch;

/// Time without a leader after which a nimbus campaigns although others cannot reach its API.
const GRACE: Duration = Duration::from_secs(30);

/// State of the API of this nimbus.
pub(super) struct Reachable {
    /// True if the API can accept connections.
    pub(super) api_accepts: watch::Receiver<bool>,
    /// True if the certificate has expired, so that nobody connects over TLS.
    pub(super) certificate_expired: watch::Receiver<bool>,
}

impl Reachable {
    /// Returns how long this nimbus leaves the leadership to others while there is no leader; `None` if it
    /// need not. `candidate_grace` is the time for which a nimbus with missing blobs waits.
    pub(super) fn grace(
        &mut self,
        me: &NimbusId,
        view: &ClusterView,
        candidate_grace: Duration,
    ) -> Option<Duration> {
        let accepts = *self.api_accepts.borrow_and_update();
        let is_expired = *self.certificate_expired.borrow_and_update();
        let of_expiry = is_expired && healthy(me, view).next().is_some();
        match (accepts, of_expiry) {
            // The others may wait for missing blobs, which they cannot fetch from here.
            (_, true) => Some(GRACE.saturating_add(candidate_grace)),
            (false, false) => Some(GRACE),
            (true, false) => None,
        }
    }

    /// Waits until something has changed, and forever if nothing can change any more. A dropped call loses
    /// nothing.
    pub(super) async fn changed(&mut self) {
        async fn of(value: &mut watch::Receiver<bool>) {
            if value.changed().await.is_err() {
                // There is no certificate, or the nimbus ends.
                std::future::pending().await
            }
        }
        tokio::select! {
            biased;
            () = of(&mut self.api_accepts) => {}
            () = of(&mut self.certificate_expired) => {}
        }
    }

    /// Waits until this leader should resign, and returns the reason.
    pub(super) async fn lost(
        &mut self,
        me: &NimbusId,
        mut observations: watch::Receiver<Observation>,
    ) -> &'static str {
        let mut watched = Watched::default();
        loop {
            let view = Arc::clone(&observations.borrow_and_update().view);
            let accepts = *self.api_accepts.borrow_and_update();
            let is_expired = *self.certificate_expired.borrow_and_update();
            if let Some(reason) = watched.reason_to_resign(me, &view, accepts, is_expired) {
                return reason;
            }
            tokio::select! {
                biased;
                // Cancel-safe: both only wait.
                () = self.changed() => {}
                changed = observations.changed() => if changed.is_err() {
                    // The observer has ended, which ends the nimbus.
                    return std::future::pending().await;
                },
            }
        }
    }
}

/// Observations of a leader about itself and others since it leads.
#[derive(Debug, Default)]
struct Watched {
    has_begun: bool,
    // A nimbus that became leader with a closed API leads on: nobody else did.
    was_open: bool,
    // Nimbuses with a valid certificate that did not lead when this one, with an expired one, began to.
    did_not_lead: BTreeSet<NimbusId>,
}

impl Watched {
    fn reason_to_resign(
        &mut self,
        me: &NimbusId,
        view: &ClusterView,
        accepts: bool,
        is_expired: bool,
    ) -> Option<&'static str> {
        let healthy: BTreeSet<&NimbusId> = healthy(me, view).collect();
        if !self.has_begun && is_expired {
            self.did_not_lead = healthy.iter().copied().cloned().collect();
        }
        self.has_begun = true;
        self.was_open |= accepts;
        self.did_not_lead.retain(|id| healthy.contains(id));
        if self.was_open && !accepts && view.nimbuses.len() > 1 {
            return Some("the API cannot accept connections");
        }
        if is_expired && healthy.iter().any(|id| !self.did_not_lead.contains(*id)) {
            return Some("the certificate of this nimbus has expired, so nobody can connect to it over TLS");
        }
        None
    }
}

/// Returns the other nimbuses whose certificate has not expired, as far as is known.
fn healthy<'a>(me: &'a NimbusId, view: &'a ClusterView) -> impl Iterator<Item = &'a NimbusId> {
    let is_healthy =
        move |(id, record): &(&NimbusId, &NimbusRecord)| *id != me && !record.certificate_expired;
    view.nimbuses.iter().filter(is_healthy).map(|(id, _)| id)
}
