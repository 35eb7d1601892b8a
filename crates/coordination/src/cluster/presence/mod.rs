//! Ephemerals of a process, kept in the tree across sessions (compare Curator's `PersistentNode`).
//!
//! The existence of an ephemeral proves that its process is alive, so the ephemeral must exist
//! while the process lives, and must belong to its current session. [`Presence`] stores the desired
//! ephemerals and keeps the tree equal to them. In a new session all of them are created again, at
//! once and in batches. A znode at our path that belongs to another session (mostly our own former
//! session) is deleted by version and created again, never overwritten, because it would be deleted
//! with its owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tracing::{debug, error, info, warn};

use crate::{
    cluster::layout::Ephemeral,
    tree::{self, CreateMode, NodeWithChildren, Op, SessionId, SessionState, Tree, TreePath},
};
use stormkeeper_model::backoff::Delays;
use stormkeeper_runtime::{
    outage::Outage,
    tasks::{OnExit, Tasks},
    watch,
};

/// Maximum number of znodes that one transaction creates or writes: large enough for a thousand
/// tasks to need only ten requests, small enough for one request to stay far below the limits.
const BATCH: usize = 100;

/// Interval of a full review, in case an operator has deleted one of our ephemerals by hand.
const REVIEW_PERIOD: Duration = Duration::from_secs(8);

const RETRY: Delays = Delays::between(Duration::from_millis(50), Duration::from_secs(5));

/// Bounds of the pause before an ephemeral that could not be written is tried again: without a parent, short
/// at the first start of a cluster and long for the tasks of a topology that is being removed.
const HELD_BACK_RETRY: Delays = Delays::between(Duration::from_millis(100), Duration::from_secs(10));

