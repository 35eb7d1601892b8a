//! Access of the parts to the cluster: identity, clock, view and records.

use std::{sync::Arc, time::Duration};

use stormkeeper_coordination::cluster::{
    observer::Observation, record::Leader, store::Store, view::ClusterView,
};
use stormkeeper_model::{NimbusId, clock::Clock};
use stormkeeper_runtime::watch;

/// This nimbus and the cluster as this nimbus sees it. Clones are cheap; each part has one.
#[derive(Debug, Clone)]
pub(crate) struct ClusterAccess {
    /// This nimbus.
    pub(crate) me: NimbusId,
    /// Wall and monotonic time.
    pub(crate) clock: Clock,
    /// Reads of the cluster state.
    pub(crate) store: Store,
    observations: watch::Receiver<Observation>,
}

impl ClusterAccess {
    pub(crate) fn new(
        me: NimbusId,
        clock: Clock,
        store: Store,
        observations: watch::Receiver<Observation>,
    ) -> Self {
        Self { me, clock, store, observations }
    }

    /// Returns a receiver of the views, which has seen the current one.
    pub(crate) fn observations(&self) -> watch::Receiver<Observation> {
        self.observations.clone()
    }

    /// Returns the latest cluster view, and whether the view is up to date.
    pub(crate) fn view(&self) -> (Arc<ClusterView>, bool) {
        let observation = self.observations.borrow();
        (Arc::clone(&observation.view), observation.fresh)
    }

    /// Returns how long the view has been out of date.
    pub(crate) fn view_age(&self) -> Duration {
        let observation = self.observations.borrow();
        match observation.fresh {
            true => Duration::ZERO,
            false => self.clock.monotonic().since(observation.read_at),
        }
    }

    /// Returns the leader, if it is another nimbus.
    pub(crate) fn other_leader(&self) -> Option<Leader> {
        let (view, _) = self.view();
        view.leader.clone().filter(|leader| leader.nimbus != self.me)
    }
}
