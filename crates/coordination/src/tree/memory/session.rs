//! Connection to the memory tree.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::task::coop::consume_budget;

use crate::tree::{
    CreateMode, Error, Node, NodeWithChildren, Op, OpResult, ReadTree, Scope, SessionState, Tree, TreePath,
    Version, Watcher,
    memory::server::{ConnectionId, Server},
    request,
};
use stormkeeper_runtime::watch;

/// A connection to a [`super::MemoryTree`], with one session at a time. Dropping the last handle
/// closes the connection.
#[derive(Debug)]
pub struct MemorySession {
    server: Arc<Mutex<Server>>,
    id: ConnectionId,
    root: TreePath,
    // Kept so that receivers see the last state while the connection exists.
    state: watch::Sender<SessionState>,
}

impl MemorySession {
    pub(super) fn open(server: &Arc<Mutex<Server>>) -> Self {
        let (state, _) = watch::channel(SessionState::Connecting);
        let id = super::lock(server).connect(state.clone());
        Self { server: Arc::clone(server), id, root: TreePath::root(), state }
    }

    /// Returns the id of this connection, which is the same across all its sessions.
    pub fn id(&self) -> u64 {
        self.id
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        super::lock(&self.server)
    }

    async fn write(&self, op: Op) -> Result<OpResult, Error> {
        consume_budget().await;
        let mut results =
            self.lock().commit(self.id, std::slice::from_ref(&op))?.map_err(|(_, error)| error)?;
        Ok(results.pop().expect("one operation has one result"))
    }

    async fn read<T>(&self, read: impl FnOnce(&Server) -> T) -> Result<T, Error> {
        consume_budget().await;
        let server = self.lock();
        server.session(self.id)?;
        Ok(read(&server))
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.lock().close(self.id);
    }
}

#[async_trait]
impl ReadTree for MemorySession {
    async fn get(&self, path: &TreePath) -> Result<Option<Node>, Error> {
        self.read(|server| server.nodes.get(path)).await
    }

    async fn children(&self, path: &TreePath) -> Result<Option<Vec<String>>, Error> {
        self.read(|server| server.nodes.children(path)).await
    }

    async fn get_many(&self, paths: &[TreePath]) -> Result<Vec<Option<NodeWithChildren>>, Error> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        self.read(|server| paths.iter().map(|path| server.nodes.get_with_children(path)).collect()).await
    }

    fn watch(&self, path: &TreePath, scope: Scope) -> Watcher {
        let (watcher, sink) = Watcher::new(path, scope);
        self.lock().watch(self.id, sink);
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
impl Tree for MemorySession {
    async fn create(&self, path: &TreePath, data: &[u8], mode: CreateMode) -> Result<TreePath, Error> {
        request::check_payload(path, data.len())?;
        request::check_root_creation(path, mode)?;
        let op = Op::Create { path: path.clone(), data: data.to_vec(), mode };
        match self.write(op).await? {
            OpResult::Created(path) => Ok(path),
            OpResult::Checked | OpResult::Set(_) | OpResult::Deleted => {
                unreachable!("the result of a creation is `Created`")
            }
        }
    }

    async fn set(&self, path: &TreePath, data: &[u8], expected: Option<Version>) -> Result<Version, Error> {
        request::check_payload(path, data.len())?;
        match self.write(Op::Set { path: path.clone(), data: data.to_vec(), version: expected }).await? {
            OpResult::Set(version) => Ok(version),
            OpResult::Checked | OpResult::Created(_) | OpResult::Deleted => {
                unreachable!("the result of a write is `Set`")
            }
        }
    }

    async fn delete(&self, path: &TreePath, expected: Option<Version>) -> Result<(), Error> {
        request::check_root_deletion(path)?;
        self.write(Op::Delete { path: path.clone(), version: expected }).await.map(|_deleted| ())
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, Error> {
        request::check_multi(&ops)?;
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        consume_budget().await;
        self.lock()
            .commit(self.id, &ops)?
            .map_err(|(index, source)| Error::Multi { index, source: Box::new(source) })
    }

    async fn close(&self) {
        self.lock().close(self.id);
    }
}
