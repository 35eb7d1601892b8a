//! What others ask of a running nimbus.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::{
    clock::Clock,
    cluster::{
        observer::{Observation, Observer},
        record::{Leader, Storm},
        store::Store,
    },
    daemon::watch,
    model::{BlobKey, HostName, NimbusId, Term, Timestamp, TopologyId, TopologyName, status::TopologyStatus},
    nimbus::{
        Options,
        blobs::{BlobStore, copies::Copies, replicate},
        change::Change,
        drain::DrainChange,
        leader::{Command, LeaderStatus},
        measure::Measure,
        refusal::Refusal,
        submit::Prepared,
    },
    rpc::blobs::BlobPeers,
    tree::TreePath,
};

/// How long an answer of the leader may wait for the view of the nimbus that passes it on.
const SEE_PATIENCE: Duration = Duration::from_secs(2);

/// A handle on a running nimbus. Clones ask the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) me: NimbusId,
    pub(super) api: String,
    pub(super) options: Arc<Options>,
    pub(super) clock: Clock,
    pub(super) observer: Observer,
    pub(super) store: Store,
    pub(super) blobs: BlobStore,
    pub(super) client: Arc<dyn BlobPeers>,
    pub(super) status: watch::Receiver<LeaderStatus>,
    pub(super) commands: watch::Receiver<Option<mpsc::Sender<Command>>>,
    pub(super) measure: Option<Measure>,
}

/// What is to be run, and how it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The name; the topology's own when absent.
    pub name: Option<TopologyName>,
    /// The blob with the topology.
    pub blob: BlobKey,
    /// Who submits it.
    pub owner: String,
    /// Who asks, as far as that is known.
    pub by: Option<String>,
    /// The status that it begins with.
    pub status: TopologyStatus,
}

impl Handle {
    /// The id of this nimbus.
    pub fn id(&self) -> &NimbusId {
        &self.me
    }

    /// Where others reach its API, `host:port`.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// What it was told by its configuration.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Its blobs.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// The cluster state, read record by record.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The term it leads in and what it found, while it leads.
    pub fn status(&self) -> LeaderStatus {
        self.status.borrow().clone()
    }

    /// Whether this nimbus takes writes now. By the time anyone acts on the answer it may be
    /// another one: what counts is whether the write is taken.
    pub fn takes_writes(&self) -> bool {
        self.commands.borrow().is_some()
    }

    /// The cluster as it was last read.
    ///
    /// # Errors
    /// [`Refusal::NotReady`] before the first read. A view that is old is answered all the
    /// same, and says how old it is.
    pub fn observation(&self) -> Result<Observation, Refusal> {
        let observation = self.observer.observe().borrow().clone();
        // A nimbus that has read the cluster once has seen at least itself.
        match observation.fresh || observation.view.leader.is_some() || !observation.view.nimbuses.is_empty()
        {
            true => Ok(observation),
            false => Err(Refusal::NotReady),
        }
    }

