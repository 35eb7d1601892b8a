//! The znodes: a plain value without connections, watches or locks.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::tree::{
    CreateMode, Error, Node, NodeWithChildren, Op, OpResult, SessionId, Stat, TreePath, Version,
    watch::NodeEvent,
};

/// All znodes, and the ephemerals of each session.
#[derive(Debug)]
pub(super) struct Nodes {
    znodes: HashMap<TreePath, Znode>,
    ephemerals: HashMap<SessionId, BTreeSet<TreePath>>,
    last_transaction: i64,
}

#[derive(Debug)]
struct Znode {
    data: Arc<[u8]>,
    created: i64,
    modified: i64,
    version: i32,
    owner: Option<SessionId>,
    children: BTreeSet<Box<str>>,
    /// Number of children that were ever created: the next sequence number. ZooKeeper keeps it as
    /// the znode's internal cversion, where deletions do not count.
    n_children_ever: i32,
}

/// Reversal of one operation of a failed multi.
enum Undo {
    Create { path: TreePath, parent_n_children_ever: i32 },
    Set { path: TreePath, data: Arc<[u8]>, modified: i64, version: i32 },
    Delete { path: TreePath, znode: Znode },
}

/// Results of a transaction, and the events for watchers.
pub(super) struct Committed {
    pub(super) results: Vec<OpResult>,
    pub(super) events: Vec<NodeEvent>,
}

impl Nodes {
    /// Creates a tree that contains only its root.
    pub(super) fn new() -> Self {
        let root = Znode::new(Arc::from(&b""[..]), 0, None);
        Self {
            znodes: HashMap::from([(TreePath::root(), root)]),
            ephemerals: HashMap::new(),
            last_transaction: 0,
        }
    }

    /// Reads one znode.
    pub(super) fn get(&self, path: &TreePath) -> Option<Node> {
        self.znodes.get(path).map(Znode::read)
    }

    /// Reads the names of a znode's children.
    pub(super) fn children(&self, path: &TreePath) -> Option<Vec<String>> {
        self.znodes.get(path).map(Znode::names)
    }

    /// Reads a znode with the names of its children.
    pub(super) fn get_with_children(&self, path: &TreePath) -> Option<NodeWithChildren> {
        self.znodes.get(path).map(|znode| NodeWithChildren { node: znode.read(), children: znode.names() })
    }

    /// Returns the number of znodes, including the root.
    pub(super) fn len(&self) -> usize {
        self.znodes.len()
    }

