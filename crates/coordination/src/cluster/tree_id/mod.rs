//! Identity of the tree: the znode `/tree-id`, and the comparison with the tree that a daemon
//! remembers.
//!
//! A tree that lost its data, an older copy of the tree, and the tree of another cluster all look
//! like a cluster in which nothing is assigned, or in which other things are. So every daemon
//! remembers the id of its tree, with the latest term and the latest change of `/tree-id` that it
//! saw ([`TreeMemory`]), and treats any other tree as if there were no connection.
//!
//! The leader writes `/tree-id` in the transaction that elects it, once a minute, and when
//! topologies come or go: an older copy of the tree has an earlier term, or an earlier change. The
//! design is in `docs/design/another-tree.md`.

mod memory;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use memory::{FILE as MEMORY_FILE, TreeMemory};

use crate::{
    cluster::{
        layout,
        record::{self, UnknownFields},
    },
    tree::{self, NodeWithChildren, Op, ReadTree, Tree, TreePath, Version},
};
use stormkeeper_model::{Term, TreeId};

/// Maximum number of former ids in a record: one is added at each recovery.
pub const SUCCEEDS_MAX: usize = 16;

/// Largest difference of the term in `/tree-id` and the data version of a `/term` that was deleted and
/// created again: more elections than a cluster has in its life.
pub const TERM_JUMP_MAX: i32 = 100_000;

/// Draws the id of a new tree.
pub fn random_id() -> TreeId {
    TreeId(format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)))
}

/// `/tree-id`: identity of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeIdentity {
    /// The id.
    pub id: TreeId,
    /// Term of the last election. It is kept beside `/term`, so that a deleted `/term` begins above
    /// it.
    pub term: Term,
    /// Ids of the trees that were lost and recovered into this tree, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succeeds: Vec<TreeId>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// The tree as a daemon remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeMark {
    /// Id of the tree.
    pub id: TreeId,
    /// Latest term that the daemon saw.
    pub term: Term,
    /// Transaction of the latest change of `/tree-id` that the daemon saw.
    pub zxid: i64,
    /// Transaction that created `/term`. It proves that a tree is the same whose `/tree-id` was
    /// deleted by hand.
    #[serde(default)]
    pub term_created: i64,
}

/// Parts of a tree that identify it, as read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundTree {
    /// True if the tree has no znodes at all.
    pub is_empty: bool,
    /// `/tree-id`, if it holds a valid record.
    pub identity: Option<TreeIdentity>,
    /// Transaction of the last change of `/tree-id`.
    pub zxid: i64,
    /// Data version of `/tree-id`, if it exists; also if it holds no valid record.
    pub version: Option<Version>,
    /// True if a newer build wrote `/tree-id`: it must not be overwritten.
    pub is_newer: bool,
    /// Data version of `/term` and the transaction that created it, if it exists.
    pub term: Option<(Version, i64)>,
}

impl FoundTree {
    /// Reads the identity of `tree`.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn read<T: ReadTree + ?Sized>(tree: &T) -> Result<Self, tree::Error> {
        let (id, term) = (layout::tree_id(), layout::term());
        let paths = [TreePath::root(), id.clone(), term];
        let mut znodes = tree.get_many(&paths).await?.into_iter();
        let (root, at_id, at_term) =
            (znodes.next().flatten(), znodes.next().flatten(), znodes.next().flatten());
        let decoded = at_id.as_ref().map(|znode| record::decode::<TreeIdentity>(&id, &znode.node.data));
        let term = at_term.as_ref().map(|znode| (version(znode), znode.node.stat.created));
        // A record that was written by hand is as good as a damaged one: the leader writes it again.
        let is_possible = |identity: &TreeIdentity| {
            term.is_none_or(|(version, _)| identity.term.0.saturating_sub(version.0) < TERM_JUMP_MAX)
        };
        Ok(Self {
            is_empty: root.is_none_or(|root| root.children.is_empty()),
            is_newer: matches!(&decoded, Some(Err(unreadable)) if unreadable.defect.must_stay()),
            identity: decoded.and_then(Result::ok).filter(is_possible),
            zxid: at_id.as_ref().map_or(0, |znode| znode.node.stat.modified),
            version: at_id.as_ref().map(version),
            term,
        })
    }

    /// Returns what a daemon remembers of this tree; `None` while the tree has no id.
    pub fn mark(&self) -> Option<TreeMark> {
        let identity = self.identity.as_ref()?;
        let term_created = self.term.map_or(0, |(_, created)| created);
        Some(TreeMark { id: identity.id.clone(), term: identity.term, zxid: self.zxid, term_created })
    }
}

fn version(znode: &NodeWithChildren) -> Version {
    znode.node.stat.version
}

/// Result of comparing a tree with the remembered tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The tree may be used. It has no id yet, or its `/tree-id` was deleted and comes back.
    Unnamed,
    /// The tree may be used, and is to be remembered.
    Known(TreeMark),
    /// The tree must not be used.
    Foreign(Difference),
}

/// Difference between a tree and the remembered tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The tree is empty.
    Empty,
    /// The tree has znodes and no id.
    NoId,
    /// The tree has another id.
    OtherId(TreeId),
    /// The tree has the id, and its last term is before the remembered term.
    EarlierTerm(Term),
    /// The tree has the id, and its last change is before the remembered change.
    EarlierChange(i64),
}

