//! State of the replication on one nimbus, and its methods for the other parts.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};

use crate::{
    Intervals, Lag, MetricOptions, ReplicaState, RequestError,
    cluster::ClusterAccess,
    counters::ReplicationCounters,
    query::MetricQueryClient,
    replication::{checkpoint, commit::ReplicaProgress},
    store_access::StoreAccess,
};
use stormkeeper_api_types::replica_client::ReplicaPeers;
use stormkeeper_coordination::cluster::metric_log::MetricLogState;
use stormkeeper_metric_store::{Medium, MetricStore};
use stormkeeper_model::{LogPosition, NimbusId, Term, Timestamp};
use stormkeeper_runtime::watch;

/// Replication of the metric log: role of this nimbus, progress of its followers, high watermark.
#[derive(Debug)]
pub(crate) struct Replication {
    pub(super) cluster: ClusterAccess,
    pub(super) store: StoreAccess,
    pub(super) peers: Arc<dyn ReplicaPeers>,
    pub(super) query: Arc<dyn MetricQueryClient>,
    pub(super) local_dir: PathBuf,
    /// Medium of the metric store and of its checkpoints.
    pub(super) medium: Medium,
    pub(super) intervals: Intervals,
    pub(super) takeover_grace: Duration,
    /// Role of this nimbus, and the term in which it takes over or leads.
    pub(super) role: watch::Sender<(ReplicaState, Option<Term>)>,
    /// Held while log entries of another nimbus are applied to the metric store.
    pub(super) apply_lock: tokio::sync::Mutex<()>,
    pub(super) checkpoint_permits: Arc<Semaphore>,
    pub(super) counters: ReplicationCounters,
    /// Wakes the commit task of the leader.
    pub(super) commit_wakeup: Notify,
    // Each of the three guards a few values, held for a few instructions.
    progress: Mutex<ReplicaProgress>,
    log_state: Mutex<MetricLogState>,
    fetch_status: Mutex<FetchStatus>,
}

/// Status of following and of the takeover.
#[derive(Debug, Clone, Default)]
pub(crate) struct FetchStatus {
    /// Last entry of the leader's log, at the latest fetch.
    pub(crate) leader: Option<LogPosition>,
    /// Time at which the local log last had every entry of the leader's.
    pub(crate) caught_up_at: Option<Timestamp>,
    /// Last problem, until the next success.
    pub(crate) problem: Option<String>,
}

impl Replication {
    pub(crate) fn new(
        cluster: ClusterAccess,
        store: StoreAccess,
        (peers, query): (Arc<dyn ReplicaPeers>, Arc<dyn MetricQueryClient>),
        local_dir: PathBuf,
        options: &MetricOptions,
    ) -> Self {
        Self {
            cluster,
            store,
            peers,
            query,
            local_dir,
            medium: options.medium.clone(),
            intervals: options.intervals,
            takeover_grace: options.takeover_grace,
            role: watch::Sender::new((ReplicaState::Following, None)),
            apply_lock: tokio::sync::Mutex::new(()),
            checkpoint_permits: Arc::new(Semaphore::new(checkpoint::SENDS_MAX)),
            counters: ReplicationCounters::default(),
            commit_wakeup: Notify::new(),
            progress: Mutex::default(),
            log_state: Mutex::default(),
            fetch_status: Mutex::default(),
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, ReplicaProgress> {
        self.progress.lock().expect("no one panics while holding the replica progress")
    }

    /// The metric log state, as this nimbus read or published it while leading.
    pub(super) fn log_state(&self) -> MutexGuard<'_, MetricLogState> {
        self.log_state.lock().expect("no one panics while holding the log state")
    }

    pub(super) fn fetch_status(&self) -> MutexGuard<'_, FetchStatus> {
        self.fetch_status.lock().expect("no one panics while holding the fetch status")
    }

    /// Returns the role of this nimbus.
    pub(crate) fn state(&self) -> ReplicaState {
        self.role.borrow().0
    }

