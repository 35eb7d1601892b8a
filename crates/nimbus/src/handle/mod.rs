//! Requests to a running nimbus.

mod metrics;
pub(crate) mod recovery;
mod update;

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::{
    Options,
    blobs::{BlobStore, copies::BlobReplicator, replicate},
    change::Change,
    check_turn::CheckTurns,
    drain::DrainChange,
    leader::{Command, LeaderStatus},
    refusal::Refusal,
    submit::PreparedTopology,
};
use stormkeeper_access::gate::Gate;
use stormkeeper_api_types::{blobs::BlobPeers, leader_clock::ProcessName};
use stormkeeper_coordination::{
    cluster::{
        observer::{Observation, Observer},
        record::{Leader, TopologyRecord},
        store::{self, Store},
    },
    tree::TreePath,
};
use stormkeeper_metrics_service::MetricsService;
use stormkeeper_model::{
    BlobKey, HostName, NimbusId, Term, Timestamp, TopologyId, TopologyName, Zxid, clock::Clock,
    status::TopologyStatus,
};
use stormkeeper_runtime::watch;

/// Time that a nimbus may take to see an earlier change before it returns a response.
const VIEW_TIMEOUT: Duration = Duration::from_secs(2);

/// Time in which a watch usually reports a change. Afterwards the change is asked for.
const WATCH_DELAY: Duration = Duration::from_millis(50);

/// Pause between two attempts to read a change that no watch has reported.
const SEE_PAUSE: Duration = Duration::from_millis(250);

/// A handle on a running nimbus. Clones share the nimbus.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) me: NimbusId,
    pub(super) api: String,
    pub(super) process: ProcessName,
    pub(super) options: Arc<Options>,
    pub(super) gate: Arc<Gate>,
    pub(super) clock: Clock,
    pub(super) observer: Observer,
    pub(super) store: Store,
    pub(super) recovery: recovery::Recovery,
    pub(super) blobs: BlobStore,
    pub(super) client: Arc<dyn BlobPeers>,
    pub(super) status: watch::Receiver<LeaderStatus>,
    pub(super) commands: watch::Receiver<Option<mpsc::Sender<Command>>>,
    pub(super) metrics: Option<MetricsService>,
    pub(super) check_turns: CheckTurns,
    /// Held by the one request that asks for a missing change on behalf of all that wait for one.
    pub(super) see_turn: Arc<tokio::sync::Mutex<()>>,
}

/// Request to run a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The name; the one in the topology package if absent.
    pub name: Option<TopologyName>,
    /// The blob with the topology package.
    pub blob: BlobKey,
    /// Owner of the topology.
    pub owner: String,
    /// Author of the request, if known.
    pub by: Option<String>,
    /// Initial status.
    pub status: TopologyStatus,
}

impl Handle {
    /// The id of this nimbus.
    pub fn id(&self) -> &NimbusId {
        &self.me
    }

    /// Address at which others reach its API, `host:port`.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Name of this process.
    pub fn process(&self) -> &ProcessName {
        &self.process
    }

    /// Its settings.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Checks who sends requests to it.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Its blobs.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Access to single records of the cluster state.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The term in which it leads, and the findings of its last decision or dry run.
    pub fn status(&self) -> LeaderStatus {
        self.status.borrow().clone()
    }

    /// Returns whether this nimbus accepts writes now. The leader may change right after this
    /// returns: only the result of a write is certain.
    pub fn takes_writes(&self) -> bool {
        self.commands.borrow().is_some()
    }

    /// The cluster as last read.
    ///
    /// # Errors
    /// [`Refusal::NotReady`] before the first read. An outdated view is returned as well; it
    /// contains its age.
    pub fn observation(&self) -> Result<Observation, Refusal> {
        let observation = self.observer.observe().borrow().clone();
        // A nimbus that has read the cluster once has read at least its own record.
        match observation.fresh || observation.view.leader.is_some() || !observation.view.nimbuses.is_empty()
        {
            true => Ok(observation),
            false => {
                self.own_tree()?;
                Err(Refusal::NotReady)
            }
        }
    }

    /// Age of a view; 0 while the watches of this nimbus are in place.
    pub fn view_age(&self, observation: &Observation) -> Duration {
        match observation.fresh {
            true => Duration::ZERO,
            false => self.clock.monotonic().since(observation.read_at),
        }
    }

