use super::*;
use crate::tree::memory::MemoryTree;
use stormkeeper_model::{Port, Timestamp};

fn topology() -> TopologyId {
    "wc-1-100".parse().expect("valid id")
}

fn error(task: u32, time: u64, message: &str) -> TaskError {
    TaskError {
        component: "split".parse().expect("valid id"),
        task: TaskId(task),
        time: Timestamp::from_millis(time),
        host: "h".to_owned(),
        port: Port(6700),
        message: message.to_owned(),
        stack: String::new(),
    }
}

/// Returns a store with a topology whose parent of errors exists, as after a submit.
async fn store() -> Store {
    let store = Store::new(MemoryTree::new().connect());
    store.ensure_layout().await.expect("made");
    store.tree.ensure(&layout::last_errors(&topology())).await.expect("made");
    store
}

fn messages(errors: &[TaskError]) -> Vec<&str> {
    errors.iter().map(|error| error.message.as_str()).collect()
}

#[tokio::test]
async fn newest_ten_errors_of_a_task_are_kept_in_order() {
    let store = store().await;
    for i in 0..15 {
        // All errors have the same millisecond: the order is from the tree, not from the clock.
        store.report_error(&topology(), error(3, 7, &format!("e{i}"))).await.expect("stored");
    }
    let kept = store.errors(&topology(), TaskId(3)).await.expect("readable");
    assert_eq!(messages(&kept), ["e5", "e6", "e7", "e8", "e9", "e10", "e11", "e12", "e13", "e14"]);
    let last = store.last_errors(&topology()).await.expect("readable");
    assert_eq!(last[&"split".parse::<ComponentId>().expect("valid id")].message, "e14");
}

#[tokio::test]
async fn conflicting_reporters_lose_no_error() {
    let store = store().await;
    let reports = (0..8).map(|i| {
        let store = store.clone();
        async move { store.report_error(&topology(), error(i % 2, 7, &format!("e{i}"))).await }
    });
    for report in futures_util::future::join_all(reports).await {
        report.expect("stored");
    }
    let mut n_kept = 0;
    for task in [TaskId(0), TaskId(1)] {
        n_kept += store.errors(&topology(), task).await.expect("readable").len();
    }
    assert_eq!(n_kept, 8);
}

#[tokio::test]
async fn error_of_a_removed_topology_is_dropped() {
    let store = Store::new(MemoryTree::new().connect());
    store.ensure_layout().await.expect("made");
    store.report_error(&topology(), error(1, 7, "late")).await.expect("dropped");
    assert_eq!(store.tree().children(&layout::taskerrors_parent()).await, Ok(Some(Vec::new())));
}

#[tokio::test]
async fn long_message_is_truncated_at_a_character_boundary() {
    let store = store().await;
    store.report_error(&topology(), error(1, 7, &"é".repeat(10_000))).await.expect("stored");
    let kept = store.errors(&topology(), TaskId(1)).await.expect("readable");
    assert!(kept[0].message.len() < 9_000 && kept[0].message.ends_with("é … (truncated)"));
}

#[tokio::test]
async fn invalid_record_is_an_error_and_a_missing_record_is_none() {
    let store = store().await;
    assert!(store.topology_record(&topology()).await.expect("readable").is_none());
    let path = layout::storm(&topology());
    store.tree.create(&path, b"oops", CreateMode::Persistent).await.expect("created");
    let error = store.topology_record(&topology()).await.expect_err("unreadable");
    assert!(error.to_string().contains("/storms/wc-1-100"), "{error}");
}

#[test]
fn sequence_numbers_order_as_numbers() {
    let mut names = vec!["e0000000010", "e0000000009", "e10000000000", "e-000000001"];
    names.sort_by(|a, b| sequence_order(a).cmp(&sequence_order(b)));
    assert_eq!(names, ["e-000000001", "e0000000009", "e0000000010", "e10000000000"]);
}

#[tokio::test]
async fn announced_stop_is_written_again_and_withdrawn() {
    let store = Store::new(MemoryTree::new().connect());
    let id: SupervisorId = "s1".parse().expect("valid id");
    store.withdraw_stop(&id).await.expect("there is nothing to withdraw");
    for millis in [5, 7] {
        let stopped = StoppedSupervisor {
            host: "h".to_owned(),
            stopped: Timestamp::from_millis(millis),
            unknown_fields: Default::default(),
        };
        // The parent does not exist in the tree of an older build.
        store.announce_stop(&id, &stopped).await.expect("announced");
        let read = store.read::<StoppedSupervisor>(&layout::stopped_supervisor(&id)).await.expect("read");
        assert_eq!(read.map(|stored| stored.value), Some(stopped));
    }
    let stopped = async || store.stopped_supervisors().await.expect("read");
    assert_eq!(stopped().await, [("s1".to_owned(), "h".to_owned())]);
    store.tree.ensure(&layout::supervisor(&id)).await.expect("created");
    assert_eq!(stopped().await, [], "it is back");
    store.withdraw_stop(&id).await.expect("withdrawn");
    assert_eq!(store.tree.children(&layout::stopped_supervisors()).await.expect("read"), Some(vec![]));
}

#[tokio::test]
async fn deleted_parents_are_restored_in_a_tree_with_a_layout_only() {
    let store = Store::new(MemoryTree::new().connect());
    store.restore_parents().await.expect("nothing to do");
    assert_eq!(store.tree.children(&TreePath::root()).await.expect("read"), Some(vec![]));
    store.ensure_layout().await.expect("made");
    store.tree.delete(&layout::assignments(), None).await.expect("deleted");
    store.restore_parents().await.expect("restored");
    assert_eq!(store.tree.children(&layout::assignments()).await.expect("read"), Some(vec![]));
}
