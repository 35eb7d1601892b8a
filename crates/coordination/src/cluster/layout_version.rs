//! Version of the layout: the znode `/layout`, and its check.
//!
//! The first nimbus creates `/layout` in an empty tree, before any other znode. A tree with other
//! znodes and without `/layout` was written by an earlier build or by another program, and a tree
//! with another number by another build: both are refused and not changed.

use serde::{Deserialize, Serialize};

use crate::{
    cluster::{
        layout::{self, LAYOUT_VERSION},
        record::{self, UnknownFields},
    },
    tree::{self, CreateMode, ReadTree, Tree, TreePath, WriteOutcome},
};

/// Top-level znodes of layout 1 that later layouts do not have.
const FORMER: &[&str] = &["archive", "orders"];

/// Maximum number of znodes that a message lists.
const LISTED_MAX: usize = 20;

/// Number of attempts to create `/layout`: the first may lose its reply or the race against
/// another nimbus, and the znode exists afterwards.
const CREATE_TRIES: usize = 3;

/// `/layout`: version of the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Version of the paths and of the meaning of the records.
    pub layout: u32,
    /// Version of the program that created the tree.
    pub created_by: String,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// State of a tree that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeState {
    /// The tree has the layout of this build.
    Ready,
    /// The tree is empty: the first nimbus has not created `/layout` yet.
    Empty,
}

/// Reason why a tree is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The tree has znodes and no `/layout`.
    #[error(
        "the ZooKeeper tree at {root} has no /layout, and holds {}: {}; this build needs layout {LAYOUT_VERSION} \
         or an empty root. Set another storm.zookeeper.root on all hosts{}. Nothing was changed",
        list(found),
        Author::of(found).text(),
        Author::of(found).advice(root)
    )]
    Unversioned {
        /// Root of the tree at the server.
        root: TreePath,
        /// The top-level znodes.
        found: Vec<String>,
    },
    /// The tree has another layout.
    #[error(
        "the ZooKeeper tree at {root} has layout {found}, and this build has layout {LAYOUT_VERSION}: {}. \
         Nothing was changed",
        advice(*found, root)
    )]
    OtherVersion {
        /// Root of the tree at the server.
        root: TreePath,
        /// Version of its layout.
        found: u32,
    },
    /// The layout cannot be read.
    #[error(
        "the ZooKeeper tree at {root} has an invalid /layout ({reason}): restore it in zkCli, for layout \
         {LAYOUT_VERSION} with: set {}/layout '{{\"v\":1,\"layout\":{LAYOUT_VERSION},\"created_by\":\"hand\"}}', \
         or set another storm.zookeeper.root on all hosts. Nothing was changed",
        root.as_str().trim_end_matches('/')
    )]
    Invalid {
        /// Root of the tree at the server.
        root: TreePath,
        /// Defect of the data.
        reason: String,
    },
}

/// Error of a check.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The tree could not be read or written; check again.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The tree must not be used.
    #[error(transparent)]
    Refused(#[from] Refused),
}

fn list(found: &[String]) -> String {
    let n_more = found.len().saturating_sub(LISTED_MAX);
    let listed = found.iter().take(LISTED_MAX).map(|name| format!("/{name}")).collect::<Vec<_>>().join(", ");
    if n_more == 0 { listed } else { format!("{listed} and {n_more} more") }
}

/// Presumed author of a tree without `/layout`.
enum Author {
    EarlierBuild,
    EarlierBuildOrStorm,
    Other,
}

impl Author {
    fn of(found: &[String]) -> Self {
        let top_level = layout::top_level();
        match found.iter().any(|name| FORMER.contains(&&**name)) {
            true => Self::EarlierBuild,
            false if found.iter().any(|name| top_level.iter().any(|ours| ours.name() == name)) => {
                Self::EarlierBuildOrStorm
            }
            false => Self::Other,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::EarlierBuild => "an earlier, unreleased build wrote it (layout 1)",
            Self::EarlierBuildOrStorm => "an earlier, unreleased build or Apache Storm wrote it",
            Self::Other => "another program uses it",
        }
    }