    /// Has the view show what the leader has just written at `paths`, so that whoever was told
    /// of that by this nimbus reads it here. It does its best for two seconds.
    pub async fn see(&self, paths: Vec<TreePath>) {
        let seeing = async {
            if let Some(leader) = self.leader() {
                // A transaction: what was written before it is on our server when it is answered.
                self.store.is_latest(leader.term).await?;
            }
            self.observer.read_again(paths).await
        };
        match tokio::time::timeout(SEE_PATIENCE, seeing).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "what the leader wrote is not in the view yet"),
            Err(_too_long) => debug!("what the leader wrote is not in the view yet"),
        }
    }

    /// Who leads, as far as this nimbus knows.
    pub fn leader(&self) -> Option<Leader> {
        self.observer.observe().borrow().view.leader.clone()
    }

    /// Runs a topology whose blob was stored before.
    ///
    /// # Errors
    /// See [`Refusal`]; a refused one leaves nothing behind.
    pub async fn submit(&self, submission: Submission) -> Result<(TopologyId, Storm), Refusal> {
        let commands = self.commands()?;
        let Submission { name, blob, owner, by, status } = submission;
        self.obtain(&blob, None).await?;
        self.blobs.touch(&blob);
        let bad_bundle = |reason| Refusal::BadBundle { key: blob.clone(), reason };
        let topology = self.blobs.topology(&blob).await.map_err(bad_bundle)?;
        let topology = topology.ok_or_else(|| Refusal::BlobMissing { key: blob.clone() })?;
        self.copies()?.ensure(&blob, self.options.replication.of(&topology)).await?;
        // The copies may have taken longer than an unused blob is kept for sure.
        self.blobs.touch(&blob);
        let timeout = self.options.message_timeout;
        let prepared = Box::new(Prepared::new(&topology, name, blob, owner, status, timeout)?);
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
    ) -> Result<(TopologyId, Storm), Refusal> {
        let commands = self.commands()?;
        let topology = topology.to_owned();
        self.command(&commands, |reply| Command::Change { topology, change, by, reply }).await
    }

    /// Has a host emptied, or used again.
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

    /// The latest term that this nimbus knows of: its own while it leads, else the leader's.
    pub fn term(&self) -> Option<Term> {
        let seen = self.leader().map(|leader| leader.term);
        self.status().term.max(seen)
    }

    /// Whether a request that was sent to the leader of `term` is for this nimbus: not when
    /// it leads in an earlier one, as it is a leader of the past then and may not know.
    ///
    /// # Errors
    /// [`Refusal::NotLeading`] then.
    pub fn check_term(&self, term: Term) -> Result<(), Refusal> {
        match self.status().term {
            Some(mine) if mine < term => Err(self.not_leading()),
            Some(_) | None => Ok(()),
        }
    }

    /// How long until `deadline`, in milliseconds.
    pub fn remaining_ms(&self, deadline: Timestamp) -> u64 {
        u64::try_from(deadline.since(self.clock.now()).as_millis()).unwrap_or(u64::MAX)
    }

    /// Copies a blob from the nimbus at `from`, as the leader of `term` asks.
    ///
    /// # Errors
    /// [`Refusal::TermIsOver`] when a later term has begun: what an earlier leader wants
    /// counts no more. [`Refusal::BlobMissing`] when nobody gives it.
    pub async fn copy_blob(&self, key: &BlobKey, from: String, term: Term) -> Result<(), Refusal> {
        if let Some(later) = self.term().filter(|mine| *mine > term) {
            return Err(Refusal::TermIsOver { term, later });
        }
        self.obtain(key, Some(from)).await?;
        self.blobs.touch(key);
        Ok(())
    }

    fn copies(&self) -> Result<Copies, Refusal> {
        let term = self.status().term.ok_or_else(|| self.not_leading())?;
        Ok(Copies {
            me: self.me.clone(),
            api: self.api.clone(),
            term,
            peers: Arc::clone(&self.client),
            observations: self.observer.observe(),
        })
    }

    /// Makes sure that a blob is here: it may have been put on the leader before this one.
    async fn obtain(&self, key: &BlobKey, from: Option<String>) -> Result<(), Refusal> {
        if self.blobs.holds(key) {
            return Ok(());
        }
        let view = Arc::clone(&self.observer.observe().borrow().view);
        let mut holders = replicate::holders(&view, key, &self.me);
        // Whoever asks may have it before the view shows that.
        if let Some(from) = from.filter(|from| !holders.contains(from)) {
            holders.insert(0, from);
        }
        let fetched = self.blobs.fetch(key, &holders, &*self.client).await;
        fetched.map_err(|reason| {
            tracing::info!(blob = %key, reason, "a submitted blob could not be fetched");
            Refusal::BlobMissing { key: key.clone() }
        })
    }

    fn commands(&self) -> Result<mpsc::Sender<Command>, Refusal> {
        self.commands.borrow().clone().ok_or_else(|| self.not_leading())
    }

    pub(super) fn not_leading(&self) -> Refusal {
        // What the view says of ourselves is out of date when we take no writes.
        Refusal::NotLeading { leader: self.leader().filter(|leader| leader.nimbus != self.me) }
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
        // A command that was begun is always answered: one that is not was never begun.
        answer.await.unwrap_or_else(|_never_begun| Err(self.not_leading()))
    }
}
