//! Follower side of the replication: fetches the leader's metric log, or a checkpoint of the
//! leader's metric store if the logs have diverged.

use std::{sync::Arc, time::Duration};

use tracing::{debug, info, warn};

use crate::{
    ReplicaState,
    counters::count,
    replication::{
        Replication,
        checkpoint::{self, TemporaryDirectory},
    },
};
use stormkeeper_api_types::replica_client::ReplicaError;
use stormkeeper_coordination::cluster::{record::Leader, store};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::protocol::{LogPage, LogQuery};
use stormkeeper_model::{LogPosition, Term, backoff::Delays};
use stormkeeper_runtime::error_chain;
#[cfg(feature = "injected-bugs")]
use stormkeeper_runtime::injected_bugs::{self, InjectedBug};

/// Maximum bytes of one fetched page: a fraction of a second to send and to write.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// Pages that are fetched in a row without a pause. The apply lock is released after each page.
const PAGES_IN_A_ROW: usize = 16;

/// Bounds of the pause after a failed fetch; the leadership may be moving to another nimbus.
const RETRY: Delays = Delays::between(Duration::from_millis(500), Duration::from_secs(30));

/// Pause after a checkpoint whose log diverges again at once: without the pause, the follower would
/// copy gigabytes for ever.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(30);

/// Failure to fetch or apply entries of another nimbus.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Sync(#[from] ReplicaError),
    #[error(transparent)]
    MetricStore(#[from] metric_store::Error),
    #[error(
        "the local metric log ends at entry {own}, and the latest leader in the view is of term {leader}: \
         either a later leader is not in the view yet, or the ZooKeeper tree is a new one (see \"A new ZooKeeper \
         tree\" in docs/operations/disaster.md)"
    )]
    StaleLeader { leader: Term, own: LogPosition },
    #[error(
        "another nimbus became leader while the checkpoint of the leader of term {leader} was downloaded; the \
         checkpoint is discarded"
    )]
    Deposed { leader: Term },
    #[error("cannot check in ZooKeeper whether the leader still leads")]
    Tree(#[from] store::Error),
}

/// Outcome of one fetched page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// The log of the other nimbus has no entry after the local log end.
    CaughtUp,
    /// Entries up to this position were applied, and the other nimbus may have more.
    Advanced(LogPosition),
    /// The log of the other nimbus does not continue the local log.
    Diverged,
    /// As `Diverged`, and the local log may contain committed entries that an unclean takeover
    /// discarded.
    DivergedCommitted,
}

