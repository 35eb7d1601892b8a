//! Typed reads of the cluster state, and the few writes that a daemon makes about itself.
//!
//! Writes that only the leader may make are not here: see `election::FencedWriter`.

mod live_daemons;

use std::{collections::BTreeMap, sync::Arc};

use serde::de::DeserializeOwned;

use crate::{
    cluster::{
        layout, layout_version,
        metric_log::MetricLogState,
        record::{
            self, CredentialsRecord, Leader, NimbusRecord, StoppedSupervisor, Stored, StoredError,
            SupervisorAssignments, TaskHeartbeat, TopologyRecord, Unreadable,
        },
    },
    tree::{self, CreateMode, Node, Op, READ_BATCH, ReadTree, Readable, Tree, TreePath, Version},
};
use stormkeeper_model::{
    BlobKey, ComponentId, NimbusId, SupervisorId, TaskId, Term, TopologyId, assignment::Assignment,
    error::TaskError, topology::TaskTable,
};

/// Number of errors kept for each task, the newest, as in Storm.
pub const ERRORS_KEPT: usize = 10;

/// Most errors of a task that are read: its workers keep fewer, but a component can write more.
const ERRORS_READ_MAX: usize = 100;

/// Longest name of an error that is read: what workers write is shorter.
const ERROR_NAME_BYTES_MAX: usize = 64;

/// Most old errors that one write deletes.
const ERRORS_DELETED_MAX: usize = 100;

/// Most components whose last errors are read, far above the limit of a topology.
const COMPONENTS_READ_MAX: usize = 10_000;

/// Maximum size of the message and of the stack of a stored error, each: an error stays well under
/// a znode's limit, and a person reads no more.
const MAX_ERROR_TEXT_BYTES: usize = 8 * 1024;

/// Error of a read or write of the cluster state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request to the tree failed.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A znode does not contain the expected record.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// The cluster state, read one record at a time.
#[derive(Debug, Clone)]
pub struct Store {
    tree: Arc<dyn Tree>,
}

impl Store {
    /// Creates a store over `tree`.
    pub fn new(tree: Arc<dyn Tree>) -> Self {
        Self { tree }
    }

    /// Returns the read-only tree below, to read and to watch.
    pub fn tree(&self) -> Arc<dyn ReadTree> {
        Arc::<dyn Tree>::clone(&self.tree)
    }

    /// Creates the persistent parents that are missing, and `/layout` if the tree is empty.
    ///
    /// # Errors
    /// [`layout_version::Error::Refused`] if the tree has another layout. Errors of the tree; the
    /// call can be repeated.
    pub async fn ensure_layout(&self) -> Result<(), layout_version::Error> {
        let (layout, top_level) = (layout::layout(), layout::top_level());
        let paths: Vec<TreePath> = [layout].into_iter().chain(top_level.iter().cloned()).collect();
        // Most parents exist already: one request instead of one for each.
        let mut present = self.tree.get_many(&paths).await?.into_iter();
        // The tree may have been emptied, or changed by an operator, since the session began.
        match present.next().flatten() {
            Some(layout) => layout_version::check_data(self.tree.root().clone(), &layout.node.data)?,
            None => layout_version::establish(&*self.tree).await?,
        }
        for (path, present) in top_level.iter().zip(present) {
            if present.is_none() {
                match self.tree.ensure(path).await {
                    // A nimbus of this build creates it, without which nobody uses it.
                    Err(tree::Error::NotAuthorized { .. }) if *path == layout::credentials_parent() => {}
                    ensured => ensured?,
                }
            }
        }
        Ok(())
    }