    /// Applies all of `ops` for `session`, or none of them and returns the index and the error of
    /// the failed operation. A failed transaction uses up its number too, as in ZooKeeper.
    pub(super) fn commit(&mut self, session: SessionId, ops: &[Op]) -> Result<Committed, (usize, Error)> {
        self.last_transaction += 1;
        let mut committed = Committed { results: Vec::with_capacity(ops.len()), events: Vec::new() };
        let mut undo = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            if let Err(error) = self.apply(session, op, &mut committed, &mut undo) {
                undo.into_iter().rev().for_each(|step| self.undo(step));
                return Err((index, error));
            }
        }
        Ok(committed)
    }

    /// Deletes the ephemerals of a session that ended, and returns their paths.
    pub(super) fn end_session(&mut self, session: SessionId) -> Vec<TreePath> {
        self.last_transaction += 1;
        let ended = self.ephemerals.remove(&session).unwrap_or_default();
        for path in &ended {
            self.remove(path);
        }
        ended.into_iter().collect()
    }

    fn apply(
        &mut self,
        session: SessionId,
        op: &Op,
        committed: &mut Committed,
        undo: &mut Vec<Undo>,
    ) -> Result<(), Error> {
        match op {
            Op::Check { path, version } => {
                self.find(path, *version)?;
                committed.results.push(OpResult::Checked);
            }
            Op::Create { path, data, mode } => {
                let owner = mode.is_ephemeral().then_some(session);
                let (path, step) = self.create(path, data, *mode, owner)?;
                undo.push(step);
                committed.results.push(OpResult::Created(path.clone()));
                committed.events.push(NodeEvent::CreatedOrDeleted(path));
            }
            Op::Set { path, data, version } => {
                let (version, step) = self.set(path, data, *version)?;
                undo.push(step);
                committed.results.push(OpResult::Set(version));
                committed.events.push(NodeEvent::Changed(path.clone()));
            }
            Op::Delete { path, version } => {
                undo.push(self.delete(path, *version)?);
                committed.results.push(OpResult::Deleted);
                committed.events.push(NodeEvent::CreatedOrDeleted(path.clone()));
            }
        }
        Ok(())
    }

    fn create(
        &mut self,
        path: &TreePath,
        data: &[u8],
        mode: CreateMode,
        owner: Option<SessionId>,
    ) -> Result<(TreePath, Undo), Error> {
        let no_parent = || Error::NoNode { path: path.clone() };
        let parent_path = path.parent().ok_or_else(|| Error::NodeExists { path: path.clone() })?;
        let parent = self.znodes.get(&parent_path).ok_or_else(no_parent)?;
        let n_before = parent.n_children_ever;
        let created = match mode.is_sequential() {
            true => {
                let name = format!("{}{n_before:010}", path.name());
                parent_path.child(&name).map_err(Error::InvalidPath)?
            }
            false => path.clone(),
        };
        if self.znodes.contains_key(&created) {
            return Err(Error::NodeExists { path: path.clone() });
        }
        if parent.owner.is_some() {
            return Err(Error::NoChildrenForEphemerals { path: path.clone() });
        }
        let znode = Znode::new(Arc::from(data), self.last_transaction, owner);
        self.insert(&created, znode);
        let parent = self.znodes.get_mut(&parent_path).ok_or_else(no_parent)?;
        // At its maximum ZooKeeper's counter stays, and the name exists from then on.
        parent.n_children_ever = n_before.saturating_add(1);
        Ok((created.clone(), Undo::Create { path: created, parent_n_children_ever: n_before }))
    }

    fn set(
        &mut self,
        path: &TreePath,
        data: &[u8],
        expected: Option<Version>,
    ) -> Result<(Version, Undo), Error> {
        self.find(path, expected)?;
        let transaction = self.last_transaction;
        let znode = self.znodes.get_mut(path).ok_or_else(|| Error::NoNode { path: path.clone() })?;
        let before = Undo::Set {
            path: path.clone(),
            data: std::mem::replace(&mut znode.data, Arc::from(data)),
            modified: std::mem::replace(&mut znode.modified, transaction),
            version: znode.version,
        };
        znode.version = znode.version.wrapping_add(1);
        Ok((Version(znode.version), before))
    }

    fn delete(&mut self, path: &TreePath, expected: Option<Version>) -> Result<Undo, Error> {
        let znode = self.find(path, expected)?;
        if !znode.children.is_empty() {
            return Err(Error::NotEmpty { path: path.clone() });
        }
        let znode = self.remove(path).ok_or_else(|| Error::NoNode { path: path.clone() })?;
        Ok(Undo::Delete { path: path.clone(), znode })
    }

    fn find(&self, path: &TreePath, expected: Option<Version>) -> Result<&Znode, Error> {
        let znode = self.znodes.get(path).ok_or_else(|| Error::NoNode { path: path.clone() })?;
        // On the wire "any version" is -1.
        match expected {
            None | Some(Version(-1)) => Ok(znode),
            Some(Version(version)) if version == znode.version => Ok(znode),
            Some(_) => Err(Error::BadVersion { path: path.clone() }),
        }
    }

    fn undo(&mut self, step: Undo) {
        match step {
            Undo::Create { path, parent_n_children_ever } => {
                self.remove(&path);
                if let Some(parent) = path.parent().and_then(|parent| self.znodes.get_mut(&parent)) {
                    parent.n_children_ever = parent_n_children_ever;
                }
            }
            Undo::Set { path, data, modified, version } => {
                if let Some(znode) = self.znodes.get_mut(&path) {
                    (znode.data, znode.modified, znode.version) = (data, modified, version);
                }
            }
            Undo::Delete { path, znode } => self.insert(&path, znode),
        }
    }

    /// Inserts a znode into the tree, its parent's children and its owner's ephemerals.
    fn insert(&mut self, path: &TreePath, znode: Znode) {
        if let Some(owner) = znode.owner {
            self.ephemerals.entry(owner).or_default().insert(path.clone());
        }
        if let Some(parent) = path.parent().and_then(|parent| self.znodes.get_mut(&parent)) {
            parent.children.insert(path.name().into());
        }
        self.znodes.insert(path.clone(), znode);
    }

    /// Reverses `insert`.
    fn remove(&mut self, path: &TreePath) -> Option<Znode> {
        let znode = self.znodes.remove(path)?;
        if let Some(parent) = path.parent().and_then(|parent| self.znodes.get_mut(&parent)) {
            parent.children.remove(path.name());
        }
        if let Some(owner) = znode.owner
            && let Some(owned) = self.ephemerals.get_mut(&owner)
        {
            owned.remove(path);
            if owned.is_empty() {
                self.ephemerals.remove(&owner);
            }
        }
        Some(znode)
    }
}

impl Znode {
    fn new(data: Arc<[u8]>, transaction: i64, owner: Option<SessionId>) -> Self {
        Self {
            data,
            created: transaction,
            modified: transaction,
            version: 0,
            owner,
            children: BTreeSet::new(),
            n_children_ever: 0,
        }
    }

    fn read(&self) -> Node {
        let stat = Stat {
            created: self.created,
            modified: self.modified,
            version: Version(self.version),
            owner: self.owner,
            n_children: self.children.len(),
        };
        Node { data: Arc::clone(&self.data), stat }
    }

    fn names(&self) -> Vec<String> {
        self.children.iter().map(|name| name.to_string()).collect()
    }
}