/// Follows the leader for as long as the nimbus runs, except while this nimbus leads.
pub(crate) async fn follow(replication: Arc<Replication>) {
    let store = replication.store.wait_until_open().await;
    let mut state = replication.role.subscribe();
    let mut observations = replication.cluster.observations();
    let mut backoff = RETRY.backoff();
    loop {
        let intervals = &replication.intervals;
        let (now, leader) = (state.borrow_and_update().0, replication.cluster.other_leader());
        let wait = match leader.as_ref().filter(|_| now == ReplicaState::Following) {
            None => intervals.fetch_idle,
            Some(leader) => match replication.fetch_from_leader(&store, leader).await {
                Ok(wait) => {
                    backoff.reset();
                    if replication.fetch_status().problem.take().is_some() {
                        info!(leader = %leader.nimbus, "following the leader's metric log again");
                    }
                    wait
                }
                Err(error) => {
                    let (text, leader) = (error_chain(&error), &leader.nimbus);
                    let is_news =
                        replication.fetch_status().problem.replace(text.clone()).as_ref() != Some(&text);
                    match is_news {
                        true => {
                            info!(%leader, error = text, "could not follow the leader's metric log; retrying")
                        }
                        false => {
                            debug!(%leader, error = text, "could not follow the leader's metric log; retrying")
                        }
                    }
                    backoff.next_delay().max(intervals.fetch_lagging)
                }
            },
        };
        let leader_changed = async {
            // A new leader may answer at once; other changes of the view do not matter here.
            while observations.changed().await.is_ok() {
                if replication.cluster.other_leader() != leader {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            // Cancel-safe: all of them only wait.
            _changed = state.changed() => {}
            () = leader_changed => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Replication {
    /// Fetches and applies the leader's log page by page. Returns the pause before the next fetch.
    async fn fetch_from_leader(&self, store: &MetricStore, leader: &Leader) -> Result<Duration, FetchError> {
        let (intervals, api, leads) = (&self.intervals, &leader.api, Some(leader.term));
        for _ in 0..PAGES_IN_A_ROW {
            let _apply_lock = self.apply_lock.lock().await;
            let own = store.position();
            if own.term > leader.term.0 {
                return Err(FetchError::StaleLeader { leader: leader.term, own });
            }
            let Some(asked) = self.while_following(self.fetch_page(store, api, leads)).await else {
                return Ok(intervals.fetch_idle);
            };
            let (page, last) = asked?;
            self.fetch_status().leader = Some(last);
            let fetched = self.apply_page(store, api, page).await?;
            match fetched {
                Fetched::CaughtUp => return self.caught_up(store, leader).await,
                Fetched::Advanced(position) if position >= last => {
                    return self.caught_up(store, leader).await;
                }
                Fetched::Advanced(_) => {}
                Fetched::Diverged | Fetched::DivergedCommitted => {
                    let quarantine = fetched == Fetched::DivergedCommitted;
                    let Some(received) =
                        self.while_following(self.download_checkpoint(store, api, quarantine)).await
                    else {
                        return Ok(intervals.fetch_idle);
                    };
                    let received = received?;
                    self.check_leads(leader).await?;
                    self.install_checkpoint(store, api, received, quarantine).await?;
                    // The entries after the checkpoint follow at once, unless the log diverges again.
                    let (page, _) = self.fetch_page(store, api, leads).await?;
                    let diverged_again = matches!(
                        self.apply_page(store, api, page).await?,
                        Fetched::Diverged | Fetched::DivergedCommitted
                    );
                    return Ok(if diverged_again {
                        CHECKPOINT_PAUSE.max(intervals.fetch_lagging)
                    } else {
                        intervals.fetch_lagging
                    });
                }
            }
        }
        Ok(intervals.fetch_lagging)
    }

    /// Records that the local log has every entry of the leader, and replaces a store whose directory
    /// was deleted. Returns the pause before the next fetch. The caller must hold the apply lock.
    async fn caught_up(&self, store: &MetricStore, leader: &Leader) -> Result<Duration, FetchError> {
        self.fetch_status().caught_up_at = Some(self.cluster.clock.now());
        if self.store.is_dir_gone() {
            self.replace_deleted(store, leader).await?;
        }
        Ok(self.intervals.fetch_idle)
    }

    /// Replaces the store, whose directory was deleted, by a checkpoint of the leader.
    ///
    /// Until then the database is open and complete, in files that have no name any more; to close it
    /// deletes it. The leader's log contained the whole local log at the last fetch, in the term in
    /// which the checkpoint was taken, so the checkpoint has every committed entry of this store.
    async fn replace_deleted(&self, store: &MetricStore, leader: &Leader) -> Result<(), FetchError> {
        warn!(
            from = leader.api,
            "the directory of the metric store was deleted; downloading a checkpoint of the leader's"
        );
        let Some(received) = self.while_following(self.receive_checkpoint(&leader.api)).await else {
            return Ok(());
        };
        let received = received?;
        self.check_leads(leader).await?;
        self.install_checkpoint(store, &leader.api, received, false).await?;
        self.store.note_dir_is_back();
        Ok(())
    }

    /// Checks that no later leader was elected since a checkpoint was requested. The later leader may
    /// have made an unclean takeover, which the checkpoint of the deposed leader does not reflect.
    async fn check_leads(&self, leader: &Leader) -> Result<(), FetchError> {
        match self.cluster.store.is_latest(leader.term).await? {
            true => Ok(()),
            false => Err(FetchError::Deposed { leader: leader.term }),
        }
    }

    /// Returns the result of `request`, or `None` if this nimbus starts to lead first: a dead leader
    /// may take long to answer, and the takeover waits for the apply lock.
    pub(crate) async fn while_following<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        let mut state = self.role.subscribe();
        tokio::select! {
            biased;
            // Cancel-safe: `request` only sends requests and has changed nothing here.
            _changed = state.wait_for(|(state, _)| *state != ReplicaState::Following) => None,
            answer = request => Some(answer),
        }
    }

    /// Fetches the entries after the local log end, and the log end, of the nimbus at `api`: as a
    /// follower of the leader of the term `leader_term`, or as a leader itself if `leads` is absent.
    pub(crate) async fn fetch_page(
        &self,
        store: &MetricStore,
        api: &str,
        leader_term: Option<Term>,
    ) -> Result<(LogPage, LogPosition), FetchError> {
        let LogPosition { term, index } = store.position();
        let query =
            LogQuery { nimbus: self.cluster.me.clone(), term, index, max_bytes: PAGE_BYTES_MAX, leader_term };
        Ok(self.peers.log(api, &query).await?)
    }

    /// Applies a page of another nimbus' log. The caller must hold the apply lock.
    pub(crate) async fn apply_page(
        &self,
        store: &MetricStore,
        api: &str,
        page: LogPage,
    ) -> Result<Fetched, FetchError> {
        Ok(match page {
            LogPage::Entries { entries, .. } if entries.is_empty() => Fetched::CaughtUp,
            LogPage::Entries { entries, .. } => {
                let n = entries.len();
                let position = store.apply(entries).await?;
                debug!(from = api, n, index = position.index, "applied entries of the metric log");
                Fetched::Advanced(position)
            }
            LogPage::Diverged => Fetched::Diverged,
            LogPage::DivergedCommitted => Fetched::DivergedCommitted,
        })
    }

    /// Downloads a checkpoint from the nimbus at `api`. If the local database must be quarantined,
    /// the download starts only if there is room for one more quarantined database.
    pub(crate) async fn download_checkpoint(
        &self,
        store: &MetricStore,
        api: &str,
        quarantine: bool,
    ) -> Result<TemporaryDirectory, FetchError> {
        if quarantine {
            store.check_quarantine_room().await?;
        }
        let LogPosition { term, index } = store.position();
        warn!(
            from = api,
            term,
            index,
            "the local metric log diverged from the log of another nimbus; downloading a checkpoint"
        );
        self.receive_checkpoint(api).await
    }

    async fn receive_checkpoint(&self, api: &str) -> Result<TemporaryDirectory, FetchError> {
        let received = self.new_dir(checkpoint::RECEIVED);
        let bytes = self.peers.checkpoint(api, received.path()).await?;
        debug!(from = api, bytes, "downloaded a checkpoint of the metric store");
        Ok(received)
    }

    /// Replaces the local database by a downloaded checkpoint. The local database is quarantined or
    /// deleted. The caller must hold the apply lock.
    pub(crate) async fn install_checkpoint(
        &self,
        store: &MetricStore,
        api: &str,
        received: TemporaryDirectory,
        quarantine: bool,
    ) -> Result<(), FetchError> {
        let own = store.position();
        #[cfg(feature = "injected-bugs")]
        let quarantine = quarantine && !injected_bugs::is_injected(InjectedBug::RemovesDiverged);
        if quarantine {
            store.replace_and_quarantine(received.path().to_owned()).await?;
            warn!(
                term = own.term,
                index = own.index,
                "quarantined the local metric database: it may contain committed metrics that an unclean takeover \
                 discarded; see \"Quarantined databases\" in docs/operations/metrics.md"
            );
        } else {
            store.replace_with(received.path().to_owned()).await?;
        }
        count(&self.counters.checkpoints, 1);
        let LogPosition { term, index } = store.position();
        info!(from = api, term, index, "replaced the local metric database by a checkpoint");
        Ok(())
    }
}