    /// Creates the persistent parents that are missing, as after a deletion by hand, in a tree that
    /// has a layout. Does nothing in a tree without.
    ///
    /// # Errors
    /// Errors of the tree; the call can be repeated.
    pub async fn restore_parents(&self) -> Result<(), Error> {
        let top_level = layout::top_level();
        let paths: Vec<TreePath> = [layout::layout()].into_iter().chain(top_level.iter().cloned()).collect();
        let mut present = self.tree.get_many(&paths).await?.into_iter();
        if present.next().flatten().is_none() {
            return Ok(());
        }
        for (path, _) in top_level.iter().zip(present).filter(|(_, present)| present.is_none()) {
            self.tree.ensure(path).await?;
        }
        Ok(())
    }

    /// Creates the parent of a blob's replica znodes, if it is missing.
    ///
    /// # Errors
    /// Errors of the tree; the call can be repeated.
    pub async fn ensure_blob(&self, key: &BlobKey) -> Result<(), Error> {
        Ok(self.tree.ensure(&layout::blob(key)).await?)
    }

    /// Returns a topology's record.
    ///
    /// # Errors
    /// Errors of the tree, and [`Unreadable`].
    pub async fn topology_record(&self, id: &TopologyId) -> Result<Option<Stored<TopologyRecord>>, Error> {
        self.read(&layout::storm(id)).await
    }

    /// Returns the tasks of a topology's components.
    ///
    /// # Errors
    /// Errors of the tree, and [`Unreadable`].
    pub async fn tasks(&self, id: &TopologyId) -> Result<Option<Stored<TaskTable>>, Error> {
        let stored = self.read::<record::TasksRecord>(&layout::tasks(id)).await?;
        Ok(stored.map(|tasks| Stored { value: tasks.value.components, version: tasks.version }))
    }

    /// Returns a topology's assignment.
    ///
    /// # Errors
    /// Errors of the tree, and [`Unreadable`].
    pub async fn assignment(&self, id: &TopologyId) -> Result<Option<Stored<Assignment>>, Error> {
        let path = layout::assignment(id);
        let Some(node) = self.tree.get(&path).await? else { return Ok(None) };
        let value = record::decode_assignment(&path, &node.data)?;
        Ok(Some(Stored { value, version: node.stat.version }))
    }

    /// Returns a topology's credentials, encrypted.
    ///
    /// # Errors
    /// Errors of the tree, and [`Unreadable`].
    pub async fn credentials(&self, id: &TopologyId) -> Result<Option<Stored<CredentialsRecord>>, Error> {
        self.read(&layout::credentials(id)).await
    }

    /// Returns the assignments that concern a supervisor.
    ///
    /// # Errors
    /// Errors of the tree, and [`Unreadable`].
    pub async fn supervisor_assignments(
        &self,
        id: &SupervisorId,
    ) -> Result<Option<Stored<SupervisorAssignments>>, Error> {
        self.read(&layout::supervisor_assignments(id)).await
    }

    /// Announces that the supervisor `id` stops cleanly and is expected back.
    ///
    /// # Errors
    /// Errors of the tree; the call can be repeated.
    pub async fn announce_stop(&self, id: &SupervisorId, stopped: &StoppedSupervisor) -> Result<(), Error> {
        let (path, data) = (layout::stopped_supervisor(id), record::encode(stopped));
        self.tree.ensure(&layout::stopped_supervisors()).await?;
        match self.tree.create(&path, &data, CreateMode::Persistent).await {
            Ok(_) => Ok(()),
            // Of an earlier stop, after which the supervisor could not delete it.
            Err(tree::Error::NodeExists { .. }) => Ok(self.tree.set(&path, &data, None).await.map(drop)?),
            Err(error) => Err(error.into()),
        }
    }

