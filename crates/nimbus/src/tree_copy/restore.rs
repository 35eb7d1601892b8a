//! Restoring the tree from the copy of one nimbus.
//!
//! The records come first and `/tree-id` last. Until then the tree stays another tree for every
//! daemon that remembers the lost one, so nobody acts on a half of it; a restore that was interrupted
//! is run again.

use std::collections::{BTreeMap, BTreeSet};

use tracing::info;

use super::TreeCopy;
use stormkeeper_coordination::{
    cluster::{
        layout::{self, LAYOUT_VERSION},
        layout_version::{self, Layout},
        record::{self, Election, SupervisorAssignments, UnknownFields},
        tree_id::{self, FoundTree, SUCCEEDS_MAX, TreeIdentity, TreeMark},
    },
    election,
    tree::{self, CreateMode, Op, Tree, TreePath, Version},
};
use stormkeeper_model::{NimbusId, SupervisorId, Term, TopologyId, TreeId};

/// Maximum number of writes of `/term` in one transaction.
const WRITES_MAX: i32 = 1000;

/// Largest distance of the next term from the version of `/term`.
const TERMS_MAX: i32 = 3_000_000;

/// Reason why a tree is not restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The tree belongs to another cluster.
    #[error(
        "the tree has topologies that this copy does not know, {0} and perhaps more. If somebody submitted them since \
         the tree was lost, kill them (`stormkeeper list` of the nimbus that leads there) and run it again. Otherwise \
         it belongs to another cluster: correct storm.zookeeper.servers and storm.zookeeper.root"
    )]
    OtherCluster(String),
    /// The root of the tree was deleted within the session of this nimbus.
    #[error("{0} does not exist; restart this nimbus, which creates it, and run it again")]
    NoRoot(TreePath),
    /// A daemon remembers a term that no election can have had.
    #[error(
        "term {term}, which a nimbus remembers, is far above the version of /term, {version}: a record of the tree was \
         changed by hand. Correct the field `term` in the file `tree` of each daemon, and start them again"
    )]
    ImpossibleTerm {
        /// The term.
        term: Term,
        /// Data version of `/term`; 0 if it does not exist.
        version: i32,
    },
    /// The tree has another layout.
    #[error(transparent)]
    Layout(#[from] layout_version::Refused),
    /// The tree could not be read or written.
    #[error("the tree cannot be read or written; run it again")]
    Tree(#[from] tree::Error),
}

/// Result of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) tree: TreeId,
    /// Term after which the terms go on.
    pub(crate) term: Term,
    pub(crate) topologies: Vec<TopologyId>,
}

/// The lost tree, and the copy from which it comes back.
pub(crate) struct Restore<'a> {
    pub(crate) tree: &'a dyn Tree,
    pub(crate) copy: &'a TreeCopy,
    /// The tree that the nimbus remembers.
    pub(crate) remembered: &'a TreeMark,
    /// Latest term that any nimbus remembers.
    pub(crate) seen: Term,
    pub(crate) me: &'a NimbusId,
}

/// Parents whose records are replaced by those of the copy.
fn replaced() -> [TreePath; 5] {
    let credentials = layout::credentials_parent();
    [layout::storms(), layout::tasks_parent(), layout::assignments(), credentials, layout::drains()]
}