/// Handle of the ephemerals that this process keeps. Clones share them.
#[derive(Debug, Clone)]
pub struct Presence {
    shared: Arc<Shared>,
    settled: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared {
    // Guards the desired ephemerals; held for a few instructions.
    desired: Mutex<Desired>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Desired {
    kept: BTreeMap<TreePath, Arc<[u8]>>,
    dirty: BTreeSet<TreePath>,
    withdrawn: BTreeSet<TreePath>,
    /// Kept ephemerals whose parent did not exist at the last attempt; tried again after a pause.
    missing_parent: BTreeSet<TreePath>,
    /// Ephemerals that ZooKeeper did not let this process write or delete at the last attempt, as somebody
    /// has taken the right away; tried again after a pause.
    denied: BTreeMap<TreePath, tree::Error>,
    /// Ephemerals that were written in this session: only another process can have replaced them.
    owned: BTreeSet<TreePath>,
    /// Number of times that another process has replaced one of them.
    n_replaced: u64,
    /// The ephemeral that was last replaced, with the time and the data of the other process.
    replaced: Option<(TreePath, Instant, Arc<[u8]>)>,
    /// Incremented with every change, so that `settled` knows which change to wait for.
    revision: u64,
}

impl Presence {
    /// Starts to keep ephemerals in `tree`; ends with `tasks`.
    pub fn start(tree: Arc<dyn Tree>, tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared { desired: Mutex::new(Desired::default()), wake: Notify::new() });
        let (settled_tx, settled) = watch::channel(0);
        let keeper = Keeper { shared: Arc::clone(&shared), tree, settled: settled_tx, session: None };
        tasks.start("presence", OnExit::StopOwner, keeper.run());
        Self { shared, settled }
    }

    /// Keeps an ephemeral with `data`, or changes its data if it is kept already. Returns at once;
    /// [`Presence::settled`] waits for the tree.
    pub fn keep(&self, ephemeral: &Ephemeral, data: Vec<u8>) {
        self.keep_at([(ephemeral.path(), data)]);
    }

    /// Keeps several ephemerals, which are written in batches.
    pub fn keep_all(&self, nodes: impl IntoIterator<Item = (Ephemeral, Vec<u8>)>) {
        self.keep_at(nodes.into_iter().map(|(ephemeral, data)| (ephemeral.path(), data)));
    }

    fn keep_at(&self, nodes: impl IntoIterator<Item = (TreePath, Vec<u8>)>) {
        self.change(|desired| {
            for (path, data) in nodes {
                desired.withdrawn.remove(&path);
                let is_same = desired.kept.get(&path).is_some_and(|kept| **kept == *data);
                if is_same && !desired.is_held_back(&path) {
                    continue;
                }
                desired.kept.insert(path.clone(), data.into());
                desired.dirty.insert(path);
            }
        });
    }

    /// Compares an ephemeral that is kept with the tree, and creates it again if it was deleted.
    pub fn verify(&self, ephemeral: &Ephemeral) {
        self.change(|desired| {
            let path = ephemeral.path();
            if desired.kept.contains_key(&path) {
                desired.dirty.insert(path);
            }
        });
    }

    /// Returns the data with which another process has replaced an ephemeral within `age`, if one has.
    pub fn replaced_within(&self, ephemeral: &Ephemeral, age: Duration) -> Option<Arc<[u8]>> {
        let desired = self.lock();
        let (path, at, data) = desired.replaced.as_ref()?;
        (*path == ephemeral.path() && at.elapsed() < age).then(|| Arc::clone(data))
    }

    /// True if this process has written an ephemeral in its session.
    pub fn owns(&self, ephemeral: &Ephemeral) -> bool {
        self.lock().owned.contains(&ephemeral.path())
    }

    /// Returns the reason if ZooKeeper did not authorize the last attempt to write an ephemeral.
    pub fn denial(&self, ephemeral: &Ephemeral) -> Option<tree::Error> {
        self.lock().denied.get(&ephemeral.path()).cloned()
    }

    /// Deletes an ephemeral and stops keeping it.
    pub fn withdraw(&self, ephemeral: &Ephemeral) {
        self.withdraw_at(&ephemeral.path());
    }

    fn withdraw_at(&self, path: &TreePath) {
        self.change(|desired| {
            if desired.kept.remove(path).is_some() {
                desired.dirty.remove(path);
                desired.missing_parent.remove(path);
                desired.denied.remove(path);
                desired.withdrawn.insert(path.clone());
            }
        });
    }

    /// Waits until all ephemerals that are kept now are written, and all that were withdrawn are
    /// deleted, except those without a parent and those that ZooKeeper does not let this process write:
    /// see [`Presence::owns`].
    ///
    /// # Cancellation safety
    /// Safe: it only waits.
    pub async fn settled(&self) {
        let revision = self.lock().revision;
        let mut settled = self.settled.clone();
        // Fails only if the keeper has ended, and then there is nothing to wait for.
        let _ended = settled.wait_for(|done| *done >= revision).await;
    }

    fn change(&self, edit: impl FnOnce(&mut Desired)) {
        let mut desired = self.lock();
        edit(&mut desired);
        desired.revision += 1;
        drop(desired);
        self.shared.wake.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Desired> {
        self.shared.desired.lock().expect("no one panics while holding the desired ephemerals")
    }
}

impl Desired {
    /// True if an ephemeral is still to be kept with these data.
    fn is_kept_as(&self, (path, data): &(TreePath, Arc<[u8]>)) -> bool {
        self.kept.get(path).is_some_and(|kept| Arc::ptr_eq(kept, data))
    }

    /// True if the last attempt to write an ephemeral failed in a way that concerns it alone.
    fn is_held_back(&self, path: &TreePath) -> bool {
        self.missing_parent.contains(path) || self.denied.contains_key(path)
    }
}

struct Keeper {
    shared: Arc<Shared>,
    tree: Arc<dyn Tree>,
    settled: watch::Sender<u64>,
    /// The session in which all ephemerals were last written.
    session: Option<SessionId>,
}

impl Keeper {
    async fn run(mut self) {
        let mut sessions = self.tree.session();
        let mut backoff = RETRY.backoff();
        let mut held_back_backoff = HELD_BACK_RETRY.backoff();
        let mut denied = Outage::default();
        let mut review = tokio::time::interval(REVIEW_PERIOD);
        loop {
            let state = *sessions.borrow_and_update();
            let wait = match state {
                SessionState::Connected(session) => match self.write(session).await {
                    Ok(()) => {
                        backoff.reset();
                        self.log_denial(&mut denied);
                        match self.retry_held_back() {
                            true => Some(held_back_backoff.next_delay()),
                            false => {
                                held_back_backoff.reset();
                                None
                            }
                        }
                    }
                    Err(error) => {
                        debug!(%error, "could not write ephemerals; retrying");
                        Some(backoff.next_delay())
                    }
                },
                SessionState::Connecting | SessionState::Disconnected(_) => None,
                SessionState::Closed => return,
            };
            let retry = async {
                match wait {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Rare events come first, so that none is starved.
                biased;
                // Cancel-safe: each arm only waits; the state is read again above.
                changed = sessions.changed() => if changed.is_err() { return },
                _ = review.tick() => self.mark_all_dirty(),
                () = retry => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Logs the begin and the end of a time in which ZooKeeper lets this process write not all of its
    /// ephemerals.
    fn log_denial(&self, outage: &mut Outage) {
        let desired = self.lock();
        match desired.denied.first_key_value() {
            Some((_, error)) if outage.begins() => {
                let (n, error) = (desired.denied.len(), error.root());
                warn!(n, %error, "cannot register this process, its tasks or its blobs; retrying");
            }
            Some(_) => {}
            None => {
                if let Some(after) = end_of_denial(outage, !desired.owned.is_empty()) {
                    info!(?after, "this process and all that it has are registered again");
                }
            }
        }
    }

    /// Marks the ephemerals that could not be written for the next attempt; returns whether there are any.
    fn retry_held_back(&self) -> bool {
        let mut desired = self.lock();
        let held_back = desired.missing_parent.iter().chain(desired.denied.keys()).cloned();
        let (kept, gone): (Vec<_>, Vec<_>) = held_back.partition(|path| desired.kept.contains_key(path));
        let are_any = !kept.is_empty() || !gone.is_empty();
        desired.dirty.extend(kept);
        desired.withdrawn.extend(gone);
        are_any
    }

    fn mark_all_dirty(&self) {
        let mut desired = self.lock();
        desired.dirty = desired.kept.keys().cloned().collect();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Desired> {
        self.shared.desired.lock().expect("no one panics while holding the desired ephemerals")
    }

    /// Makes the tree equal to the desired ephemerals. Failed ephemerals stay marked for the next
    /// attempt.
    async fn write(&mut self, session: SessionId) -> Result<(), tree::Error> {
        if self.session != Some(session) {
            self.mark_all_dirty();
            self.lock().owned.clear();
            self.session = Some(session);
        }
        loop {
            let (revision, gone, batch) = {
                let desired = self.lock();
                let gone: Vec<TreePath> = desired.withdrawn.iter().take(BATCH).cloned().collect();
                let batch: Vec<(TreePath, Arc<[u8]>)> = desired
                    .dirty
                    .iter()
                    .take(BATCH)
                    .filter_map(|path| Some((path.clone(), Arc::clone(desired.kept.get(path)?))))
                    .collect();
                (desired.revision, gone, batch)
            };
            if gone.is_empty() && batch.is_empty() {
                self.settled.send_replace(revision);
                return Ok(());
            }
            self.delete(session, gone).await?;
            self.write_batch(session, batch).await?;
        }
    }

    async fn delete(&self, session: SessionId, gone: Vec<TreePath>) -> Result<(), tree::Error> {
        for path in gone {
            let denial = match self.delete_own(session, &path).await {
                Ok(()) | Err(tree::Error::NoNode { .. } | tree::Error::BadVersion { .. }) => None,
                Err(error) if error.is_denial() => Some(error),
                Err(error) => return Err(error),
            };
            let mut desired = self.lock();
            let is_withdrawn = desired.withdrawn.remove(&path);
            desired.owned.remove(&path);
            match denial.filter(|_| is_withdrawn) {
                Some(error) => drop(desired.denied.insert(path, error)),
                None if is_withdrawn => drop(desired.denied.remove(&path)),
                None => {}
            }
        }
        Ok(())
    }

    /// Deletes a znode if this session owns it: another one may own the path by now.
    async fn delete_own(&self, session: SessionId, path: &TreePath) -> Result<(), tree::Error> {
        match self.tree.get(path).await?.filter(|node| node.stat.owner == Some(session)) {
            Some(node) => self.tree.delete(path, Some(node.stat.version)).await,
            None => Ok(()),
        }
    }

    async fn write_batch(
        &self,
        session: SessionId,
        batch: Vec<(TreePath, Arc<[u8]>)>,
    ) -> Result<(), tree::Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let paths: Vec<TreePath> = batch.iter().map(|(path, _)| path.clone()).collect();
        let present = match self.tree.get_many(&paths).await {
            Err(error) if error.is_denial() => {
                debug!(%error, "one of a batch of ephemerals cannot be read; writing them one by one");
                return self.write_singly(session, &batch).await;
            }
            present => present?,
        };
        let mut ops = Vec::with_capacity(batch.len());
        for ((path, data), znode) in batch.iter().zip(&present) {
            self.report_twin(session, path, znode.as_ref());
            ops.extend(ops_to_own(path, data, znode.as_ref(), session));
        }
        match if ops.is_empty() { Ok(Vec::new()) } else { self.tree.multi(ops).await } {
            Ok(_) => {
                self.mark_clean(&batch);
                Ok(())
            }
            Err(tree::Error::Multi { index, source }) => {
                debug!(index, %source, "a batch of ephemerals was rejected; writing them one by one");
                self.write_singly(session, &batch).await
            }
            Err(error) => Err(error),
        }
    }

    /// Logs that another process keeps the same ephemeral, as after a copy of a data directory.
    fn report_twin(&self, session: SessionId, path: &TreePath, znode: Option<&NodeWithChildren>) {
        let owner = znode.and_then(|znode| znode.node.stat.owner).filter(|owner| *owner != session);
        let mut desired = self.lock();
        if let Some(owner) = owner.filter(|_| desired.owned.remove(path)) {
            desired.n_replaced += 1;
            let data = znode.map_or_else(|| Arc::from([]), |znode| Arc::clone(&znode.node.data));
            desired.replaced = Some((path.clone(), Instant::now(), data));
            error!(
                %path, session = %owner, n = desired.n_replaced,
                "another process has replaced this process' registration: two processes use one id; give each \
                 its own storm.local.dir, with an id of its own"
            );
        }
    }

    /// Writes a batch one by one: a single failure (a missing parent, a node of another process, a right
    /// that somebody has taken away) must not hold back the other ephemerals.
    async fn write_singly(
        &self,
        session: SessionId,
        batch: &[(TreePath, Arc<[u8]>)],
    ) -> Result<(), tree::Error> {
        let mut first_failure = None;
        for item in batch {
            match self.write_one(session, item).await {
                Ok(()) => self.mark_clean(std::slice::from_ref(item)),
                Err(error) if error.is_denial() => {
                    self.mark_clean(std::slice::from_ref(item));
                    let mut desired = self.lock();
                    desired.owned.remove(&item.0);
                    // It may have been withdrawn or changed meanwhile.
                    if desired.is_kept_as(item) {
                        desired.denied.insert(item.0.clone(), error);
                    }
                }
                Err(tree::Error::Multi { source, .. }) if matches!(*source, tree::Error::NoNode { .. }) => {
                    // The parent is mostly deleted with its topology; it may be created again.
                    // At the first start of a cluster it is about to be created.
                    let path = &item.0;
                    let is_known = self.lock().missing_parent.contains(path);
                    self.mark_clean(std::slice::from_ref(item));
                    let mut desired = self.lock();
                    desired.missing_parent.insert(path.clone());
                    desired.owned.remove(path);
                    drop(desired);
                    if !is_known {
                        info!(%path, "cannot create an ephemeral yet: its parent does not exist; retrying");
                    }
                }
                Err(error @ tree::Error::Multi { .. }) => {
                    first_failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    async fn write_one(
        &self,
        session: SessionId,
        (path, data): &(TreePath, Arc<[u8]>),
    ) -> Result<(), tree::Error> {
        let znode = self.tree.get_many(std::slice::from_ref(path)).await?.pop().flatten();
        self.report_twin(session, path, znode.as_ref());
        let ops: Vec<Op> = ops_to_own(path, data, znode.as_ref(), session).collect();
        if !ops.is_empty() {
            self.tree.multi(ops).await?;
        }
        Ok(())
    }

    /// Unmarks written nodes, unless their data has changed in between.
    fn mark_clean(&self, batch: &[(TreePath, Arc<[u8]>)]) {
        let mut desired = self.lock();
        for (path, data) in batch {
            if desired.kept.get(path).is_none_or(|kept| Arc::ptr_eq(kept, data)) {
                desired.dirty.remove(path);
                desired.missing_parent.remove(path);
                desired.denied.remove(path);
            }
            desired.owned.insert(path.clone());
        }
    }
}

/// Returns how long ZooKeeper has denied the registration, if that is over. After the withdrawal of
/// everything, as at a stop, there is nothing to deny, and nothing is registered.
fn end_of_denial(denied: &mut Outage, is_registered: bool) -> Option<Duration> {
    if is_registered { denied.ends() } else { None }
}

/// Returns the operations that make the znode at `path` an ephemeral of `session` with `data`.
fn ops_to_own(
    path: &TreePath,
    data: &Arc<[u8]>,
    present: Option<&NodeWithChildren>,
    session: SessionId,
) -> impl Iterator<Item = Op> {
    let create = || Op::Create { path: path.clone(), data: data.to_vec(), mode: CreateMode::Ephemeral };
    let ops = match present.map(|znode| &znode.node) {
        None => vec![create()],
        Some(node) if node.stat.owner != Some(session) => {
            vec![Op::Delete { path: path.clone(), version: Some(node.stat.version) }, create()]
        }
        Some(node) if node.data != *data => {
            vec![Op::Set { path: path.clone(), data: data.to_vec(), version: Some(node.stat.version) }]
        }
        Some(_) => Vec::new(),
    };
    ops.into_iter()
}

#[cfg(test)]
mod tests;
