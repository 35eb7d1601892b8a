//! Connection to a tree whose layout is checked first.
//!
//! Every daemon wraps its connection in a [`CheckedTree`] before it gives the connection to its
//! parts. Until the layout is checked in the current session, the wrapper looks like a tree without
//! a connection: no part of the daemon can read or write a tree of another layout.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    cluster::{
        layout,
        layout_version::{self, Refused, TreeState},
    },
    tree::{
        CreateMode, Error, Node, NodeWithChildren, Op, OpResult, ReadTree, Scope, SessionId, SessionState,
        Tree, TreePath, Version, Watcher,
    },
};
use stormkeeper_model::backoff::{Backoff, Delays};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Bounds of the pause after a failed check.
const RETRY: Delays = Delays::between(Duration::from_millis(50), Duration::from_secs(5));

/// Pause between two checks while the tree is empty or refused, in case a watch event is lost.
const RECHECK_PERIOD: Duration = Duration::from_secs(10);

/// Treatment of an empty tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// Create `/layout`, as a nimbus does.
    Create,
    /// Wait for the first nimbus.
    Wait,
}

/// Wraps a tree, and rejects all requests with [`Error::Disconnected`] until the layout is checked.
#[derive(Debug)]
pub struct CheckedTree {
    inner: Arc<dyn Tree>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Id of the session in which the layout was checked; 0 if there is none.
    checked: AtomicI64,
    /// State of the session as the daemon's parts see it.
    session: watch::Sender<SessionState>,
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
    /// If the first check refuses the tree, the refusal arrives at [`TreeRefusal`] and `tasks` are
    /// cancelled: the daemon must end. A tree that is refused in a later session, which takes an
    /// operator's mistake, is treated like a lost connection until it is correct again: workers and
    /// their counts are worth more than a restart.
    pub fn start(inner: Arc<dyn Tree>, on_empty: OnEmpty, tasks: &Tasks) -> (Arc<Self>, TreeRefusal) {
        let shared =
            Shared { checked: AtomicI64::new(0), session: watch::Sender::new(SessionState::Connecting) };
        let shared = Arc::new(shared);
        let (refusal, seen) = watch::channel(None);
        let checker = Checker {
            tree: Arc::clone(&inner),
            shared: Arc::clone(&shared),
            on_empty,
            refusal,
            owner: tasks.cancelled(),
            was_ready: false,
        };
        tasks.start("layout", OnExit::Ignore, checker.run());
        (Arc::new(Self { inner, shared }), TreeRefusal(seen))
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
    refusal: watch::Sender<Option<Refused>>,
    /// Cancels the tasks of the daemon.
    owner: CancellationToken,
    was_ready: bool,
}

/// Result of one check.
enum Outcome {
    Ready,
    Wait(Duration),
    /// The tree was refused in the first session.
    Refused,
}

impl Checker {
    async fn run(mut self) {
        let mut sessions = self.tree.session();
        let mut changes: Option<Watcher> = None;
        let mut backoff = RETRY.backoff();
        loop {
            let state = *sessions.borrow_and_update();
            let session = match state {
                SessionState::Connected(session) if !self.is_checked(session) => Some(session),
                SessionState::Connected(_)
                | SessionState::Connecting
                | SessionState::Disconnected(_)
                | SessionState::Closed => None,
            };
            let wait = match session {
                Some(session) => match self.check(&mut backoff).await {
                    Outcome::Ready => {
                        (changes, self.was_ready) = (None, true);
                        self.shared.checked.store(session.0, Ordering::Release);
                        // The session may be another one meanwhile.
                        continue;
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

    async fn check(&self, backoff: &mut Backoff) -> Outcome {
        let checked = match self.on_empty {
            OnEmpty::Create => layout_version::establish(&*self.tree).await.map(|()| TreeState::Ready),
            OnEmpty::Wait => layout_version::check(&*self.tree).await,
        };
        match checked {
            Ok(TreeState::Ready) => {
                backoff.reset();
                Outcome::Ready
            }
            Ok(TreeState::Empty) => {
                info!(root = %self.tree.root(), "the ZooKeeper tree is empty: waiting for the first nimbus");
                Outcome::Wait(RECHECK_PERIOD)
            }
            Err(layout_version::Error::Tree(error)) => {
                let retry_in = backoff.next_delay();
                info!(%error, ?retry_in, "cannot read the layout of the ZooKeeper tree; retrying");
                Outcome::Wait(retry_in)
            }
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
mod tests {
    use super::*;
    use crate::{cluster::store::Store, tree::memory::MemoryTree};
    use stormkeeper_runtime::test_support::wait_until;

    const WAIT_MAX: Duration = Duration::from_secs(30);

    async fn create(server: &MemoryTree, path: &str, data: &str) {
        let path = path.parse().expect("valid path");
        server.connect().create(&path, data.as_bytes(), CreateMode::Persistent).await.expect("created");
    }

    async fn until_connected(tree: &CheckedTree) -> SessionId {
        wait_until("the layout is checked", WAIT_MAX, || async {
            let state = *tree.session().borrow();
            state.connected().ok_or(format!("{state:?}"))
        })
        .await
    }

    #[tokio::test]
    async fn no_request_passes_before_the_layout_is_checked() {
        let (server, tasks) = (MemoryTree::new(), Tasks::default());
        create(&server, "/orders", "").await;
        let (tree, mut refusal) = CheckedTree::start(server.connect(), OnEmpty::Create, &tasks);
        let n_nodes = server.n_nodes();
        let storms = layout::storms();
        assert_eq!(tree.get(&storms).await, Err(Error::Disconnected));
        let refused = refusal.refused().await;
        assert!(refused.to_string().contains("/orders"), "{refused}");
        assert_eq!(tree.get(&storms).await, Err(Error::Disconnected));
        let written = tree.create(&storms, b"", CreateMode::Persistent).await;
        assert_eq!(written, Err(Error::Disconnected));
        assert_eq!(tree.multi(Vec::new()).await, Err(Error::Disconnected));
        assert_eq!(*tree.session().borrow(), SessionState::Connecting);
        assert_eq!(server.n_nodes(), n_nodes);
        assert!(tasks.cancelled().is_cancelled());
    }

    #[tokio::test]
    async fn reader_waits_for_the_nimbus_that_creates_the_layout() {
        let (server, tasks) = (MemoryTree::new(), Tasks::default());
        let (reader, refusal) = CheckedTree::start(server.connect(), OnEmpty::Wait, &tasks);
        tokio::task::yield_now().await;
        assert_eq!(reader.children(&TreePath::root()).await, Err(Error::Disconnected));
        let (nimbus, _) = CheckedTree::start(server.connect(), OnEmpty::Create, &tasks);
        until_connected(&nimbus).await;
        until_connected(&reader).await;
        let names = reader.children(&TreePath::root()).await;
        assert_eq!(names, Ok(Some(vec!["layout".to_owned()])));
        assert_eq!(refusal.get(), None);
    }

    #[tokio::test]
    async fn every_session_is_checked_and_a_later_refusal_is_like_a_lost_connection() {
        let (server, tasks) = (MemoryTree::new(), Tasks::default());
        let (tree, refusal) = CheckedTree::start(server.connect(), OnEmpty::Create, &tasks);
        let first = until_connected(&tree).await;
        // Without a new session nothing is checked: the daemon goes on.
        let other = server.connect();
        other.set(&layout::layout(), br#"{"v":1,"layout":3}"#, None).await.expect("written");
        assert!(tree.get(&layout::layout()).await.is_ok());
        server.expire(first);
        wait_until("the new session is refused", WAIT_MAX, || async {
            match (tree.get(&layout::layout()).await, *tree.session().borrow()) {
                (Err(Error::Disconnected), SessionState::Connecting) => Ok(()),
                found => Err(format!("{found:?}")),
            }
        })
        .await;
        other.set(&layout::layout(), br#"{"v":1,"layout":2}"#, None).await.expect("written");
        assert_ne!(until_connected(&tree).await, first);
        assert_eq!(refusal.get(), None);
    }

    #[tokio::test]
    async fn nimbus_creates_the_layout_of_a_tree_that_was_emptied() {
        let (server, tasks) = (MemoryTree::new(), Tasks::default());
        let (tree, _refusal) = CheckedTree::start(server.connect(), OnEmpty::Create, &tasks);
        until_connected(&tree).await;
        server.connect().delete_recursive(&TreePath::root()).await.expect("deleted");
        Store::new(Arc::clone(&tree) as _).ensure_layout().await.expect("created");
        assert!(matches!(tree.get(&layout::layout()).await, Ok(Some(_))));
    }

    #[tokio::test]
    async fn disconnection_and_close_are_shown() {
        let (server, tasks) = (MemoryTree::new(), Tasks::default());
        let (tree, _refusal) = CheckedTree::start(server.connect(), OnEmpty::Create, &tasks);
        let session = until_connected(&tree).await;
        let shows = |expected: SessionState| {
            let tree = Arc::clone(&tree);
            async move {
                wait_until("the state is shown", WAIT_MAX, || async {
                    let state = *tree.session().borrow();
                    if state == expected { Ok(()) } else { Err(format!("{state:?}")) }
                })
                .await;
            }
        };
        server.disconnect(session);
        shows(SessionState::Disconnected(session)).await;
        server.reconnect(session);
        shows(SessionState::Connected(session)).await;
        tree.close().await;
        shows(SessionState::Closed).await;
    }
}