impl Restore<'_> {
    /// Checks that the tree may be written: it is empty, a copy of the lost tree, or was begun by a
    /// nimbus that remembers nothing.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing was changed.
    pub(crate) async fn check(&self) -> Result<FoundTree, RestoreError> {
        let found = FoundTree::read(self.tree).await?;
        if let Some(node) = self.tree.get(&layout::layout()).await? {
            layout_version::check_data(self.tree.root().clone(), &node.data)?;
        }
        let is_own = found.identity.as_ref().is_some_and(|identity| {
            identity.id == self.remembered.id || identity.succeeds.contains(&self.remembered.id)
        });
        let topologies = self.children(&layout::storms()).await?;
        let is_known = |name: &String| self.copy.records.contains_key(&format!("/storms/{name}"));
        match topologies.iter().find(|name| !is_known(name)) {
            Some(unknown) if !is_own => Err(RestoreError::OtherCluster(unknown.clone())),
            Some(_) | None => Ok(found),
        }
    }

    /// Writes the records of the copy, and then the identity.
    ///
    /// # Errors
    /// [`RestoreError`]. Run it again: it continues.
    pub(crate) async fn run(&self) -> Result<Restored, RestoreError> {
        self.check().await?;
        self.write_parents().await?;
        self.delete_others().await?;
        let versions = self.write_records().await?;
        self.write_supervisor_assignments(&versions).await?;
        let (tree, term) = self.write_identity().await?;
        let topologies = self.copy.topologies().into_keys().collect();
        Ok(Restored { tree, term, topologies })
    }

    async fn children(&self, path: &TreePath) -> Result<Vec<String>, tree::Error> {
        Ok(self.tree.children(path).await?.unwrap_or_default())
    }

    async fn write_parents(&self) -> Result<(), RestoreError> {
        let data = record::encode(&Layout {
            layout: LAYOUT_VERSION,
            created_by: env!("CARGO_PKG_VERSION").to_owned(),
            unknown_fields: UnknownFields::new(),
        });
        match self.tree.create(&layout::layout(), &data, CreateMode::Persistent).await {
            Ok(_) | Err(tree::Error::NodeExists { .. }) => {}
            Err(tree::Error::NoNode { .. }) => {
                return Err(RestoreError::NoRoot(self.tree.root().clone()));
            }
            Err(error) => return Err(error.into()),
        }
        for path in layout::top_level() {
            self.tree.ensure(&path).await?;
        }
        for (id, topology) in &self.copy.topologies() {
            // Without it a package that no nimbus has would not be noticed.
            self.tree.ensure(&layout::blob(&topology.blob)).await?;
            self.tree.ensure(&layout::taskbeats(id)).await?;
            self.tree.ensure(&layout::taskerrors(id)).await?;
        }
        Ok(())
    }

    /// Deletes the records that an older copy of the tree has and the copy of the nimbus has not.
    async fn delete_others(&self) -> Result<(), tree::Error> {
        for parent in replaced() {
            for name in self.children(&parent).await? {
                let path = parent.child(&name).map_err(tree::Error::InvalidPath)?;
                if !self.copy.records.contains_key(path.as_str()) {
                    self.tree.delete_recursive(&path).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes the records. Returns the versions of the znodes.
    async fn write_records(&self) -> Result<BTreeMap<TreePath, Version>, tree::Error> {
        let mut versions = BTreeMap::new();
        let paths = self.copy.records.keys().filter_map(|path| path.parse::<TreePath>().ok());
        for path in paths {
            let data = self.copy.records[path.as_str()].to_string().into_bytes();
            versions.insert(path.clone(), self.put(&path, &data).await?);
        }
        Ok(versions)
    }

    async fn put(&self, path: &TreePath, data: &[u8]) -> Result<Version, tree::Error> {
        match self.tree.create(path, data, CreateMode::Persistent).await {
            Ok(_) => Ok(Version::FIRST),
            Err(tree::Error::NodeExists { .. }) => self.tree.set(path, data, None).await,
            Err(error) => Err(error),
        }
    }

    /// Writes the supervisor assignments that follow from the assignments.
    async fn write_supervisor_assignments(
        &self,
        versions: &BTreeMap<TreePath, Version>,
    ) -> Result<(), tree::Error> {
        let mut by_supervisor: BTreeMap<SupervisorId, BTreeMap<TopologyId, Version>> = BTreeMap::new();
        for name in self.children(&layout::supervisor_assignments_parent()).await? {
            if let Ok(supervisor) = name.parse() {
                by_supervisor.insert(supervisor, BTreeMap::new());
            }
        }
        for (id, assignment) in self.copy.assignments() {
            let version = versions.get(&layout::assignment(&id)).copied().unwrap_or(Version::FIRST);
            let supervisors: BTreeSet<_> = assignment.workers.keys().map(|slot| &slot.supervisor).collect();
            for supervisor in supervisors {
                by_supervisor.entry(supervisor.clone()).or_default().insert(id.clone(), version);
            }
        }
        for (supervisor, topologies) in by_supervisor {
            let record = SupervisorAssignments { topologies, unknown_fields: UnknownFields::new() };
            self.put(&layout::supervisor_assignments(&supervisor), &record::encode(&record)).await?;
        }
        Ok(())
    }

    /// Writes `/term` above every known term, then `/tree-id`, in one transaction. A leader that a
    /// nimbus without memory has become meanwhile is deposed by it.
    ///
    /// A term far above the version of `/term` is reached in several transactions, as in an election.
    async fn write_identity(&self) -> Result<(TreeId, Term), RestoreError> {
        let found = FoundTree::read(self.tree).await?;
        let former = found.identity.as_ref();
        let known = former.map_or(Term(0), |identity| identity.term);
        let mut version = self.tree.get(&layout::term()).await?.map(|node| node.stat.version);
        let above = version.map_or(Term(0), |version| Term(version.next().0));
        let term = self.seen.max(self.copy.term).max(self.remembered.term).max(known).max(above);
        let data =
            record::encode(&Election { term, nimbus: self.me.clone(), unknown_fields: UnknownFields::new() });
        let number = |version: Option<Version>| version.map_or(0, |version| version.0);
        if term.0 - number(version) > TERMS_MAX {
            return Err(RestoreError::ImpossibleTerm { term, version: number(version) });
        }
        while term.0 - number(version) > WRITES_MAX {
            let next = number(version) + WRITES_MAX;
            self.tree.multi(election::raise_term(version, Term(next), b"")).await?;
            version = Some(Version(next));
        }
        let writes = election::raise_term(version, term, &data);
        let id = tree_id::random_id();
        let lost = [Some(&self.remembered.id), Some(&self.copy.tree.id), former.map(|identity| &identity.id)];
        let mut succeeds: Vec<TreeId> = Vec::new();
        for lost in lost.into_iter().flatten().chain(former.iter().flat_map(|identity| &identity.succeeds)) {
            if !succeeds.contains(lost) && succeeds.len() < SUCCEEDS_MAX {
                succeeds.push(lost.clone());
            }
        }
        let data = record::encode(&TreeIdentity {
            id: id.clone(),
            term,
            succeeds,
            unknown_fields: UnknownFields::new(),
        });
        let path = layout::tree_id();
        let identity = match found.version {
            Some(version) => Op::Set { path, data, version: Some(version) },
            None => Op::Create { path, data, mode: CreateMode::Persistent },
        };
        let leader = self.tree.get(&layout::leader()).await?;
        let depose =
            leader.map(|node| Op::Delete { path: layout::leader(), version: Some(node.stat.version) });
        self.tree.multi(writes.into_iter().chain(depose).chain([identity]).collect()).await?;
        info!(tree = %id, %term, "restored the tree from the copy of this nimbus");
        Ok((id, term))
    }
}