/// Compares `found` with the remembered tree. Pure.
pub fn compare(remembered: Option<&TreeMark>, found: &FoundTree) -> Verdict {
    let known = |found: &FoundTree| found.mark().map_or(Verdict::Unnamed, Verdict::Known);
    let Some(remembered) = remembered else { return known(found) };
    let Some(identity) = &found.identity else {
        return match found.term {
            _ if found.is_empty => Verdict::Foreign(Difference::Empty),
            // `/tree-id` was deleted or damaged by hand: `/term` is still the one remembered.
            Some((version, created))
                if created == remembered.term_created && version.0 >= remembered.term.0 =>
            {
                Verdict::Unnamed
            }
            Some(_) | None => Verdict::Foreign(Difference::NoId),
        };
    };
    if identity.id != remembered.id {
        return match identity.succeeds.contains(&remembered.id) {
            // An operator recovered the tree.
            true => known(found),
            false => Verdict::Foreign(Difference::OtherId(identity.id.clone())),
        };
    }
    if identity.term < remembered.term {
        return Verdict::Foreign(Difference::EarlierTerm(identity.term));
    }
    if found.zxid < remembered.zxid {
        return Verdict::Foreign(Difference::EarlierChange(found.zxid));
    }
    known(found)
}

/// Reads the identity of `tree` and compares it with the tree in `memory`, which learns the result.
/// Returns the identity if the tree may be used.
///
/// # Errors
/// Errors of the tree.
pub(crate) async fn identify(tree: &dyn Tree, memory: &TreeMemory) -> Result<Option<FoundTree>, tree::Error> {
    let mut found = FoundTree::read(tree).await?;
    if matches!(memory.compare(&found), Verdict::Foreign(_)) {
        // A server that is behind shows an earlier state. After the response to a transaction, also
        // to one that fails, the server has all earlier writes.
        let wait_for_server = Op::Check { path: layout::tree_id(), version: None };
        match tree.multi(vec![wait_for_server]).await {
            Ok(_) | Err(tree::Error::Multi { .. }) => {}
            Err(error) => return Err(error),
        }
        found = FoundTree::read(tree).await?;
    }
    match memory.compare(&found) {
        Verdict::Known(mark) => memory.accept(Some(mark)).await,
        Verdict::Unnamed => memory.accept(None).await,
        Verdict::Foreign(difference) => {
            memory.reject(tree.root(), difference);
            return Ok(None);
        }
    }
    Ok(Some(found))
}

/// A tree that is not the one a daemon remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignTree {
    /// Root of the tree at the server.
    pub root: TreePath,
    /// The tree that the daemon remembers.
    pub remembered: TreeMark,
    /// The difference.
    pub difference: Difference,
}

impl fmt::Display for ForeignTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root, remembered: TreeMark { id, term, zxid, .. }, difference } = self;
        match difference {
            Difference::Empty => write!(
                f,
                "ZooKeeper lost its data, or storm.zookeeper.servers or storm.zookeeper.root leads to another tree: \
                 the tree at {root} is empty, and this daemon belongs to tree {id} (term {term})"
            ),
            Difference::NoId => write!(
                f,
                "ZooKeeper has another tree: the tree at {root} has no /tree-id, and this daemon belongs to tree \
                 {id} (term {term})"
            ),
            Difference::OtherId(found) => write!(
                f,
                "ZooKeeper has another tree: the tree at {root} has the id {found}, and this daemon belongs to tree \
                 {id} (term {term})"
            ),
            Difference::EarlierTerm(found) => write!(
                f,
                "ZooKeeper has another tree, an older copy: the tree at {root} is in term {found}, and this daemon \
                 saw term {term} of tree {id}"
            ),
            Difference::EarlierChange(found) => write!(
                f,
                "ZooKeeper has another tree, an older copy: /tree-id at {root} was last changed by transaction \
                 {found:#x}, and this daemon saw transaction {zxid:#x} of tree {id}"
            ),
        }?;
        f.write_str(". Nothing is changed, and workers keep running")
    }
}

impl ForeignTree {
    /// Returns advice for an operator.
    pub fn advice(&self) -> &'static str {
        match self.difference {
            Difference::Empty | Difference::NoId => {
                "correct storm.zookeeper.servers and storm.zookeeper.root, or bring the data of ZooKeeper back; if \
                 the data is lost: `stormkeeper recover` (docs/operations/disaster.md, ZooKeeper lost its data)"
            }
            Difference::OtherId(_) => {
                "correct storm.zookeeper.servers and storm.zookeeper.root; if a new nimbus began this tree after the \
                 data was lost: `stormkeeper recover` (docs/operations/disaster.md, ZooKeeper lost its data)"
            }
            Difference::EarlierTerm(_) | Difference::EarlierChange(_) => {
                "bring the latest data of ZooKeeper back, or bring this copy up to date with `stormkeeper recover` \
                 (docs/operations/disaster.md, ZooKeeper lost its data)"
            }
        }
    }
}

#[cfg(test)]
mod tests;
