//! The task table while a worker runs.
//!
//! A leader changes the table only in a rebalance, which launches every worker again. If the table
//! changes under a worker that stays assigned, a person has changed it. The worker goes on with the
//! table that it was started with, as its own tasks are those of that table: a tuple for another table
//! would reach a task of the wrong component. If the change stays, every worker starts again, so that
//! all of them have the same table, also one that was launched while the table was wrong.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::task::Wiring;
use stormkeeper_model::{TopologyId, topology::TaskTable};

/// Time for which a changed table must stay before the worker starts again: long enough to see the
/// assignment of a rebalance, and to put the table back.
const CHANGED_FOR: Duration = Duration::from_secs(10);

/// Comparison of the table in the tree with the one that the worker was started with.
#[derive(Debug)]
pub(super) struct TaskTableWatch {
    id: TopologyId,
    wiring: Arc<Wiring>,
    is_changed: watch::Sender<bool>,
    // True if the log says that the table in the tree is not used.
    is_logged: bool,
}

impl TaskTableWatch {
    pub(super) fn new(id: TopologyId, wiring: Arc<Wiring>) -> Self {
        Self { id, wiring, is_changed: watch::Sender::new(false), is_logged: false }
    }

    /// The table that the worker was started with.
    pub(super) fn own(&self) -> &TaskTable {
        &self.wiring.table
    }

    /// Notes the table that is in the tree now.
    pub(super) fn observe(&mut self, table: &TaskTable) {
        let contradiction = self.wiring.topology.contradiction(table);
        let (differs, topology) = (table != self.own(), &self.id);
        match (&contradiction, std::mem::replace(&mut self.is_logged, differs)) {
            (Some(reason), false) => {
                warn!(reason, %topology, "the task table contradicts the topology; continuing with the last one");
            }
            (None, false) if differs => {
                warn!(%topology, "the task table was changed; this worker starts again unless it is changed back soon");
            }
            (_, true) if !differs => info!(%topology, "the task table is as it was"),
            _ => {}
        }
        self.is_changed.send_replace(differs && contradiction.is_none());
    }

    /// Resolves when the table has been another one for [`CHANGED_FOR`].
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let mut is_changed = self.is_changed.subscribe();
        async move {
            loop {
                // An error means that the worker is stopping.
                if is_changed.wait_for(|is_changed| *is_changed).await.is_err() {
                    return std::future::pending().await;
                }
                tokio::select! {
                    // Cancel-safe: both only wait.
                    () = tokio::time::sleep(CHANGED_FOR) => return,
                    _ = is_changed.wait_for(|is_changed| !*is_changed) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::{task_set::TaskSet, test_support::lines_and_count};

    fn table(n_lines: u32, n_counts: u32) -> TaskTable {
        let id = |name: &str| name.parse().expect("valid");
        TaskTable::number([(id("count"), n_counts), (id("lines"), n_lines)])
    }

    #[tokio::test(start_paused = true)]
    async fn worker_starts_again_only_for_a_table_that_fits_and_stays() {
        let id: TopologyId = "wc-1-1".parse().expect("valid");
        let topology = Arc::new(lines_and_count("wc"));
        let wiring = Wiring { topology, table: table(1, 2), local: TaskSet::default() };
        let mut watched = TaskTableWatch::new(id, Arc::new(wiring));
        let mut changed = std::pin::pin!(watched.changed());
        let mut passes = async |secs, watched: &TaskTableWatch| {
            assert_eq!(*watched.own(), table(1, 2));
            tokio::time::timeout(Duration::from_secs(secs), &mut changed).await.is_ok()
        };
        watched.observe(&table(1, 3));
        assert!(!passes(9, &watched).await);
        watched.observe(&table(1, 2));
        assert!(!passes(100, &watched).await, "it was put back");
        watched.observe(&TaskTable::default());
        assert!(!passes(100, &watched).await, "it contradicts the topology");
        watched.observe(&table(2, 1));
        assert!(!passes(9, &watched).await);
        assert!(passes(2, &watched).await);
    }
}
