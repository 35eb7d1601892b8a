//! Writes of `/tree-id`, by the leader only.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, info};

use crate::{
    cluster::{
        layout,
        record::{self, UnknownFields},
        tree_id::{self, FoundTree, TreeIdentity, TreeMemory, Verdict},
    },
    election::{FencedWriter, WriteError},
    tree::{CreateMode, Op, ReadTree, Scope},
};
use stormkeeper_model::Term;

/// Period of writing `/tree-id`: a copy of the tree that is older than this is recognised.
const PERIOD: Duration = Duration::from_secs(60);

/// Shortest time between two writes for changes of topologies.
const SHORTEST: Duration = Duration::from_secs(1);

/// Returns the operation that writes the identity of the tree in `term`. Only a nimbus that remembers
/// no tree creates a new id. `None` if a newer build wrote the record: it stays.
pub(super) fn write(found: &FoundTree, memory: &TreeMemory, term: Term) -> Option<Op> {
    if found.is_newer {
        return None;
    }
    let identity = found.identity.clone().unwrap_or_else(|| {
        let remembered = memory.mark().map(|mark| mark.id);
        TreeIdentity {
            id: remembered.unwrap_or_else(tree_id::random_id),
            term,
            succeeds: Vec::new(),
            unknown_fields: UnknownFields::new(),
        }
    });
    let data = record::encode(&TreeIdentity { term, ..identity });
    let path = layout::tree_id();
    Some(match found.version {
        Some(version) => Op::Set { path, data, version: Some(version) },
        None => Op::Create { path, data, mode: CreateMode::Persistent },
    })
}

/// Writes `/tree-id` once a minute in the term of `writer` and after each submit or end of a topology, so
/// that a copy of the tree without the change is recognised, and puts it back at once if it was deleted or
/// damaged. Ends when the term is over.
pub async fn keep_tree_id(writer: FencedWriter, tree: Arc<dyn ReadTree>, memory: TreeMemory) {
    let mut changes = tree.watch(&layout::tree_id(), Scope::Node);
    let mut topologies = tree.watch(&layout::storms(), Scope::Node);
    let mut due = tokio::time::interval(PERIOD);
    due.reset();
    let mut written = Instant::now();
    loop {
        let is_due = tokio::select! {
            biased;
            // Cancel-safe: a tick that is not returned is still due, a change stays pending.
            _tick = due.tick() => true,
            _changes = changes.changed() => false,
            _changes = topologies.changed() => {
                tokio::time::sleep_until(written + SHORTEST).await;
                true
            }
        };
        let found = match FoundTree::read(&*tree).await {
            Ok(found) => found,
            Err(error) => {
                debug!(%error, "could not read /tree-id; retrying in a minute");
                continue;
            }
        };
        let is_missing = found.identity.is_none();
        if !(is_due || is_missing) || matches!(memory.compare(&found), Verdict::Foreign(_)) {
            continue;
        }
        let Some(op) = write(&found, &memory, writer.term()) else { continue };
        match writer.commit(vec![op]).await {
            Ok(_) => written = Instant::now(),
            Err(WriteError::Deposed { .. }) => return,
            Err(error) => info!(%error, "could not write /tree-id; retrying in a minute"),
        }
    }
}