    /// Advice beyond another root. A tree that may be another program's is never to be removed.
    fn advice(&self, root: &TreePath) -> String {
        match self {
            Self::EarlierBuild if !root.is_root() => format!(
                ", or stop all daemons and workers and remove the old tree in zkCli: deleteall {root}"
            ),
            Self::EarlierBuildOrStorm => format!(
                ", or, if the /layout of this cluster was deleted, restore it in zkCli: create {}/layout \
                 '{{\"v\":1,\"layout\":{LAYOUT_VERSION},\"created_by\":\"hand\"}}'",
                root.as_str().trim_end_matches('/')
            ),
            Self::EarlierBuild | Self::Other => String::new(),
        }
    }
}

fn advice(found: u32, root: &TreePath) -> String {
    match found > LAYOUT_VERSION {
        true => "this build is too old; run the build that wrote the tree, or a newer one".to_owned(),
        false => format!(
            "it is newer than the tree; run the build that wrote the tree, or set another storm.zookeeper.root \
             on all hosts{}",
            Author::EarlierBuild.advice(root)
        ),
    }
}

/// Checks that this build may use `tree`.
///
/// # Errors
/// [`Refused`], and errors of the tree.
pub async fn check<T: ReadTree + ?Sized>(tree: &T) -> Result<TreeState, Error> {
    // The layout is read last: it is created first, so a tree with other znodes has it.
    let found = tree.children(&TreePath::root()).await?.unwrap_or_default();
    let root = tree.root().clone();
    match tree.get(&layout::layout()).await? {
        None if found.is_empty() => Ok(TreeState::Empty),
        None => Err(Refused::Unversioned { root, found }.into()),
        Some(node) => Ok(check_data(root, &node.data).map(|()| TreeState::Ready)?),
    }
}

/// Checks the data of `/layout`.
///
/// # Errors
/// [`Refused`] if this build must not use the tree.
pub fn check_data(root: TreePath, data: &[u8]) -> Result<(), Refused> {
    match version(data) {
        Ok(LAYOUT_VERSION) => Ok(()),
        Ok(found) => Err(Refused::OtherVersion { root, found }),
        Err(reason) => Err(Refused::Invalid { root, reason }),
    }
}

/// Reads the version alone, so that a later layout may change everything else in the record.
fn version(data: &[u8]) -> Result<u32, String> {
    #[derive(Deserialize)]
    struct Version {
        layout: u32,
    }
    serde_json::from_slice::<Version>(data).map(|read| read.layout).map_err(|error| error.to_string())
}

/// Checks that this build may use `tree`, and creates `/layout` if the tree is empty. Only a nimbus
/// calls this.
///
/// # Errors
/// [`Refused`], and errors of the tree.
pub async fn establish(tree: &dyn Tree) -> Result<(), Error> {
    let mut lost = None;
    for _ in 0..CREATE_TRIES {
        match check(tree).await? {
            TreeState::Ready => return Ok(()),
            TreeState::Empty => {}
        }
        let created_by = env!("CARGO_PKG_VERSION").to_owned();
        let data = record::encode(&Layout {
            layout: LAYOUT_VERSION,
            created_by,
            unknown_fields: UnknownFields::new(),
        });
        match tree.create(&layout::layout(), &data, CreateMode::Persistent).await {
            Ok(_) => {
                tracing::info!(root = %tree.root(), layout = LAYOUT_VERSION, "created /layout in an empty tree");
                return Ok(());
            }
            // Another nimbus was faster: its layout is read next.
            Err(tree::Error::NodeExists { .. }) => {}
            // The reply may be lost: the layout is read next.
            Err(error) if error.outcome() == WriteOutcome::Unknown => lost = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    // Only a znode that appears and disappears again and again leads here.
    Err(lost.unwrap_or(tree::Error::NoNode { path: layout::layout() }).into())
}

#[cfg(test)]
mod tests;
