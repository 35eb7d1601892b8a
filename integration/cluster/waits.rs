//! Waits for states of a cluster, each with a limit.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use stormkeeper_coordination::cluster::layout;
use stormkeeper_runtime::test_support::wait_until;

use super::{Cluster, Process, WAIT_MAX};

impl Cluster {
    /// Waits for a leader that has all supervisors in its view.
    pub(crate) async fn wait_until_ready(&self) {
        wait_until("a leader and every supervisor", WAIT_MAX, async || {
            let cluster = self.try_json(&["cluster"]).ok_or("no nimbus responds".to_owned())?;
            let n_supervisors = self.supervisors.len();
            let ready = cluster["cluster"]["leader"].is_object()
                && cluster["cluster"]["supervisors"] == n_supervisors;
            if ready { Ok(()) } else { Err(format!("{}\n{}", cluster["cluster"], self.logs())) }
        })
        .await;
    }

    /// Waits until every running nimbus is in `/nimbuses`.
    pub(crate) async fn wait_until_nimbuses_registered(&self) {
        for nimbus in (0..self.nimbuses.len()).filter(|nimbus| self.nimbuses[*nimbus].answers()) {
            wait_until("a nimbus is registered", WAIT_MAX, async || {
                self.role(nimbus).await.map(drop).map_err(|error| format!("{error}\n{}", self.logs()))
            })
            .await;
        }
    }

    /// Waits until every daemon has an open session, whatever happened before.
    pub(crate) async fn wait_until_in_session(&self) {
        wait_until("every daemon has a session", WAIT_MAX, async || {
            let (opened, ended) = (self.count_in_logs("session opened"), self.count_in_logs("session ended"));
            // A daemon that was killed has logged the start of its session only.
            let have_all = opened.iter().zip(&ended).all(|(opened, ended)| opened > ended);
            if have_all { Ok(()) } else { Err(format!("{opened:?}, {ended:?} ended\n{}", self.logs())) }
        })
        .await;
    }

    /// Waits until every daemon has logged `text` more often than `before`.
    pub(crate) async fn wait_until_logged_since(&self, text: &str, before: &[usize]) {
        wait_until(&format!("every daemon logs {text:?}"), WAIT_MAX, async || {
            let now = self.count_in_logs(text);
            let have_all = now.iter().zip(before).all(|(now, before)| now > before);
            if have_all { Ok(()) } else { Err(format!("{now:?}, {before:?} before\n{}", self.logs())) }
        })
        .await;
    }

    /// Waits until every task of the topology sends heartbeats; returns the cluster's workers by
    /// port.
    pub(crate) async fn wait_until_whole(&self, topology: &str) -> BTreeMap<u64, Process> {
        wait_until("every task sends heartbeats", WAIT_MAX, async || {
            let shown = self.try_json(&["show", topology]).ok_or_else(|| "no nimbus responds".to_owned())?;
            let (alive, total) = (&shown["tasksAlive"], &shown["tasksTotal"]);
            if alive == total && total.as_u64() > Some(0) {
                Ok(())
            } else {
                Err(format!("{alive} of {total} tasks; {}\n{}", shown["workers"], self.logs()))
            }
        })
        .await;
        self.workers()
    }

    /// Waits until the components of the topology emit more tuples.
    pub(crate) async fn wait_until_tuples_flow(&self, topology: &str) {
        let emitted = || {
            let shown = self.try_json(&["show", topology]).ok_or_else(|| "no nimbus responds".to_owned())?;
            let components = shown["components"].as_array().cloned().unwrap_or_default();
            Ok::<_, String>(components.iter().filter_map(|one| one["emitted"].as_u64()).sum::<u64>())
        };
        let before = AtomicU64::new(u64::MAX);
        wait_until("more tuples are emitted", WAIT_MAX, async || {
            let now = emitted()?;
            // A count that decreased belongs to a worker that was restarted.
            let least = before.fetch_min(now, Ordering::Relaxed).min(now);
            if now > least { Ok(()) } else { Err(format!("{least} before, {now} now\n{}", self.logs())) }
        })
        .await;
    }

    /// Waits until no znode and no process of any topology is left.
    pub(crate) async fn wait_until_nothing_is_left(&self) {
        let roots = layout::topology_parents();
        wait_until("no znode and no process of a topology is left", WAIT_MAX, async || {
            let mut left = Vec::new();
            for root in &roots {
                let children = self.tree.children(root).await.map_err(|error| error.to_string())?;
                let children = children.unwrap_or_default().into_iter();
                let of_topologies = children.filter(|child| !is_of_the_cluster(child));
                left.extend(of_topologies.map(|child| format!("{root}/{child}")));
            }
            let processes = self.worker_processes();
            if left.is_empty() && processes.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}, processes {processes:?}\n{}", self.logs()))
            }
        })
        .await;
    }
}

/// True for a znode below `/metrics` that belongs to the cluster itself, its nimbuses or its
/// supervisors. These znodes are permanent.
pub(crate) fn is_of_the_cluster(name: &str) -> bool {
    ["__CLUSTER__", "__NIMBUS__", "__SUPERVISOR__"].contains(&name)
}
