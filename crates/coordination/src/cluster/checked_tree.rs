//! Connection to a tree whose layout is checked first.
//!
//! Every daemon wraps its connection in a [`CheckedTree`] before it gives the connection to its
//! parts. Until the layout and the identity are checked in the current session, the wrapper looks
//! like a tree without a connection: no part of the daemon can read or write a tree of another
//! layout, or another tree than its own ([`tree_id`]). The identity is checked again whenever
//! `/tree-id` changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    cluster::{
        layout,
        layout_version::{self, Refused, TreeState},
        tree_id::{self, TreeMemory},
    },
    tree::{
        CreateMode, Error, Node, NodeFacts, NodeWithChildren, Op, OpResult, ReadTree, Scope, SessionId,
        SessionState, Tree, TreePath, Version, Watcher,
    },
};
use stormkeeper_model::backoff::{Backoff, Delays};
use stormkeeper_runtime::{
    outage::Outage,
    tasks::{OnExit, Tasks},
    watch,
};

/// Bounds of the pause after a failed check.
const RETRY: Delays = Delays::between(Duration::from_millis(50), Duration::from_secs(5));

/// Pause between two checks while the tree is empty, refused or another tree, in case a watch event
/// is lost.
const RECHECK_PERIOD: Duration = Duration::from_secs(10);

/// Treatment of an empty tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// Create `/layout`, as a nimbus does that remembers no tree.
    Create,
    /// Wait for the first nimbus.
    Wait,
}

/// Wraps a tree, and rejects all requests with [`Error::Disconnected`] until the layout and the
/// identity are checked.
#[derive(Debug)]
pub struct CheckedTree {
    inner: Arc<dyn Tree>,
    memory: TreeMemory,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Id of the session in which the layout was checked; 0 if there is none.
    checked: AtomicI64,
    /// State of the session as the daemon's parts see it.
    session: watch::Sender<SessionState>,
    /// Asks for a check of the identity.
    recheck: Notify,
}

/// Refusal of the tree; arrives at most once, and only before the first successful check.
#[derive(Debug)]
pub struct TreeRefusal(watch::Receiver<Option<Refused>>);