    /// The transaction up to which the view contains the changes of operators and of the leader.
    pub fn zxid(&self) -> Zxid {
        self.observer.observe().borrow().view.zxid
    }

    /// Waits until the view contains the change of transaction `zxid`, at most two seconds. Returns
    /// the age of the view if the change is still missing.
    pub async fn wait_for(&self, zxid: Zxid) -> Option<Duration> {
        let mut observations = self.observer.observe();
        let seen = async {
            while observations.borrow_and_update().view.zxid < zxid {
                if observations.changed().await.is_err() {
                    // The observer ends with the whole nimbus.
                    std::future::pending::<()>().await;
                }
            }
        };
        let asking = async {
            tokio::time::sleep(WATCH_DELAY).await;
            let _turn = self.see_turn.lock().await;
            loop {
                if let Err(error) = self.read_latest(Vec::new()).await {
                    debug!(%error, "could not read a change that a client has seen");
                }
                tokio::time::sleep(SEE_PAUSE).await;
            }
        };
        let waiting = async {
            tokio::select! {
                biased;
                // Cancel-safe: both only wait and read.
                () = seen => {}
                () = asking => {}
            }
        };
        tokio::time::timeout(VIEW_TIMEOUT, waiting).await.err()?;
        let read_at = self.observer.observe().borrow().read_at;
        Some(self.clock.monotonic().since(read_at))
    }

    /// Reads what other sessions have written up to now, and `paths` in particular.
    async fn read_latest(&self, paths: Vec<TreePath>) -> Result<(), store::Error> {
        if let Some(leader) = self.leader() {
            // A transaction: after its response our server has all earlier writes.
            self.store.is_latest(leader.term).await?;
        }
        self.observer.read_written(paths).await.map(drop)
    }

