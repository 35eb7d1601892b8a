//! What every [`Tree`] must do, as cases that run over any of them.
//!
//! Each case gets a tree of its own, empty but for the root, and opens as many sessions on
//! it as it needs. The same list runs over the memory tree, a faulty tree without faults,
//! and a real ZooKeeper; a case that holds for one only is a defect of the other.

mod many;
mod multi;
mod nodes;
mod sequences;
mod sessions;
mod watches;

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};

use crate::tree::{Changes, CreateMode, Error, Node, Tree, TreePath, Version, Watcher};

/// How long a change may take to reach a watcher; reached only when it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A way to open connected sessions on one fresh tree.
pub struct Sessions {
    open: Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Tree>> + Send + Sync>,
}

impl Sessions {
    /// Sessions that `open` makes; each must be connected when it is answered.
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

/// One thing that every tree must do.
pub struct Case {
    /// What it is, as a sentence.
    pub name: &'static str,
    /// Panics when the tree does not do it.
    pub run: fn(Sessions) -> BoxFuture<'static, ()>,
}

/// Lists the functions of the named modules as cases.
macro_rules! cases {
    ($($module:ident: $($case:ident)*;)*) => {
        vec![$($(Case { name: stringify!($case), run: |sessions| $module::$case(sessions).boxed() },)*)*]
    };
}

/// Every case.
pub fn cases() -> Vec<Case> {
    cases! {
        nodes:
            a_created_node_is_read_back
            a_node_is_created_once
            a_node_needs_its_parent
            the_root_is_there_and_stays
            a_missing_node_reads_as_none
            children_are_listed_in_order
            any_bytes_and_names_are_kept
            writes_count_versions
            a_write_needs_the_expected_version
            a_missing_node_is_not_written
            a_deletion_removes_the_node
            a_deletion_looks_at_the_version_before_the_children
            versions_start_over_with_a_new_node
            transactions_are_numbered_in_order
            children_do_not_change_their_parents_version
            a_payload_may_be_as_large_as_the_limit
            an_oversized_payload_is_refused_and_harms_nothing;
        sequences:
            digits_count_up_from_zero
            digits_count_every_creation_and_no_deletion
            digits_start_over_with_a_new_parent
            an_ephemeral_can_have_digits;
        multi:
            a_multi_does_all_of_its_operations
            an_empty_multi_does_nothing
            a_failed_multi_does_nothing_and_says_where
            each_kind_of_failure_names_its_operation
            operations_see_those_before_them
            digits_in_a_multi_are_answered
            znodes_of_one_multi_share_their_transaction
            a_check_without_a_version_needs_the_node
            an_oversized_multi_is_refused_and_harms_nothing
            the_root_cannot_be_deleted_in_a_multi;
        sessions:
            sessions_see_each_other
            an_ephemeral_shows_its_owner
            an_ephemeral_has_no_children
            an_ephemeral_belongs_to_one_session
            anyone_may_delete_an_ephemeral
            ephemerals_go_when_their_session_closes
            a_closed_session_refuses_everything;
        many:
            many_nodes_are_read_in_the_order_asked
            more_nodes_than_a_batch_are_read
            nothing_is_read_for_nothing
            a_subtree_is_deleted_and_counted
            the_whole_tree_can_be_emptied
            ensure_creates_what_is_missing;
        watches:
            the_first_answer_is_everything
            a_node_watch_hears_its_node_alone
            a_node_watch_outlives_its_node
            a_subtree_watch_hears_everything_below
            a_subtree_watch_of_the_root_hears_all
            a_watch_hears_its_own_session
            every_operation_of_a_multi_is_heard
            a_failed_write_is_not_heard
            watchers_of_one_path_share_and_part
            both_scopes_at_one_path_hear_their_own
            a_node_watch_below_a_subtree_watch_hears_its_own
            a_path_can_be_watched_again
            ephemerals_that_go_are_heard
            a_closed_session_wakes_its_watchers;
    }
}

/// Runs every case, each on a tree of its own that `fresh` makes for the case's name.
///
/// # Panics
/// When cases fail, with their names.
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

/// Reads a node that must be there.
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

/// Waits for a watcher's next answer.
async fn changed(watcher: &mut Watcher) -> Changes {
    tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("the watcher hears something")
}

/// Waits until a watcher says that everything may have changed.
async fn expect_everything(watcher: &mut Watcher) {
    while changed(watcher).await != Changes::Everything {}
}

/// Waits until a watcher has been told of every path in `wanted`, and of no other.
async fn expect_paths(watcher: &mut Watcher, wanted: &[&str]) {
    let wanted = wanted.iter().map(|text| path(text)).collect();
    let mut told = std::collections::BTreeSet::new();
    while !told.is_superset(&wanted) {
        match tokio::time::timeout(PATIENCE, watcher.changed()).await {
            Ok(Changes::Paths(paths)) => told.extend(paths),
            Ok(Changes::Everything) => panic!("told of everything, after {told:?}"),
            Err(_) => panic!("told of {told:?} alone, not of all of {wanted:?}"),
        }
    }
    assert_eq!(told, wanted, "told of more than happened");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::memory::MemoryTree;

    #[tokio::test]
    async fn the_memory_tree_keeps_the_contract() {
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
