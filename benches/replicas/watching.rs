//! Waits for changes of the tree, with the time of each.

use std::time::Duration;

use stormkeeper_coordination::tree::{Node, Scope, Tree, TreePath};
use stormkeeper_model::clock::{Clock, Monotonic};

/// Timeout of every wait, longer than anything that is measured.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(300);

/// Waits until `found` returns a value for the znode at `path` or for its absence. Returns the
/// value and the time at which it was seen: one delivery of a watch and one read after the change.
pub(crate) async fn until<T>(
    tree: &dyn Tree,
    clock: &Clock,
    path: &TreePath,
    mut found: impl FnMut(Option<&Node>) -> Option<T>,
) -> (T, Monotonic) {
    let mut watcher = tree.watch(path, Scope::Node);
    let seen = async {
        loop {
            let node = tree.get(path).await.expect("a response of the tree");
            if let Some(found) = found(node.as_ref()) {
                return (found, clock.monotonic());
            }
            watcher.changed().await;
        }
    };
    match tokio::time::timeout(WAIT_MAX, seen).await {
        Ok(seen) => seen,
        Err(_) => panic!("timed out after {WAIT_MAX:?}: no expected change of {path}"),
    }
}

/// Waits until there is no znode at `path`.
pub(crate) async fn until_gone(tree: &dyn Tree, clock: &Clock, path: &TreePath) -> Monotonic {
    until(tree, clock, path, |node| node.is_none().then_some(())).await.1
}