    /// Withdraws the announcement of a stop, if there is one: the supervisor `id` is back.
    ///
    /// # Errors
    /// Errors of the tree; the call can be repeated.
    pub async fn withdraw_stop(&self, id: &SupervisorId) -> Result<(), Error> {
        match self.tree.delete(&layout::stopped_supervisor(id), None).await {
            Ok(()) | Err(tree::Error::NoNode { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the current leader, if there is one.
    ///
    /// # Errors
    /// Errors of the tree, and [`Unreadable`].
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        Ok(self.read(&layout::leader()).await?.map(|stored| stored.value))
    }

    /// Returns whether `term` was still the latest term when the tree processed the request. The
    /// check is a transaction, so that a server that lags behind cannot give a stale result.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn is_latest(&self, term: Term) -> Result<bool, Error> {
        let check = Op::Check { path: layout::term(), version: Some(Version(term.0)) };
        match self.tree.multi(vec![check]).await {
            Ok(_) => Ok(true),
            Err(tree::Error::Multi { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the replication state of the metric log; `None` if nothing was ever committed.
    ///
    /// # Errors
    /// Errors of the tree, and [`Unreadable`].
    pub async fn metric_log_state(&self) -> Result<Option<MetricLogState>, Error> {
        Ok(self.read(&layout::metric_log()).await?.map(|stored| stored.value))
    }

    /// Returns the supervisors that have announced their stop and are not back, with their hosts.
    ///
    /// # Errors
    /// Errors of the tree; a record that cannot be read or decoded is omitted.
    pub async fn stopped_supervisors(&self) -> Result<Vec<(String, String)>, Error> {
        let live = self.children_allowed(&layout::supervisors()).await?;
        let mut names = self.children_allowed(&layout::stopped_supervisors()).await?;
        names.retain(|name| !live.contains(name));
        let stopped = self.read_children::<StoppedSupervisor>(&layout::stopped_supervisors(), &names).await?;
        Ok(stopped.into_iter().map(|(id, record)| (id, record.host)).collect())
    }

    /// Returns the API addresses of the live nimbuses that have a blob.
    ///
    /// # Errors
    /// Errors of the tree; a nimbus whose record cannot be read or decoded is omitted.
    pub async fn blob_sources(&self, key: &BlobKey) -> Result<Vec<String>, Error> {
        let names = self.tree.children(&layout::blob(key)).await?.unwrap_or_default();
        let ids = names.iter().filter_map(|name| name.parse::<NimbusId>().ok());
        let paths: Vec<TreePath> = ids.map(|id| layout::nimbus(&id)).collect();
        let mut holders = Vec::new();
        for (path, znode) in paths.iter().zip(tree::read_allowed(&*self.tree, &paths).await?) {
            let Readable::Found(znode) = znode else { continue };
            if let Ok(nimbus) = record::decode::<NimbusRecord>(path, &znode.node.data) {
                holders.push(nimbus.api);
            }
        }
        Ok(holders)
    }

    /// Returns which of `keys` no live nimbus has. A blob whose holders this process may not read counts as
    /// held, as nobody could announce another one.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn blobs_without_holder(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>, Error> {
        let paths: Vec<TreePath> = keys.iter().map(layout::blob).collect();
        let znodes = tree::read_allowed(&*self.tree, &paths).await?;
        let is_held = |znode: &Readable| match znode {
            Readable::Missing => false,
            Readable::Denied => true,
            Readable::Found(znode) => !znode.children.is_empty(),
        };
        Ok(keys.into_iter().zip(znodes).filter(|(_, znode)| !is_held(znode)).map(|(key, _)| key).collect())
    }

    /// Returns the API addresses of the live nimbuses.
    ///
    /// # Errors
    /// Errors of the tree; a nimbus whose record cannot be decoded is omitted.
    pub async fn nimbus_apis(&self) -> Result<Vec<String>, Error> {
        let parent = layout::nimbuses();
        let names = self.tree.children(&parent).await?.unwrap_or_default();
        let nimbuses = self.read_children::<NimbusRecord>(&parent, &names).await?;
        Ok(nimbuses.into_iter().map(|(_, nimbus)| nimbus.api).collect())
    }

    /// Reads the registration of a nimbus.
    ///
    /// # Errors
    /// Errors of the tree, and an unreadable record.
    pub async fn nimbus(&self, id: &NimbusId) -> Result<Option<NimbusRecord>, Error> {
        Ok(self.read(&layout::nimbus(id)).await?.map(|stored| stored.value))
    }

    /// Appends an error to those of its task, deletes the oldest beyond [`ERRORS_KEPT`], and stores
    /// the error as the last error of its component, in one transaction, so that no error is lost
    /// or half written.
    ///
    /// An error of a topology that is being removed is dropped: nobody could read it.
    ///
    /// # Errors
    /// Errors of the tree. After an unknown outcome the error may have been stored; reporting it
    /// again may store it twice.
    pub async fn report_error(&self, id: &TopologyId, error: TaskError) -> Result<(), Error> {
        let (task, component) = (error.task, error.component.clone());
        let mut stored = StoredError::from(error);
        truncate(&mut stored.message);
        truncate(&mut stored.stack);
        let data = record::encode(&stored);
        let of_task = layout::taskerrors_of_task(id, task);
        // A second writer may create or delete the same nodes between our reads and our write;
        // after such a conflict the nodes are read again.
        for _ in 0..REPORT_TRIES {
            let Some(listed) = self.tree.children(&layout::taskerrors(id)).await? else { return Ok(()) };
            let mut ops = Vec::new();
            if !listed.contains(&task.to_string()) {
                ops.push(create(of_task.clone(), Vec::new(), CreateMode::Persistent));
            }
            ops.push(create(
                layout::taskerror_prefix(id, task),
                data.clone(),
                CreateMode::PersistentSequential,
            ));
            let mut kept = self.tree.children(&of_task).await?.unwrap_or_default();
            kept.sort_by(|a, b| sequence_order(a).cmp(&sequence_order(b)));
            let n_over = (kept.len() + 1).saturating_sub(ERRORS_KEPT);
            for name in kept.iter().take(n_over.min(ERRORS_DELETED_MAX)) {
                ops.push(Op::Delete {
                    path: of_task.child(name).map_err(tree::Error::InvalidPath)?,
                    version: None,
                });
            }
            let last = layout::last_error(id, &component);
            match self.tree.get(&last).await? {
                Some(_) => ops.push(Op::Set { path: last, data: data.clone(), version: None }),
                None => ops.push(create(last, data.clone(), CreateMode::Persistent)),
            }
            match self.tree.multi(ops).await {
                Ok(_) => return Ok(()),
                Err(error) => match error.root() {
                    tree::Error::NoNode { .. } | tree::Error::NodeExists { .. } => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Err(tree::Error::BadVersion { path: of_task }.into())
    }

    /// Returns the errors of a task, oldest first. Errors that cannot be decoded are omitted.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn errors(&self, id: &TopologyId, task: TaskId) -> Result<Vec<TaskError>, Error> {
        let parent = layout::taskerrors_of_task(id, task);
        let mut names = self.children_allowed(&parent).await?;
        names.sort_by(|a, b| sequence_order(a).cmp(&sequence_order(b)));
        names.retain(|name| name.len() <= ERROR_NAME_BYTES_MAX);
        let newest = &names[names.len().saturating_sub(ERRORS_READ_MAX)..];
        let errors = self.read_children::<StoredError>(&parent, newest).await?;
        Ok(errors.into_iter().map(|(_, error)| error.into()).collect())
    }

    /// Returns the last error of each component that had one.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn last_errors(&self, id: &TopologyId) -> Result<BTreeMap<ComponentId, TaskError>, Error> {
        let parent = layout::last_errors(id);
        let mut names = self.children_allowed(&parent).await?;
        names.retain(|name| name.parse::<ComponentId>().is_ok());
        names.truncate(COMPONENTS_READ_MAX);
        let errors = self.read_children::<StoredError>(&parent, &names).await?;
        Ok(errors.into_iter().map(|(_, error)| (error.component.clone(), error.into())).collect())
    }

    /// Returns the heartbeats of the live tasks of a topology.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn task_heartbeats(&self, id: &TopologyId) -> Result<BTreeMap<TaskId, TaskHeartbeat>, Error> {
        let parent = layout::taskbeats(id);
        let names = self.tree.children(&parent).await?.unwrap_or_default();
        let heartbeats = self.read_children::<TaskHeartbeat>(&parent, &names).await?;
        Ok(heartbeats
            .into_iter()
            .filter_map(|(name, heartbeat)| Some((name.parse().ok()?, heartbeat)))
            .collect())
    }

    /// Returns the heartbeats of these tasks of a topology, as far as they are alive.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn heartbeats_of(
        &self,
        id: &TopologyId,
        tasks: &[TaskId],
    ) -> Result<BTreeMap<TaskId, TaskHeartbeat>, Error> {
        let names: Vec<String> = tasks.iter().map(TaskId::to_string).collect();
        let heartbeats = self.read_children::<TaskHeartbeat>(&layout::taskbeats(id), &names).await?;
        let named = |(name, heartbeat): (String, _)| Some((name.parse().ok()?, heartbeat));
        Ok(heartbeats.into_iter().filter_map(named).collect())
    }

    /// Names of children of a znode that others write; none if this process may not read them.
    async fn children_allowed(&self, parent: &TreePath) -> Result<Vec<String>, Error> {
        match self.tree.children(parent).await {
            Err(error) if error.is_denial() => Ok(Vec::new()),
            names => Ok(names?.unwrap_or_default()),
        }
    }

    async fn read<T: DeserializeOwned>(&self, path: &TreePath) -> Result<Option<Stored<T>>, Error> {
        let Some(Node { data, stat }) = self.tree.get(path).await? else { return Ok(None) };
        Ok(Some(Stored { value: record::decode(path, &data)?, version: stat.version }))
    }

    async fn read_children<T: DeserializeOwned>(
        &self,
        parent: &TreePath,
        names: &[String],
    ) -> Result<Vec<(String, T)>, Error> {
        let mut records = Vec::with_capacity(names.len());
        for batch in names.chunks(READ_BATCH) {
            let paths: Result<Vec<TreePath>, _> = batch.iter().map(|name| parent.child(name)).collect();
            let paths = paths.map_err(tree::Error::InvalidPath)?;
            let znodes = tree::read_allowed(&*self.tree, &paths).await?;
            for ((name, path), znode) in batch.iter().zip(&paths).zip(znodes) {
                let znode = match znode {
                    Readable::Found(znode) => znode,
                    Readable::Missing => continue,
                    Readable::Denied => {
                        tracing::warn!(%path, "omitted a record from a list: ZooKeeper does not authorize reading it");
                        continue;
                    }
                };
                match record::decode(path, &znode.node.data) {
                    Ok(record) => records.push((name.clone(), record)),
                    Err(error) => tracing::warn!(%error, "omitted an invalid record from a list"),
                }
            }
        }
        Ok(records)
    }
}

/// Maximum number of attempts of a writer that conflicts with a second writer of the same task's
/// errors; the writers are the task's worker and, rarely, its supervisor.
const REPORT_TRIES: usize = 8;

fn create(path: TreePath, data: Vec<u8>, mode: CreateMode) -> Op {
    Op::Create { path, data, mode }
}

/// Sort key that orders sequential names by their numbers, even after the counter has exceeded ten
/// digits or wrapped to negative numbers.
fn sequence_order(name: &str) -> (i64, &str) {
    let number = name.trim_start_matches(|c: char| c != '-' && !c.is_ascii_digit());
    (number.parse().unwrap_or(i64::MAX), name)
}

fn truncate(text: &mut String) {
    if text.len() > MAX_ERROR_TEXT_BYTES {
        let end = (0..=MAX_ERROR_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" … (truncated)");
    }
}

#[cfg(test)]
mod tests;