    /// Updates the view with records that the leader has just written at `paths`, so that a
    /// client that received the response from this nimbus reads them here. Best effort: after
    /// two seconds it returns all the same.
    pub async fn see(&self, paths: Vec<TreePath>) {
        match tokio::time::timeout(VIEW_TIMEOUT, self.read_latest(paths)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "could not read a change of the leader before the response"),
            Err(_too_long) => debug!("a change of the leader is not in the view before the response"),
        }
    }

    /// The leader in the view of this nimbus.
    pub fn leader(&self) -> Option<Leader> {
        self.observer.observe().borrow().view.leader.clone()
    }

    /// Runs a topology whose blob is already stored.
    ///
    /// # Errors
    /// See [`Refusal`]; a rejected submit leaves nothing behind.
    pub async fn submit(&self, submission: Submission) -> Result<(TopologyId, TopologyRecord), Refusal> {
        let commands = self.commands()?;
        let Submission { name, blob, owner, by, status } = submission;
        self.obtain(&blob, None).await?;
        self.blobs.touch(&blob);
        let (turn, topology) = self.blobs.topology_in_turn(&blob, self.check_turns.next().await?).await;
        let invalid_package = |reason| Refusal::InvalidPackage { key: blob.clone(), reason };
        let topology = topology.map_err(invalid_package)?;
        let topology = topology.ok_or_else(|| Refusal::BlobMissing { key: blob.clone() })?;
        let replication = self.options.replication.of(&topology);
        let key = (blob.clone(), self.blobs.file(&blob).map(|(_, bytes)| bytes));
        let tracking = self.options.tracking;
        let prepare = move || PreparedTopology::new(&topology, name, key, owner, status, tracking);
        let (turn, prepared) = turn.run(prepare).await;
        drop(turn);
        let prepared = Box::new(prepared?);
        self.copies()?.ensure(&blob, replication).await?;
        // Copying may have taken longer than the guaranteed retention of an unused blob.
        self.blobs.touch(&blob);
        self.command(&commands, |reply| Command::Submit { prepared, by, reply }).await
    }

    /// Changes the status of a topology, named by its id or name.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn change(
        &self,
        topology: &str,
        change: Change,
        by: Option<String>,
    ) -> Result<(TopologyId, TopologyRecord), Refusal> {
        let commands = self.commands()?;
        let topology = topology.to_owned();
        self.command(&commands, |reply| Command::Change { topology, change, by, reply }).await
    }

    /// Drains a host, or allows placement on it again.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn drain(
        &self,
        host: HostName,
        change: DrainChange,
        by: Option<String>,
    ) -> Result<(), Refusal> {
        let commands = self.commands()?;
        self.command(&commands, |reply| Command::Drain { host, change, by, reply }).await
    }

    /// The latest term that this nimbus knows: its own if it leads, else the leader's.
    pub fn term(&self) -> Option<Term> {
        let seen = self.leader().map(|leader| leader.term);
        self.status().term.max(seen)
    }

    /// Checks that a request sent to the leader of `term` is for this nimbus. If this nimbus
    /// leads in an earlier term it is a former leader that may not have noticed yet.
    ///
    /// # Errors
    /// [`Refusal::NotLeading`] in that case.
    pub fn check_term(&self, term: Term) -> Result<(), Refusal> {
        match self.status().term {
            Some(mine) if mine < term => Err(self.not_leading()),
            Some(_) | None => Ok(()),
        }
    }

    /// Time until `deadline`, in milliseconds.
    pub fn remaining_ms(&self, deadline: Timestamp) -> u64 {
        u64::try_from(deadline.since(self.clock.now()).as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns whether a topology uses a blob that this nimbus does not have.
    pub fn is_missing(&self, key: &BlobKey) -> bool {
        let view = Arc::clone(&self.observer.observe().borrow().view);
        !self.blobs.holds(key) && view.topologies.values().any(|topology| topology.value.uses(key))
    }

    /// Copies a blob from the nimbus at `from`, on behalf of the leader of `term`.
    ///
    /// # Errors
    /// [`Refusal::TermIsOver`] if a later term has begun: requests of an earlier leader no longer
    /// count. [`Refusal::UnknownNimbus`] if no nimbus has that address: requests must not be sent to
    /// any address that a caller names. [`Refusal::BlobMissing`] if no nimbus sends the blob.
    pub async fn copy_blob(&self, key: &BlobKey, from: String, term: Term) -> Result<(), Refusal> {
        if let Some(later) = self.term().filter(|mine| *mine > term) {
            return Err(Refusal::TermIsOver { term, later });
        }
        if !self.blobs.holds(key) {
            let room = self.blobs.check_room(0).await;
            room.map_err(|reason| crate::blobs::Error::NoRoom { key: key.clone(), reason })?;
        }
        self.obtain(key, Some(from)).await?;
        self.blobs.touch(key);
        Ok(())
    }

    fn copies(&self) -> Result<BlobReplicator, Refusal> {
        let term = self.status().term.ok_or_else(|| self.not_leading())?;
        Ok(BlobReplicator {
            me: self.me.clone(),
            api: self.api.clone(),
            term,
            peers: Arc::clone(&self.client),
            observations: self.observer.observe(),
        })
    }

    /// Fetches a blob unless it is here: it may have been uploaded to the previous leader.
    async fn obtain(&self, key: &BlobKey, from: Option<String>) -> Result<(), Refusal> {
        if self.blobs.holds(key) {
            return Ok(());
        }
        let view = Arc::clone(&self.observer.observe().borrow().view);
        let mut holders = replicate::holders(&view, key, &self.me);
        // The sender of the request may have it before the view shows that.
        if let Some(from) = from.filter(|from| !holders.contains(from)) {
            let leader = view.leader.iter().map(|leader| &leader.api);
            if !view.nimbuses.values().map(|nimbus| &nimbus.api).chain(leader).any(|api| *api == from) {
                return Err(Refusal::UnknownNimbus { api: from });
            }
            holders.insert(0, from);
        }
        let fetched = self.blobs.fetch(key, &holders, &*self.client, self.blobs.bytes_max()).await;
        fetched.map_err(|reason| {
            tracing::info!(blob = %key, reason, "could not fetch a blob; the request is rejected");
            Refusal::BlobMissing { key: key.clone() }
        })
    }

    fn commands(&self) -> Result<mpsc::Sender<Command>, Refusal> {
        self.commands.borrow().clone().ok_or_else(|| self.not_leading())
    }

    pub(super) fn not_leading(&self) -> Refusal {
        // If the view still names us as the leader, it is out of date: we accept no writes.
        Refusal::NotLeading { leader: self.leader().filter(|leader| leader.nimbus != self.me).map(Box::new) }
    }

    async fn command<T>(
        &self,
        commands: &mpsc::Sender<Command>,
        make: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        match commands.try_send(make(reply)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Refusal::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.not_leading()),
        }
        // A command that has begun always gets a response; without one it never began.
        answer.await.unwrap_or_else(|_never_begun| Err(self.not_leading()))
    }
}
