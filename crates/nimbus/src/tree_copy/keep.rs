//! Task that keeps the copy of the tree on disk up to date.

use std::{io, time::Duration};

use tracing::{debug, info, warn};

use super::{CopyFile, TreeCopy};
use stormkeeper_coordination::cluster::{
    metric_log::MetricLogState, observer::Observation, store::Store, tree_id::TreeMemory,
};
use stormkeeper_model::clock::{Clock, Monotonic};
use stormkeeper_runtime::{blocking, fs::FailedWrites, outage::Outage, watch};

/// Time from a change to its copy, and the shortest time between two copies.
const DELAY: Duration = Duration::from_secs(1);

/// Time for which a change that removes topologies is not copied. A tree that is being deleted by
/// hand is recognised as another tree within this time, and its remains are never copied.
const REMOVAL_DELAY: Duration = Duration::from_secs(5);

/// Time after which the copy is renewed if only the state of the metric log has changed.
const RENEWAL_PERIOD: Duration = Duration::from_secs(60);

/// Keeper of the copy.
pub(crate) struct CopyKeeper {
    pub(crate) file: CopyFile,
    pub(crate) writes: FailedWrites,
    pub(crate) memory: TreeMemory,
    pub(crate) store: Store,
    pub(crate) observations: watch::Receiver<Observation>,
    pub(crate) clock: Clock,
    /// State of the metric log, as last read.
    pub(crate) metric_log: Option<MetricLogState>,
}

impl CopyKeeper {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let file = self.file.clone();
        let mut last = match blocking::run(move || file.read()).await {
            Ok(last) => last,
            Err(error) => {
                warn!(%error, "cannot read the copy of the tree; it is written anew from the tree");
                None
            }
        };
        let mut written_at: Option<Monotonic> = None;
        let mut outage = Outage::default();
        loop {
            tokio::time::sleep(DELAY).await;
            if let Some(copy) = self.take(last.as_ref()).await {
                let now = self.clock.monotonic();
                let is_recent = written_at.is_some_and(|at| now.since(at) < RENEWAL_PERIOD);
                if !is_recent || last.as_ref().is_none_or(|last| !last.is_same(&copy)) {
                    match self.write(copy.clone()).await {
                        Ok(()) => {
                            (last, written_at) = (Some(copy), Some(now));
                            if let Some(lasted) = outage.ends() {
                                info!(?lasted, "the copy of the tree is written again");
                            }
                        }
                        Err(error) if outage.begins() => {
                            warn!(%error, "cannot write the copy of the tree; retrying");
                        }
                        Err(error) => debug!(%error, "still cannot write the copy of the tree"),
                    }
                }
            }
            tokio::select! {
                biased;
                // Cancel-safe: both only wait.
                changed = self.observations.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RENEWAL_PERIOD) => {}
            }
        }
    }

    /// Copies the last view of the tree of this nimbus; `None` if there is none.
    async fn take(&mut self, last: Option<&TreeCopy>) -> Option<TreeCopy> {
        let copy = self.copy_view(last)?;
        if !last.is_some_and(|last| copy.misses_topologies_of(last)) {
            return Some(self.with_metric_log(copy).await);
        }
        tokio::time::sleep(REMOVAL_DELAY).await;
        let is_fresh = self.observations.borrow_and_update().fresh;
        let copy = self.copy_view(last).filter(|_| is_fresh)?;
        Some(self.with_metric_log(copy).await)
    }

    fn copy_view(&mut self, last: Option<&TreeCopy>) -> Option<TreeCopy> {
        let Observation { view, .. } = self.observations.borrow_and_update().clone();
        let is_own = view.leader.is_some() || !view.nimbuses.is_empty();
        let tree = self.memory.mark().filter(|_| is_own && self.memory.foreign().borrow().is_none())?;
        Some(TreeCopy::of(&view, tree, self.clock.now(), last))
    }

    /// Adds the state of the metric log, or the last known state while it cannot be read.
    async fn with_metric_log(&mut self, copy: TreeCopy) -> TreeCopy {
        match self.store.metric_log_state().await {
            Ok(state) => self.metric_log = state,
            Err(error) => debug!(%error, "cannot copy the state of the metric log; keeping the last one"),
        }
        copy.with_metric_log(self.metric_log.as_ref())
    }

    async fn write(&self, copy: TreeCopy) -> io::Result<()> {
        let (file, writes) = (self.file.clone(), self.writes.clone());
        blocking::run(move || writes.record(&file.0, file.write(&copy))).await
    }
}
