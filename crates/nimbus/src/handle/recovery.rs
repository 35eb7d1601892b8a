//! The tree of this nimbus: whether ZooKeeper has it, and bringing it back.

use std::sync::Arc;

use super::Handle;
use crate::{
    refusal::Refusal,
    tree_copy::{
        CopyFile, TreeCopy,
        restore::{Restore, RestoreError},
    },
};
use stormkeeper_api_types::message::{Recovered, RecoveryStatus};
use stormkeeper_coordination::{
    cluster::tree_id::{ForeignTree, TreeMark, TreeMemory},
    tree::Tree,
};
use stormkeeper_model::{Term, TreeId};
use stormkeeper_runtime::{blocking, error_chain, watch};

/// Access to a tree that this nimbus must not use otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Recovery {
    /// The connection below the check of the identity.
    pub(crate) unchecked: Arc<dyn Tree>,
    pub(crate) memory: TreeMemory,
    pub(crate) copy: CopyFile,
    /// Problems of nimbuses that know another tree.
    pub(crate) elsewhere: watch::Receiver<Vec<String>>,
}

impl Handle {
    /// Returns the tree that ZooKeeper has instead of the tree of this nimbus.
    fn foreign_tree(&self) -> Option<ForeignTree> {
        self.recovery.memory.foreign().borrow().clone()
    }

    /// Returns the id of this nimbus' tree; `None` until an election has given it one.
    pub(crate) fn tree_id(&self) -> Option<TreeId> {
        self.recovery.memory.mark().map(|mark| mark.id)
    }

    /// Describes the nimbuses of `nimbus.seeds` that know another tree.
    pub(crate) fn other_trees(&self) -> Vec<String> {
        self.recovery.elsewhere.borrow().clone()
    }

    /// Checks that ZooKeeper has the tree of this nimbus, as far as the nimbus knows.
    ///
    /// # Errors
    /// [`Refusal::AnotherTree`].
    pub fn own_tree(&self) -> Result<(), Refusal> {
        match self.foreign_tree() {
            None => Ok(()),
            Some(foreign) => Err(Refusal::AnotherTree(Box::new(foreign))),
        }
    }

    /// Returns the difference between ZooKeeper's tree and the tree of this nimbus, with advice.
    pub fn tree_problem(&self) -> Option<String> {
        self.foreign_tree().map(|foreign| format!("{foreign}: {}", foreign.advice()))
    }

    /// Returns what this nimbus could bring back. Changes nothing.
    pub async fn recovery_status(&self) -> RecoveryStatus {
        let copy = self.tree_copy().await;
        let obstacle = match (&copy, self.lost_tree()) {
            (Ok(copy), Ok(remembered)) => {
                let checked = self.restore(copy, &remembered, Term(0)).check().await;
                checked.err().map(|error| error_chain(&error))
            }
            (Err(Refusal::NotRecoverable { reason }), _) => Some(reason.clone()),
            (Err(error), _) => Some(error.to_string()),
            (Ok(_), Err(_)) => None,
        };
        RecoveryStatus {
            nimbus: self.me.clone(),
            tree_problem: self.tree_problem(),
            copy: copy.ok().map(|copy| copy.summary(|key| self.blobs.holds(key))),
            obstacle,
        }
    }

    /// Brings the copy of this nimbus back into ZooKeeper. Terms go on above `seen`.
    ///
    /// # Errors
    /// [`Refusal::NotRecoverable`].
    pub async fn recover(&self, seen: Term) -> Result<Recovered, Refusal> {
        let remembered = self.lost_tree()?;
        let copy = self.tree_copy().await?;
        let restored = self.restore(&copy, &remembered, seen).run().await.map_err(not_recoverable)?;
        Ok(Recovered {
            tree: restored.tree.to_string(),
            term: restored.term,
            topologies: restored.topologies,
        })
    }

    fn lost_tree(&self) -> Result<TreeMark, Refusal> {
        let nothing = || {
            Refusal::NotRecoverable {
            reason: "there is nothing to recover, because ZooKeeper has the tree of this nimbus or cannot be reached"
                .to_owned(),
        }
        };
        self.foreign_tree().map(|foreign| foreign.remembered).ok_or_else(nothing)
    }

    async fn tree_copy(&self) -> Result<TreeCopy, Refusal> {
        let file = self.recovery.copy.clone();
        let copy = blocking::run(move || file.read()).await;
        let reason = match copy {
            Ok(Some(copy)) => return Ok(copy),
            Ok(None) => "it has no copy of the tree".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(Refusal::NotRecoverable { reason })
    }

    fn restore<'a>(&'a self, copy: &'a TreeCopy, remembered: &'a TreeMark, seen: Term) -> Restore<'a> {
        Restore { tree: &*self.recovery.unchecked, copy, remembered, seen, me: &self.me }
    }
}

fn not_recoverable(error: RestoreError) -> Refusal {
    Refusal::NotRecoverable { reason: error_chain(&error) }
}
