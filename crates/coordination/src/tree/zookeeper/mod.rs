//! Implementation of the tree on a ZooKeeper ensemble.
//!
//! ```text
//!  requests ──▶ Link ◀── session::keep (one session after another)
//!                ▲              │ notifies of each change of state
//!                └── watches::keep (sets the watches, again after each loss)
//!                               ▲ listeners, one per watched path
//! ```
//!
//! No code outside this folder has a client of the crate `zookeeper_client` or uses one of its types.
//!
//! The servers must be 3.6 or newer: older versions have no persistent watches.

pub mod access;
mod errors;
mod facts;
mod session;
mod tls;
mod watches;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use zookeeper_client as zk;

use self::{
    access::CurrentAccess,
    errors::{error_at, general_error},
    session::Link,
    tls::CurrentTls,
    watches::Watches,
};
use crate::tree::{
    CreateMode, Error, Node, NodeFacts, NodeWithChildren, Op, OpResult, READ_BATCH, READ_BYTES, ReadTree,
    Scope, SessionId, SessionState, Stat, Tree, TreePath, Version, Watcher, batches, options::Options,
    request,
};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Time that [`Tree::close`] waits for the server to end the session. A longer wait would block the
/// stop on a dead server, whose ephemerals are deleted at the session timeout anyway.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The server's own znode at its root; not part of our tree.
const SERVERS_OWN: &str = "zookeeper";

/// A connection to ZooKeeper that opens a new session after the end of each session.
pub struct ZooKeeperTree {
    link: Arc<Link>,
    watches: Arc<Watches>,
    tasks: Tasks,
    root: TreePath,
    access: CurrentAccess,
    tls: Option<CurrentTls>,
}

impl ZooKeeperTree {
    /// Starts connecting, in tasks that end with `tasks`, and retries for ever. The pauses between
    /// attempts take their jitter from `random`.
    pub fn connect(options: Options, random: fastrand::Rng, tasks: &Tasks) -> Arc<Self> {
        let link = Arc::new(Link::new(options.request_timeout));
        let watches = Watches::new();
        let tasks = tasks.child();
        let (root, access) = (options.root.clone(), CurrentAccess::new(options.access.clone()));
        let tls = options.tls.clone().map(CurrentTls::new);
        let changed = Arc::clone(&watches.wake);
        let target = session::Target { options, access: access.clone(), tls: tls.clone() };
        let sessions = session::keep(Arc::clone(&link), target, session::retries(random), changed);
        tasks.start("tree-session", OnExit::StopOwner, sessions);
        let placing = watches::keep(Arc::clone(&watches), Arc::clone(&link));
        tasks.start("tree-watches", OnExit::StopOwner, placing);
        Arc::new(Self { link, watches, tasks, root, access, tls })
    }

    /// Returns the reason why the last attempt to open a session failed, while there is no session.
    pub fn problem(&self) -> Option<String> {
        self.link.problem()
    }

    fn node(&self, path: &TreePath, data: Vec<u8>, stat: &zk::Stat) -> Node {
        let n_children = usize::try_from(stat.num_children).unwrap_or(0);
        let n_hidden = usize::from(self.root.is_root() && path.is_root());
        let stat = Stat {
            created: stat.czxid,
            modified: stat.mzxid,
            version: Version(stat.version),
            owner: (stat.ephemeral_owner != 0).then_some(SessionId(stat.ephemeral_owner)),
            n_children: n_children.saturating_sub(n_hidden),
        };
        Node { data: data.into(), stat }
    }

    fn names(&self, path: &TreePath, mut names: Vec<String>) -> Vec<String> {
        if self.root.is_root() && path.is_root() {
            names.retain(|name| name != SERVERS_OWN);
        }
        names.sort_unstable();
        names
    }

    async fn get_batch(&self, paths: &[TreePath]) -> Result<Vec<Option<NodeWithChildren>>, Error> {
        let answer = self.link.request(async |client: zk::Client| {
            let mut reader = client.new_multi_reader();
            for path in paths {
                reader.add_get_data(path.as_str())?;
                reader.add_get_children(path.as_str())?;
            }
            reader.commit().await
        });
        let mut results = answer.await?.map_err(general_error)?.into_iter();
        paths.iter().map(|path| self.node_with_children(path, results.next(), results.next())).collect()
    }

    fn node_with_children(
        &self,
        path: &TreePath,
        data: Option<zk::MultiReadResult>,
        children: Option<zk::MultiReadResult>,
    ) -> Result<Option<NodeWithChildren>, Error> {
        use zk::MultiReadResult::{Children, Data, Error as Failed};
        match (data, children) {
            (Some(Data { data, stat }), Some(Children { children })) => {
                let node = self.node(path, data, &stat);
                Ok(Some(NodeWithChildren { node, children: self.names(path, children) }))
            }
            // Deleted, perhaps between the two reads.
            (Some(Failed { err: zk::Error::NoNode }), _) | (_, Some(Failed { err: zk::Error::NoNode })) => {
                Ok(None)
            }
            (Some(Failed { err }), _) | (_, Some(Failed { err })) => Err(error_at(path, err)),
            (data, children) => Err(Error::ConnectionLost(format!(
                "unexpected response: {data:?} and {children:?} for the data and the children of {path}"
            ))),
        }
    }
}