    /// Returns the metric store and the term, while this nimbus leads.
    pub(crate) fn as_leader(&self) -> Result<(MetricStore, Term), RequestError> {
        let store = self.store.get()?;
        match *self.role.borrow() {
            (ReplicaState::Leading, Some(term)) => Ok((store, term)),
            (ReplicaState::Leading | ReplicaState::TakingOver | ReplicaState::Following, _) => {
                let reason =
                    "this nimbus has just begun to lead, and is still taking over the metric log".to_owned();
                Err(RequestError::Unavailable { reason })
            }
        }
    }

    /// Begins the takeover in `term`: stops following, and forgets the followers of earlier terms.
    pub(crate) fn begin_takeover(&self, term: Term) {
        self.progress().clear();
        *self.fetch_status() = FetchStatus::default();
        self.role.send_replace((ReplicaState::TakingOver, Some(term)));
    }

    /// Begins to accept metrics as the leader of `term`, after the takeover.
    pub(crate) fn begin_leading(&self, term: Term) {
        self.fetch_status().problem = None;
        self.role.send_replace((ReplicaState::Leading, Some(term)));
    }

    /// Ends the leadership of `term`; this nimbus follows from now on.
    pub(crate) fn end_leading(&self, term: Term) {
        self.role.send_if_modified(|role| {
            // The next leadership may have begun.
            let is_ours = role.1 == Some(term);
            if is_ours {
                *role = (ReplicaState::Following, None);
            }
            is_ours
        });
    }

    /// Wakes the commit task: the log or the progress of a follower has advanced.
    pub(crate) fn wake_commit(&self) {
        self.commit_wakeup.notify_one();
    }

    /// Returns the published high watermark: the log up to this position survives the loss of this
    /// leader with its disk, for ever.
    pub(crate) fn high_watermark(&self) -> LogPosition {
        self.log_state().high_watermark
    }

    /// Returns the log end of each other live nimbus, as reported to this leader.
    pub(crate) fn follower_log_ends(&self) -> BTreeMap<NimbusId, LogPosition> {
        let (view, _) = self.cluster.view();
        let live = view.nimbuses.keys().filter(|id| **id != self.cluster.me);
        self.progress().log_ends_of(live)
    }

    /// Returns the counters.
    pub(crate) fn counters(&self) -> &ReplicationCounters {
        &self.counters
    }

    /// Returns the last problem of the store, of following or of the takeover.
    pub(crate) fn problem(&self) -> Option<String> {
        // A leader that ingests follows no other nimbus.
        let follows = self.state() != ReplicaState::Leading;
        self.store.problem(self.state()).or_else(|| self.fetch_status().problem.clone().filter(|_| follows))
    }

    /// Returns the number of log entries that each replica is behind the leader: this nimbus, and
    /// while it leads its followers.
    pub(crate) fn behind(&self) -> BTreeMap<NimbusId, u64> {
        let Ok(store) = self.store.get() else { return BTreeMap::new() };
        let own = store.position();
        let mut behind = BTreeMap::new();
        if self.state() == ReplicaState::Leading {
            let progress = self.progress();
            let log_ends =
                progress.log_ends().map(|(id, its)| (id.clone(), own.index.saturating_sub(its.index)));
            behind.extend(log_ends);
        }
        if let Some(leader) = self.lag().leader {
            behind.insert(self.cluster.me.clone(), leader.index.saturating_sub(own.index));
        }
        behind
    }

    /// Returns the position of the leader's log as this nimbus last saw it.
    pub(crate) fn lag(&self) -> Lag {
        let leads = self.state() == ReplicaState::Leading;
        match self.store.get() {
            Ok(store) if leads => Lag { leader: Some(store.position()), caught_up_at: None },
            Ok(_) | Err(_) => self.fetched(),
        }
    }

    /// Returns the result of the latest fetch from the leader.
    pub(crate) fn fetched(&self) -> Lag {
        let fetch_status = self.fetch_status();
        Lag { leader: fetch_status.leader, caught_up_at: fetch_status.caught_up_at }
    }

    /// Returns the client that metas and history of other nimbuses are read with.
    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn query_client(&self) -> Arc<dyn MetricQueryClient> {
        Arc::clone(&self.query)
    }
}
