//! The end of a process that uses the tree of another one.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc, oneshot},
};

use super::messages::{self, Answer, Ask, Request, Told};
use crate::tree::{
    Changes, CreateMode, Error, Node, NodeWithChildren, Op, OpResult, ReadTree, Scope, SessionState, Tree,
    TreePath, Version, Watcher, request, watch::WatchSink,
};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Capacity of the queue of requests.
const QUEUE: usize = 256;

/// Longest wait for the server to end the session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to the memory tree of another process. It is not renewed: when that process ends, this one
/// has no tree any more, and is [lost](SharedTree::lost).
#[derive(Debug)]
pub struct SharedTree {
    requests: mpsc::Sender<Request>,
    next: AtomicU64,
    shared: Arc<Shared>,
    root: TreePath,
    state: watch::Sender<SessionState>,
    // The tasks of the connection, and of the watches.
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    lost: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    // True once the connection has broken.
    is_lost: bool,
    answers: HashMap<u64, oneshot::Sender<Result<Answer, Error>>>,
    watches: HashMap<u64, WatchSink>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedTree {
    /// Connects to the socket at `path`, and waits for the session. The tasks of the connection are children
    /// of `tasks`.
    ///
    /// # Errors
    /// I/O error.
    pub async fn connect(path: &Path, tasks: &Tasks) -> io::Result<Arc<Self>> {
        let (responses, requests) = UnixStream::connect(path).await?.into_split();
        let (sender, queue) = mpsc::channel(QUEUE);
        let (state, mut seen) = watch::channel(SessionState::Connecting);
        let (shared, tasks) = (Arc::<Shared>::default(), tasks.child());
        tasks.start("requests", OnExit::StopOwner, send_all(requests, queue));
        tasks.start(
            "responses",
            OnExit::StopOwner,
            receive_all(responses, Arc::clone(&shared), state.clone()),
        );
        let (next, root) = (AtomicU64::new(1), TreePath::root());
        let tree = Arc::new(Self { requests: sender, next, shared, root, state, tasks });
        match seen.wait_for(|state| *state != SessionState::Connecting).await {
            Ok(_) => Ok(tree),
            Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Resolves when the connection has broken.
    ///
    /// # Cancellation safety
    /// Safe: it only waits.
    pub async fn lost(&self) {
        loop {
            let lost = self.shared.lost.notified();
            if self.shared.lock().is_lost {
                return;
            }
            lost.await;
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Error> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.lock();
            if waiting.is_lost {
                return Err(self.error_without_connection());
            }
            waiting.answers.insert(id, sender);
        }
        if self.requests.send(Request { id, ask }).await.is_err() {
            self.shared.lock().answers.remove(&id);
            return Err(self.error_without_connection());
        }
        let gone = || Err(Error::ConnectionLost("the process with the tree has ended".to_owned()));
        answer.await.unwrap_or_else(|_ended| gone())
    }

    fn error_without_connection(&self) -> Error {
        match *self.state.subscribe().borrow() {
            SessionState::Closed => Error::Closed,
            _ => Error::Disconnected,
        }
    }
}

/// The server answers each request with what belongs to it.
fn unexpected<T>(answer: &Answer) -> Result<T, Error> {
    Err(Error::Refused(format!("unexpected answer {answer:?}")))
}

async fn send_all(mut to: OwnedWriteHalf, mut queue: mpsc::Receiver<Request>) {
    while let Some(request) = queue.recv().await {
        if messages::write(&mut to, &request).await.is_err() {
            return;
        }
    }
}

async fn receive_all(mut from: OwnedReadHalf, shared: Arc<Shared>, state: watch::Sender<SessionState>) {
    while let Ok(told) = messages::read::<Told>(&mut from).await {
        match told {
            Told::Answer { id, answer } => {
                if let Some(waiting) = shared.lock().answers.remove(&id) {
                    // The caller may have been dropped.
                    let _nobody_waits = waiting.send(answer);
                }
            }
            Told::Changed { id, changes } => {
                if let Some(sink) = shared.lock().watches.get(&id) {
                    match changes {
                        Changes::Everything => sink.note_everything(),
                        Changes::Paths(paths) => paths.iter().for_each(|path| sink.note(path)),
                    }
                }
            }
            Told::Session(now) => drop(state.send_replace(now)),
        }
    }
    let mut waiting = shared.lock();
    waiting.is_lost = true;
    waiting.answers.clear();
    drop(waiting);
    state.send_if_modified(|state| match *state {
        SessionState::Connected(session) => {
            *state = SessionState::Disconnected(session);
            true
        }
        _ => false,
    });
    shared.lost.notify_waiters();
}

#[async_trait]
impl ReadTree for SharedTree {
    async fn get(&self, path: &TreePath) -> Result<Option<Node>, Error> {
        match self.ask(Ask::Get(path.clone())).await? {
            Answer::Node(node) => Ok(node),
            other => unexpected(&other),
        }
    }

    async fn children(&self, path: &TreePath) -> Result<Option<Vec<String>>, Error> {
        match self.ask(Ask::Children(path.clone())).await? {
            Answer::Children(children) => Ok(children),
            other => unexpected(&other),
        }
    }

    async fn get_many(&self, paths: &[TreePath]) -> Result<Vec<Option<NodeWithChildren>>, Error> {
        match self.ask(Ask::GetMany(paths.to_vec())).await? {
            Answer::Nodes(nodes) => Ok(nodes),
            other => unexpected(&other),
        }
    }

    fn watch(&self, path: &TreePath, scope: Scope) -> Watcher {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let dropped = Arc::<Notify>::default();
        let (watcher, sink) = Watcher::with_drop_notice(path, scope, &dropped);
        self.shared.lock().watches.insert(id, sink);
        let (requests, shared) = (self.requests.clone(), Arc::clone(&self.shared));
        let ask = Ask::Watch(path.clone(), scope);
        self.tasks.start("watch of the shared tree", OnExit::Ignore, async move {
            let _lost = requests.send(Request { id, ask }).await;
            dropped.notified().await;
            shared.lock().watches.remove(&id);
            let _lost = requests.send(Request { id, ask: Ask::Unwatch(id) }).await;
        });
        watcher
    }

    fn root(&self) -> &TreePath {
        &self.root
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }
}

#[async_trait]
impl Tree for SharedTree {
    async fn create(&self, path: &TreePath, data: &[u8], mode: CreateMode) -> Result<TreePath, Error> {
        request::check_payload(path, data.len())?;
        match self.ask(Ask::Create(path.clone(), data.to_vec(), mode)).await? {
            Answer::Path(path) => Ok(path),
            other => unexpected(&other),
        }
    }

    async fn set(&self, path: &TreePath, data: &[u8], expected: Option<Version>) -> Result<Version, Error> {
        request::check_payload(path, data.len())?;
        match self.ask(Ask::Set(path.clone(), data.to_vec(), expected)).await? {
            Answer::Version(version) => Ok(version),
            other => unexpected(&other),
        }
    }

    async fn delete(&self, path: &TreePath, expected: Option<Version>) -> Result<(), Error> {
        match self.ask(Ask::Delete(path.clone(), expected)).await? {
            Answer::Done => Ok(()),
            other => unexpected(&other),
        }
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, Error> {
        request::check_multi(&ops)?;
        match self.ask(Ask::Multi(ops)).await? {
            Answer::Results(results) => Ok(results),
            other => unexpected(&other),
        }
    }

    async fn close(&self) {
        let _over = tokio::time::timeout(CLOSE_TIMEOUT, self.ask(Ask::Close)).await;
        self.state.send_replace(SessionState::Closed);
        for sink in self.shared.lock().watches.values() {
            sink.note_everything();
        }
    }
}
