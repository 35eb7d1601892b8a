//! Test suite of every [`Tree`].
//!
//! Each case gets a tree of its own, empty except for the root, and opens sessions on it as needed.
//! The same cases run over the memory tree, a faulty tree without faults, and a real ZooKeeper. If
//! a case passes on one tree only, the other tree has a bug.

mod many;
mod multi;
mod nodes;
mod sequences;
mod sessions;
mod watches;

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};

use crate::tree::{Changes, CreateMode, Error, Node, Tree, TreePath, Version, Watcher};

/// Maximum time for a change to reach a watcher; only a failing case waits this long.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Opens connected sessions on one fresh tree.
pub struct Sessions {
    open: Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Tree>> + Send + Sync>,
}

impl Sessions {
    /// Wraps `open`, which must return connected sessions.
    pub fn new<F, Fut>(open: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Arc<dyn Tree>> + Send + 'static,
    {
        Self { open: Box::new(move || open().boxed()) }
    }

    /// Opens one more session.
    pub async fn open(&self) -> Arc<dyn Tree> {
        (self.open)().await
    }
}

/// A required behaviour of every tree.
pub struct Case {
    /// Name of the case: condition and result.
    pub name: &'static str,
    /// The test; panics if the tree behaves differently.
    pub run: fn(Sessions) -> BoxFuture<'static, ()>,
}

/// Lists the functions of the named modules as cases.
macro_rules! cases {
    ($($module:ident: $($case:ident)*;)*) => {
        vec![$($(Case { name: stringify!($case), run: |sessions| $module::$case(sessions).boxed() },)*)*]
    };
}

/// Returns every case.
pub fn cases() -> Vec<Case> {
    cases! {
        nodes:
            a_created_node_is_read_back
            a_node_is_created_once
            a_node_needs_its_parent
            root_exists_and_cannot_be_created_or_deleted
            a_missing_node_reads_as_none
            children_are_listed_in_order
            any_bytes_and_names_are_kept
            each_write_increments_the_version
            a_write_needs_the_expected_version
            a_missing_node_is_not_written
            a_deletion_removes_the_node
            deletion_checks_the_version_before_the_children
            versions_start_over_with_a_new_node
            transactions_are_numbered_in_order
            children_do_not_change_their_parents_version
            a_payload_may_be_as_large_as_the_limit
            oversized_payload_is_rejected_and_the_connection_survives;
        sequences:
            digits_count_up_from_zero
            digits_count_every_creation_and_no_deletion
            digits_start_over_with_a_new_parent
            an_ephemeral_can_have_digits;
        multi:
            multi_applies_all_operations
            empty_multi_has_no_effect
            failed_multi_has_no_effect_and_names_the_operation
            each_kind_of_failure_names_its_operation
            operations_see_the_effects_of_earlier_operations
            multi_returns_the_digits_of_sequential_names
            znodes_of_one_multi_share_their_transaction
            a_check_without_a_version_needs_the_node
            oversized_multi_is_rejected_and_the_connection_survives
            the_root_cannot_be_deleted_in_a_multi;
        sessions:
            sessions_see_each_other
            an_ephemeral_shows_its_owner
            an_ephemeral_has_no_children
            an_ephemeral_belongs_to_one_session
            anyone_may_delete_an_ephemeral
            ephemerals_are_deleted_when_their_session_closes
            closed_session_rejects_every_request;
        many:
            many_nodes_are_read_in_the_order_asked
            more_nodes_than_a_batch_are_read
            empty_request_returns_nothing
            subtree_is_deleted_and_counted
            the_whole_tree_can_be_emptied
            ensure_creates_missing_nodes_and_keeps_existing_data;
        watches:
            first_report_is_everything
            node_watch_reports_its_node_only
            a_node_watch_outlives_its_node
            subtree_watch_reports_all_changes_at_or_below_its_path
            subtree_watch_of_the_root_reports_all_changes
            watch_reports_changes_of_its_own_session
            every_operation_of_a_multi_is_reported
            failed_write_is_not_reported
            watchers_of_one_path_are_woken_until_they_are_dropped
            both_scopes_at_one_path_report_their_own_changes
            node_watch_below_a_subtree_watch_reports_its_own_changes
            a_path_can_be_watched_again
            deleted_ephemerals_are_reported
            a_closed_session_wakes_its_watchers;
    }
}

/// Runs every case, each on a new tree that `fresh` makes for the case's name.
///
/// # Panics
/// If cases fail, with their names.
pub async fn run_all<F, Fut>(fresh: F)
where
    F: Fn(&'static str) -> Fut,
    Fut: Future<Output = Sessions>,
{
    let mut failed = Vec::new();
    for case in cases() {
        let sessions = fresh(case.name).await;
        if AssertUnwindSafe((case.run)(sessions)).catch_unwind().await.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{} cases of the contract failed: {failed:?}", failed.len());
}

fn path(text: &str) -> TreePath {
    text.parse().expect("the contract uses valid paths")
}

async fn create(tree: &Arc<dyn Tree>, at: &str) {
    create_as(tree, at, CreateMode::Persistent).await;
}

async fn create_as(tree: &Arc<dyn Tree>, at: &str, mode: CreateMode) -> String {
    let created = tree.create(&path(at), b"", mode).await;
    created.unwrap_or_else(|error| panic!("{at} is not created: {error}")).to_string()
}

async fn write(tree: &Arc<dyn Tree>, at: &str, data: &[u8]) -> Version {
    tree.set(&path(at), data, None).await.unwrap_or_else(|error| panic!("{at} is not written: {error}"))
}

async fn delete(tree: &Arc<dyn Tree>, at: &str) {
    tree.delete(&path(at), None).await.unwrap_or_else(|error| panic!("{at} is not deleted: {error}"));
}

async fn read(tree: &Arc<dyn Tree>, at: &str) -> Option<Node> {
    tree.get(&path(at)).await.unwrap_or_else(|error| panic!("{at} is not read: {error}"))
}

/// Reads a node that must exist.
async fn found(tree: &Arc<dyn Tree>, at: &str) -> Node {
    read(tree, at).await.unwrap_or_else(|| panic!("{at} is not there"))
}

async fn children(tree: &Arc<dyn Tree>, at: &str) -> Vec<String> {
    let children = tree.children(&path(at)).await.unwrap_or_else(|error| panic!("{at} is not read: {error}"));
    children.unwrap_or_else(|| panic!("{at} is not there"))
}

fn no_node(at: &str) -> Error {
    Error::NoNode { path: path(at) }
}

fn node_exists(at: &str) -> Error {
    Error::NodeExists { path: path(at) }
}

fn bad_version(at: &str) -> Error {
    Error::BadVersion { path: path(at) }
}

fn not_empty(at: &str) -> Error {
    Error::NotEmpty { path: path(at) }
}

/// Waits for a watcher's next report.
async fn changed(watcher: &mut Watcher) -> Changes {
    tokio::time::timeout(WAIT_MAX, watcher.changed()).await.expect("the watcher reports a change")
}

/// Waits until a watcher reports that everything may have changed.
async fn expect_everything(watcher: &mut Watcher) {
    while changed(watcher).await != Changes::Everything {}
}

/// Waits until a watcher has reported every path in `wanted`, and no other path.
async fn expect_paths(watcher: &mut Watcher, wanted: &[&str]) {
    let wanted = wanted.iter().map(|text| path(text)).collect();
    let mut reported = std::collections::BTreeSet::new();
    while !reported.is_superset(&wanted) {
        match tokio::time::timeout(WAIT_MAX, watcher.changed()).await {
            Ok(Changes::Paths(paths)) => reported.extend(paths),
            Ok(Changes::Everything) => panic!("everything was reported, after {reported:?}"),
            Err(_) => panic!("only {reported:?} was reported, not all of {wanted:?}"),
        }
    }
    assert_eq!(reported, wanted, "paths were reported that did not change");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::memory::MemoryTree;

    #[tokio::test]
    async fn memory_tree_satisfies_the_contract() {
        run_all(async |_| {
            let server = MemoryTree::new();
            Sessions::new(move || {
                let session: Arc<dyn Tree> = server.connect();
                async move { session }
            })
        })
        .await;
    }
}