impl TreeRefusal {
    /// Waits for the refusal. Never returns if the tree has the layout of this build.
    ///
    /// # Cancellation safety
    /// Safe: it only waits.
    pub async fn refused(&mut self) -> Refused {
        loop {
            if let Some(refused) = self.get() {
                return refused;
            }
            // The sender ends with the check, and then there is no refusal.
            if self.0.changed().await.is_err() && self.get().is_none() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the refusal, if it has arrived.
    pub fn get(&self) -> Option<Refused> {
        self.0.borrow().clone()
    }
}

impl CheckedTree {
    /// Starts to check `inner` in each of its sessions; ends with `tasks`.
    ///
    /// A tree that is not the one in `memory` is treated like a lost connection for as long as it is
    /// there.
    ///
    /// If the first check refuses the tree, the refusal arrives at [`TreeRefusal`] and `tasks` are
    /// cancelled: the daemon must end. A tree that is refused in a later session, which takes an
    /// operator's mistake, is treated like a lost connection until it is correct again: workers and
    /// their counts are worth more than a restart.
    pub fn start(
        inner: Arc<dyn Tree>,
        on_empty: OnEmpty,
        memory: TreeMemory,
        tasks: &Tasks,
    ) -> (Arc<Self>, TreeRefusal) {
        let shared = Arc::new(Shared {
            checked: AtomicI64::new(0),
            session: watch::Sender::new(SessionState::Connecting),
            recheck: Notify::new(),
        });
        let (refusal, seen) = watch::channel(None);
        let checker = Checker {
            tree: Arc::clone(&inner),
            shared: Arc::clone(&shared),
            on_empty,
            memory: memory.clone(),
            refusal,
            owner: tasks.cancelled(),
            was_ready: false,
            outage: Outage::default(),
        };
        tasks.start("layout", OnExit::Ignore, checker.run());
        (Arc::new(Self { inner, memory, shared }), TreeRefusal(seen))
    }

    /// Fails unless the layout was checked in the current session.
    fn checked(&self) -> Result<&dyn Tree, Error> {
        let state = *self.inner.session().borrow();
        let is_checked = |session: SessionId| session.0 == self.shared.checked.load(Ordering::Acquire);
        match state {
            SessionState::Connected(session) if !is_checked(session) => Err(Error::Disconnected),
            // The tree itself rejects requests without a connection.
            SessionState::Connected(_)
            | SessionState::Connecting
            | SessionState::Disconnected(_)
            | SessionState::Closed => Ok(&*self.inner),
        }
    }
}

struct Checker {
    tree: Arc<dyn Tree>,
    shared: Arc<Shared>,
    on_empty: OnEmpty,
    memory: TreeMemory,
    refusal: watch::Sender<Option<Refused>>,
    /// Cancels the tasks of the daemon.
    owner: CancellationToken,
    was_ready: bool,
    /// Failed reads of the layout.
    outage: Outage,
}

/// Result of one check.
enum Outcome {
    Ready,
    Wait(Duration),
    /// The tree is not the one that the daemon remembers.
    Foreign,
    /// The tree was refused in the first session.
    Refused,
}

impl Checker {
    async fn run(mut self) {
        let mut sessions = self.tree.session();
        let mut changes: Option<Watcher> = None;
        let mut identity = self.tree.watch(&layout::tree_id(), Scope::Node);
        let mut is_changed = false;
        let mut backoff = RETRY.backoff();
        loop {
            let state = *sessions.borrow_and_update();
            let session = state.connected().filter(|session| is_changed || !self.is_checked(*session));
            let wait = match session {
                Some(session) => match self.check(session, &mut backoff).await {
                    Outcome::Ready => {
                        (changes, self.was_ready, is_changed) = (None, true, false);
                        self.shared.checked.store(session.0, Ordering::Release);
                        // The session may be another one meanwhile.
                        continue;
                    }
                    Outcome::Foreign => {
                        is_changed = false;
                        self.shared.checked.store(0, Ordering::Release);
                        Some(RECHECK_PERIOD)
                    }
                    Outcome::Wait(wait) => {
                        let tree = &self.tree;
                        changes.get_or_insert_with(|| tree.watch(&layout::layout(), Scope::Node));
                        Some(wait)
                    }
                    Outcome::Refused => return,
                },
                None => None,
            };
            self.publish(state);
            if state == SessionState::Closed {
                return;
            }
            let retry = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let created = async {
                match &mut changes {
                    Some(changes) => _ = changes.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // Cancel-safe: all arms only wait; everything is checked again above.
                changed = sessions.changed() => if changed.is_err() { return },
                () = created => {}
                _changes = identity.changed() => is_changed = true,
                () = self.shared.recheck.notified() => is_changed = true,
                () = retry => {}
            }
        }
    }

    fn is_checked(&self, session: SessionId) -> bool {
        session.0 == self.shared.checked.load(Ordering::Acquire)
    }

    /// Shows the state of the session; an unchecked session is shown as none.
    fn publish(&self, state: SessionState) {
        let shown = match state {
            SessionState::Connected(session) | SessionState::Disconnected(session)
                if !self.is_checked(session) =>
            {
                SessionState::Connecting
            }
            SessionState::Connected(_)
            | SessionState::Connecting
            | SessionState::Disconnected(_)
            | SessionState::Closed => state,
        };
        self.shared.session.send_if_modified(|session| std::mem::replace(session, shown) != shown);
    }

    async fn check(&mut self, session: SessionId, backoff: &mut Backoff) -> Outcome {
        let is_named = self.memory.mark().is_some();
        let checked = match self.on_empty {
            // The layout does not change within a session.
            _ if self.is_checked(session) => Ok(TreeState::Ready),
            OnEmpty::Create if !is_named => {
                layout_version::establish(&*self.tree).await.map(|()| TreeState::Ready)
            }
            OnEmpty::Create | OnEmpty::Wait => layout_version::check(&*self.tree).await,
        };
        match checked {
            Ok(state @ (TreeState::Ready | TreeState::Empty)) if is_named || state == TreeState::Ready => {
                match tree_id::identify(&*self.tree, &self.memory).await {
                    Ok(Some(_)) if state == TreeState::Ready => {
                        backoff.reset();
                        if let Some(after) = self.outage.ends() {
                            info!(?after, "the layout of the ZooKeeper tree can be read again");
                        }
                        Outcome::Ready
                    }
                    // The server was behind: it has the tree now.
                    Ok(Some(_)) => Outcome::Wait(Duration::ZERO),
                    Ok(None) => Outcome::Foreign,
                    Err(error) => self.retry(&error, backoff),
                }
            }
            Ok(TreeState::Ready | TreeState::Empty) => {
                info!(root = %self.tree.root(), "the ZooKeeper tree is empty: waiting for the first nimbus");
                Outcome::Wait(RECHECK_PERIOD)
            }
            Err(layout_version::Error::Tree(error)) => self.retry(&error, backoff),
            Err(layout_version::Error::Refused(refused)) if self.was_ready => {
                error!(
                    error = %refused,
                    "the layout of the ZooKeeper tree has changed; treating the tree as unreachable until it is \
                     correct"
                );
                Outcome::Wait(RECHECK_PERIOD)
            }
            Err(layout_version::Error::Refused(refused)) => {
                self.refusal.send_replace(Some(refused));
                self.owner.cancel();
                Outcome::Refused
            }
        }
    }

    /// Logs the first failure of an outage. The connection logs why there is none.
    fn retry(&mut self, error: &Error, backoff: &mut Backoff) -> Outcome {
        let retry_in = backoff.next_delay();
        match *error != Error::Disconnected && self.outage.begins() {
            true => warn!(%error, "cannot read the layout of the ZooKeeper tree; retrying"),
            false => debug!(%error, ?retry_in, "cannot read the layout of the ZooKeeper tree yet"),
        }
        Outcome::Wait(retry_in)
    }
}

#[async_trait]
impl ReadTree for CheckedTree {
    async fn get(&self, path: &TreePath) -> Result<Option<Node>, Error> {
        self.checked()?.get(path).await
    }

    async fn children(&self, path: &TreePath) -> Result<Option<Vec<String>>, Error> {
        self.checked()?.children(path).await
    }

    async fn get_many(&self, paths: &[TreePath]) -> Result<Vec<Option<NodeWithChildren>>, Error> {
        self.checked()?.get_many(paths).await
    }

    async fn facts(&self, path: &TreePath) -> Result<Option<NodeFacts>, Error> {
        self.checked()?.facts(path).await
    }

    fn watch(&self, path: &TreePath, scope: Scope) -> Watcher {
        self.inner.watch(path, scope)
    }

    fn root(&self) -> &TreePath {
        self.inner.root()
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.shared.session.subscribe()
    }
}

#[async_trait]
impl Tree for CheckedTree {
    async fn create(&self, path: &TreePath, data: &[u8], mode: CreateMode) -> Result<TreePath, Error> {
        if *path == layout::layout() && self.memory.mark().is_some() {
            // The tree of this daemon was emptied within a session: it is not begun anew.
            self.shared.recheck.notify_one();
            return Err(Error::Disconnected);
        }
        self.checked()?.create(path, data, mode).await
    }

    async fn set(&self, path: &TreePath, data: &[u8], expected: Option<Version>) -> Result<Version, Error> {
        self.checked()?.set(path, data, expected).await
    }

    async fn delete(&self, path: &TreePath, expected: Option<Version>) -> Result<(), Error> {
        self.checked()?.delete(path, expected).await
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, Error> {
        self.checked()?.multi(ops).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
#[path = "checked_tree_tests.rs"]
mod tests;