impl fmt::Debug for ZooKeeperTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperTree")
            .field("state", &*self.link.subscribe().borrow())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ReadTree for ZooKeeperTree {
    async fn get(&self, path: &TreePath) -> Result<Option<Node>, Error> {
        let answer = self.link.request(async |client: zk::Client| client.get_data(path.as_str()).await);
        match answer.await? {
            Ok((data, stat)) => Ok(Some(self.node(path, data, &stat))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(error_at(path, error)),
        }
    }

    async fn children(&self, path: &TreePath) -> Result<Option<Vec<String>>, Error> {
        let answer = self.link.request(async |client: zk::Client| client.list_children(path.as_str()).await);
        match answer.await? {
            Ok(names) => Ok(Some(self.names(path, names))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(error_at(path, error)),
        }
    }

    async fn get_many(&self, paths: &[TreePath]) -> Result<Vec<Option<NodeWithChildren>>, Error> {
        let mut znodes = Vec::with_capacity(paths.len());
        for batch in batches(paths, READ_BATCH, READ_BYTES) {
            znodes.extend(self.get_batch(batch).await?);
        }
        Ok(znodes)
    }

    async fn facts(&self, path: &TreePath) -> Result<Option<NodeFacts>, Error> {
        let answer = self.link.request(async |client: zk::Client| client.get_acl(path.as_str()).await);
        match answer.await? {
            Ok((acl, stat)) => Ok(Some(facts::of(&acl, &stat))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(error_at(path, error)),
        }
    }

    fn watch(&self, path: &TreePath, scope: Scope) -> Watcher {
        let watcher = self.watches.add(path, scope);
        if *self.link.subscribe().borrow() == SessionState::Closed {
            self.watches.notify_everything();
        }
        watcher
    }

    fn root(&self) -> &TreePath {
        &self.root
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.link.subscribe()
    }
}

#[async_trait]
impl Tree for ZooKeeperTree {
    async fn create(&self, path: &TreePath, data: &[u8], mode: CreateMode) -> Result<TreePath, Error> {
        request::check_payload(path, data.len())?;
        request::check_root_creation(path, mode)?;
        let acls = self.access.acls(path);
        let options = access::options(mode, &acls);
        let answer =
            self.link.request(async |client: zk::Client| client.create(path.as_str(), data, &options).await);
        let (_stat, sequence) = answer.await?.map_err(|error| error_at(path, error))?;
        match mode.is_sequential() {
            true => format!("{path}{sequence}").parse().map_err(Error::InvalidPath),
            false => Ok(path.clone()),
        }
    }

    async fn set(&self, path: &TreePath, data: &[u8], expected: Option<Version>) -> Result<Version, Error> {
        request::check_payload(path, data.len())?;
        let version = expected.map(|version| version.0);
        let answer =
            self.link.request(async |client: zk::Client| client.set_data(path.as_str(), data, version).await);
        let stat = answer.await?.map_err(|error| error_at(path, error))?;
        Ok(Version(stat.version))
    }

    async fn delete(&self, path: &TreePath, expected: Option<Version>) -> Result<(), Error> {
        request::check_root_deletion(path)?;
        let version = expected.map(|version| version.0);
        let answer =
            self.link.request(async |client: zk::Client| client.delete(path.as_str(), version).await);
        answer.await?.map_err(|error| error_at(path, error))
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, Error> {
        request::check_multi(&ops)?;
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let answer = self.link.request(async |client: zk::Client| {
            let mut writer = client.new_multi_writer();
            for op in &ops {
                add(&mut writer, op, &self.access)?;
            }
            // The error of one operation is a response too, so it is in the inner result.
            match writer.commit().await {
                Err(zk::MultiWriteError::RequestFailed { source }) => Err(source),
                Err(zk::MultiWriteError::OperationFailed { index, source }) => Ok(Err((index, source))),
                Ok(results) => Ok(Ok(results)),
            }
        });
        match answer.await?.map_err(general_error)? {
            Ok(results) => results.into_iter().map(op_result).collect(),
            Err((index, source)) => {
                let source = match ops.get(index) {
                    Some(op) => error_at(op.path(), source),
                    None => general_error(source),
                };
                Err(Error::Multi { index, source: Box::new(source) })
            }
        }
    }

    async fn close(&self) {
        let client = self.link.close();
        let closing = async {
            // Both tasks hold handles of the client; the session ends when the last handle is dropped.
            self.tasks.stop(CLOSE_TIMEOUT).await;
            if let Some(client) = client {
                let mut states = client.state_watcher();
                drop(client);
                let mut state = states.state();
                while !state.is_terminated() {
                    state = states.changed().await;
                }
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("ZooKeeper did not confirm the end of the session; the session will expire");
        }
        self.watches.notify_everything();
    }
}

fn add(writer: &mut zk::MultiWriter<'_>, op: &Op, current: &CurrentAccess) -> Result<(), zk::Error> {
    // On the wire "any version" is -1; the crate has an API for it except in checks.
    const ANY: i32 = -1;
    match op {
        Op::Check { path, version } => {
            writer.add_check_version(path.as_str(), version.map_or(ANY, |version| version.0))
        }
        Op::Create { path, data, mode } => {
            let acls = current.acls(path);
            writer.add_create(path.as_str(), data, &access::options(*mode, &acls))
        }
        Op::Set { path, data, version } => {
            writer.add_set_data(path.as_str(), data, version.map(|version| version.0))
        }
        Op::Delete { path, version } => writer.add_delete(path.as_str(), version.map(|version| version.0)),
    }
}

fn op_result(result: zk::MultiWriteResult) -> Result<OpResult, Error> {
    match result {
        zk::MultiWriteResult::Check => Ok(OpResult::Checked),
        zk::MultiWriteResult::Delete => Ok(OpResult::Deleted),
        zk::MultiWriteResult::Create { path, .. } => {
            path.parse().map(OpResult::Created).map_err(Error::InvalidPath)
        }
        zk::MultiWriteResult::SetData { stat } => Ok(OpResult::Set(Version(stat.version))),
        // The crate's enum may grow; the transaction has taken effect.
        other => Err(Error::ConnectionLost(format!("unexpected response to a multi: {other:?}"))),
    }
}
