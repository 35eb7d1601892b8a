//! A process's ephemerals, kept in the tree across sessions.
//!
//! Existence is liveness, so an ephemeral must be there as long as its process lives and
//! belong to its current session. [`Presence`] holds what should be there and makes it so:
//! after a new session everything is created again, at once and in batches; a znode at our
//! path that belongs to another session (our own former one, mostly) is deleted by version
//! and created again, never written over, as it would vanish with its owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::{
    backoff::Backoff,
    cluster::layout::Ephemeral,
    daemon::{
        tasks::{Ending, Tasks},
        watch,
    },
    tree::{self, CreateMode, Family, Op, SessionId, SessionState, Tree, TreePath},
};

/// How many znodes one transaction creates or writes: large enough that a thousand tasks
/// cost ten requests, small enough that one request stays far below the limits.
const BATCH: usize = 100;

/// Looks at the whole of it this often, should someone have deleted one of ours by hand.
const REVIEW_PERIOD: Duration = Duration::from_secs(60);

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A handle on the ephemerals that this process keeps. Clones share them.
#[derive(Debug, Clone)]
pub struct Presence {
    shared: Arc<Shared>,
    settled: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared {
    // Guards what should be in the tree; held for a few instructions.
    wanted: Mutex<Wanted>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Wanted {
    kept: BTreeMap<TreePath, Arc<[u8]>>,
    dirty: BTreeSet<TreePath>,
    withdrawn: BTreeSet<TreePath>,
    /// Kept, but their parent was not there at the last try: tried again when they are kept
    /// anew, and at every review.
    homeless: BTreeSet<TreePath>,
    /// Grows with every change, so that `settled` knows what it waits for.
    edition: u64,
}

impl Presence {
    /// Starts keeping ephemerals in `tree`; ends with `tasks`.
    pub fn start(tree: Arc<dyn Tree>, tasks: &Tasks) -> Self {
        let shared = Arc::new(Shared { wanted: Mutex::new(Wanted::default()), wake: Notify::new() });
        let (settled_tx, settled) = watch::channel(0);
        let keeper = Keeper { shared: Arc::clone(&shared), tree, settled: settled_tx, session: None };
        tasks.start("presence", Ending::StopsOwner, keeper.run());
        Self { shared, settled }
    }

    /// Keeps an ephemeral with `data`, or gives the one there new data. Returns at once;
    /// [`Presence::settled`] waits for the tree.
    pub fn keep(&self, ephemeral: &Ephemeral, data: Vec<u8>) {
        self.keep_at([(ephemeral.path(), data)]);
    }

    /// Keeps several; they are written in batches.
    pub fn keep_all(&self, nodes: impl IntoIterator<Item = (Ephemeral, Vec<u8>)>) {
        self.keep_at(nodes.into_iter().map(|(ephemeral, data)| (ephemeral.path(), data)));
    }

    fn keep_at(&self, nodes: impl IntoIterator<Item = (TreePath, Vec<u8>)>) {
        self.change(|wanted| {
            for (path, data) in nodes {
                wanted.withdrawn.remove(&path);
                let is_same = wanted.kept.get(&path).is_some_and(|kept| **kept == *data);
                if is_same && !wanted.homeless.remove(&path) {
                    continue;
                }
                wanted.kept.insert(path.clone(), data.into());
                wanted.dirty.insert(path);
            }
        });
    }

    /// Deletes an ephemeral and keeps it no longer.
    pub fn withdraw(&self, ephemeral: &Ephemeral) {
        self.withdraw_at(&ephemeral.path());
    }

    fn withdraw_at(&self, path: &TreePath) {
        self.change(|wanted| {
            if wanted.kept.remove(path).is_some() {
                wanted.dirty.remove(path);
                wanted.homeless.remove(path);
                wanted.withdrawn.insert(path.clone());
            }
        });
    }

    /// Waits until the tree has all that is kept now, and nothing that was withdrawn.
    ///
    /// # Cancellation safety
    /// Safe: it only waits.
    pub async fn settled(&self) {
        let edition = self.lock().edition;
        let mut settled = self.settled.clone();
        // Fails only when the keeper has ended, and then there is nothing to wait for.
        let _ended = settled.wait_for(|done| *done >= edition).await;
    }

    fn change(&self, edit: impl FnOnce(&mut Wanted)) {
        let mut wanted = self.lock();
        edit(&mut wanted);
        wanted.edition += 1;
        drop(wanted);
        self.shared.wake.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.shared.wanted.lock().expect("no one panics while holding what is wanted")
    }
}

struct Keeper {
    shared: Arc<Shared>,
    tree: Arc<dyn Tree>,
    settled: watch::Sender<u64>,
    /// The session in which everything was last written.
    session: Option<SessionId>,
}

impl Keeper {
    async fn run(mut self) {
        let mut sessions = self.tree.session();
        let mut backoff =
            Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order");
        let mut review = tokio::time::interval(REVIEW_PERIOD);
        loop {
            let state = *sessions.borrow_and_update();
            let wait = match state {
                SessionState::Connected(session) => match self.write(session).await {
                    Ok(()) => {
                        backoff.reset();
                        None
                    }
                    Err(error) => {
                        debug!(%error, "could not write ephemerals yet");
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
                // What is rare comes first, so that nothing is starved.
                biased;
                // Cancel-safe: each arm only waits; what it waits for is looked at again above.
                changed = sessions.changed() => if changed.is_err() { return },
                _ = review.tick() => self.mark_all_dirty(),
                () = retry => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    fn mark_all_dirty(&self) {
        let mut wanted = self.lock();
        wanted.dirty = wanted.kept.keys().cloned().collect();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.shared.wanted.lock().expect("no one panics while holding what is wanted")
    }

    /// Brings the tree to what is wanted. Whatever fails stays marked for the next try.
    async fn write(&mut self, session: SessionId) -> Result<(), tree::Error> {
        if self.session != Some(session) {
            self.mark_all_dirty();
            self.session = Some(session);
        }
        loop {
            let (edition, gone, batch) = {
                let wanted = self.lock();
                let gone: Vec<TreePath> = wanted.withdrawn.iter().take(BATCH).cloned().collect();
                let batch: Vec<(TreePath, Arc<[u8]>)> = wanted
                    .dirty
                    .iter()
                    .take(BATCH)
                    .filter_map(|path| Some((path.clone(), Arc::clone(wanted.kept.get(path)?))))
                    .collect();
                (wanted.edition, gone, batch)
            };
            if gone.is_empty() && batch.is_empty() {
                self.settled.send_replace(edition);
                return Ok(());
            }
            self.delete(session, gone).await?;
            self.write_batch(session, batch).await?;
        }
    }

    async fn delete(&self, session: SessionId, gone: Vec<TreePath>) -> Result<(), tree::Error> {
        for path in gone {
            // Someone else may own the path by now; only our own node is ours to delete.
            let ours = self.tree.get(&path).await?.filter(|node| node.stat.owner == Some(session));
            if let Some(node) = ours {
                match self.tree.delete(&path, Some(node.stat.version)).await {
                    Ok(()) | Err(tree::Error::NoNode { .. } | tree::Error::BadVersion { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            self.lock().withdrawn.remove(&path);
        }
        Ok(())
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
        let present = self.tree.get_many(&paths).await?;
        let mut ops = Vec::with_capacity(batch.len());
        for ((path, data), family) in batch.iter().zip(&present) {
            ops.extend(ops_to_own(path, data, family.as_ref(), session));
        }
        match if ops.is_empty() { Ok(Vec::new()) } else { self.tree.multi(ops).await } {
            Ok(_) => {
                self.mark_clean(&batch);
                Ok(())
            }
            Err(tree::Error::Multi { index, source }) => {
                debug!(index, %source, "a batch of ephemerals was refused; writing them one by one");
                self.write_singly(session, &batch).await
            }
            Err(error) => Err(error),
        }
    }

    /// One bad apple (a parent that is gone, a node of a stranger) must not hold back the rest.
    async fn write_singly(
        &self,
        session: SessionId,
        batch: &[(TreePath, Arc<[u8]>)],
    ) -> Result<(), tree::Error> {
        let mut first_failure = None;
        for item in batch {
            let (path, data) = item;
            let family = self.tree.get_many(std::slice::from_ref(path)).await?.pop().flatten();
            let ops: Vec<Op> = ops_to_own(path, data, family.as_ref(), session).collect();
            let written = if ops.is_empty() { Ok(Vec::new()) } else { self.tree.multi(ops).await };
            match written {
                Ok(_) => self.mark_clean(std::slice::from_ref(item)),
                Err(error @ tree::Error::Multi { .. }) => {
                    if matches!(error.root(), tree::Error::NoNode { .. }) {
                        // The parent went with its topology, mostly; it may come back.
                        warn!(%path, "an ephemeral has no parent and is not there");
                        self.mark_clean(std::slice::from_ref(item));
                        self.lock().homeless.insert(path.clone());
                    } else {
                        first_failure.get_or_insert(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    /// Takes written nodes off the list, unless their data changed meanwhile.
    fn mark_clean(&self, batch: &[(TreePath, Arc<[u8]>)]) {
        let mut wanted = self.lock();
        for (path, data) in batch {
            if wanted.kept.get(path).is_none_or(|kept| Arc::ptr_eq(kept, data)) {
                wanted.dirty.remove(path);
                wanted.homeless.remove(path);
            }
        }
    }
}

/// What makes the znode at `path` an ephemeral of `session` with `data`.
fn ops_to_own(
    path: &TreePath,
    data: &Arc<[u8]>,
    present: Option<&Family>,
    session: SessionId,
) -> impl Iterator<Item = Op> {
    let create = || Op::Create { path: path.clone(), data: data.to_vec(), mode: CreateMode::Ephemeral };
    let ops = match present.map(|family| &family.node) {
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
