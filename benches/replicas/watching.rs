//! Waiting for the tree to say something, and noting when it did.

use std::time::Duration;

use stormkeeper_coordination::tree::{Node, Scope, Tree, TreePath};
use stormkeeper_model::clock::{Clock, Monotonic};

/// Longer than anything that is measured; what takes so long does not happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until `found` finds what it wants in the znode at `path`, or in its absence, and
/// says when that was seen: a watch's delivery and one read after it happened.
pub(crate) async fn until<T>(
    tree: &dyn Tree,
    clock: &Clock,
    path: &TreePath,
    mut found: impl FnMut(Option<&Node>) -> Option<T>,
) -> (T, Monotonic) {
    let mut watcher = tree.watch(path, Scope::Node);
    let seen = async {
        loop {
            let node = tree.get(path).await.expect("the tree answers");
            if let Some(found) = found(node.as_ref()) {
                return (found, clock.monotonic());
            }
            watcher.changed().await;
        }
    };
    match tokio::time::timeout(PATIENCE, seen).await {
        Ok(seen) => seen,
        Err(_) => panic!("waited {PATIENCE:?} in vain for a change of {path}"),
    }
}

/// Waits until nothing is at `path`.
pub(crate) async fn until_gone(tree: &dyn Tree, clock: &Clock, path: &TreePath) -> Monotonic {
    until(tree, clock, path, |node| node.is_none().then_some(())).await.1
}
