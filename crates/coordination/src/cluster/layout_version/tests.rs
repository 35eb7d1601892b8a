use super::*;
use crate::{
    cluster::store::Store,
    tree::{
        faulty::{FaultPlan, FaultyTree, TreeFault},
        memory::MemoryTree,
    },
};

async fn tree_with(znodes: &[(&str, &str)]) -> MemoryTree {
    let server = MemoryTree::new();
    for (path, data) in znodes {
        let path = path.parse().expect("valid path");
        server.connect().create(&path, data.as_bytes(), CreateMode::Persistent).await.expect("created");
    }
    server
}

/// Asserts that the tree is refused by all checks with a message that contains all of `expected`,
/// and stays as it is.
async fn expect_refused(znodes: &[(&str, &str)], expected: &[&str]) {
    let server = tree_with(znodes).await;
    let tree = server.connect();
    let before = server.n_nodes();
    let as_reader = check(&*tree).await.expect_err("refused").to_string();
    let as_nimbus = establish(&*tree).await.expect_err("refused").to_string();
    let by_store = Store::new(tree).ensure_layout().await.expect_err("refused").to_string();
    assert!(as_reader == as_nimbus && as_reader == by_store, "{as_reader}\n{as_nimbus}\n{by_store}");
    for text in expected {
        assert!(as_reader.contains(text), "{text:?} is not in {as_reader:?}");
    }
    assert_eq!(server.n_nodes(), before);
}

#[tokio::test]
async fn empty_tree_gets_a_layout_and_is_ready_afterwards() {
    let server = MemoryTree::new();
    let tree = server.connect();
    assert_eq!(check(&*tree).await.expect("read"), TreeState::Empty);
    establish(&*tree).await.expect("created");
    assert_eq!(check(&*tree).await.expect("read"), TreeState::Ready);
    establish(&*tree).await.expect("there");
    let data = tree.get(&layout::layout()).await.expect("read").expect("there").data;
    let text = String::from_utf8_lossy(&data).into_owned();
    assert!(text.starts_with(r#"{"v":1,"layout":2,"created_by":""#), "{text}");
}

#[tokio::test]
async fn tree_of_an_earlier_build_is_refused_and_not_changed() {
    let znodes = [("/orders", ""), ("/archive", "{}"), ("/storms", "")];
    let expected = ["/archive, /orders, /storms", "layout 1", "layout 2", "storm.zookeeper.root"];
    expect_refused(&znodes, &expected).await;
    expect_refused(&[("/storms", "")], &["/storms", "an earlier, unreleased build or Apache Storm"]).await;
}

#[tokio::test]
async fn tree_of_another_program_is_refused() {
    expect_refused(&[("/brokers", "")], &["/brokers", "another program"]).await;
}

#[tokio::test]
async fn message_about_a_tree_of_others_does_not_tell_to_delete_it() {
    for foreign in [["/word-count-1-1754000000"], ["/config"], ["/storms"]] {
        let server = tree_with(&foreign.map(|path| (path, ""))).await;
        let refused = check(&*server.connect()).await.expect_err("refused").to_string();
        assert!(!refused.contains("deleteall"), "{refused}");
    }
}

#[tokio::test]
async fn tree_of_another_layout_is_refused_and_the_older_side_is_named() {
    let newer = [("/layout", r#"{"v":7,"layout":3}"#), ("/storms", "")];
    expect_refused(&newer, &["has layout 3", "has layout 2", "this build is too old"]).await;
    expect_refused(&[("/layout", r#"{"v":1,"layout":1}"#)], &["has layout 1", "newer than the tree"]).await;
    for invalid in ["", "2", "{}", r#"{"layout":"two"}"#] {
        expect_refused(&[("/layout", invalid)], &["invalid /layout", "set /layout '{\"v\":1,\"layout\":2"])
            .await;
    }
}

#[tokio::test]
async fn two_nimbuses_at_once_create_one_layout() {
    let server = MemoryTree::new();
    let (a, b) = (server.connect(), server.connect());
    let created = tokio::join!(establish(&*a), establish(&*b));
    assert!(created.0.is_ok() && created.1.is_ok(), "{created:?}");
    assert_eq!(server.n_nodes(), 2);

    // The other nimbus creates the layout between the check and the creation of this nimbus.
    let server = tree_with(&[("/layout", r#"{"v":1,"layout":2}"#)]).await;
    let refused = TreeFault::Refused(tree::Error::NodeExists { path: layout::layout() });
    let tree = FaultyTree::new(server.connect(), FaultPlan::none().fail_nth_write(1, refused));
    establish(&*tree).await.expect("there");
}

#[tokio::test]
async fn lost_reply_or_request_of_the_creation_is_resolved_by_reading() {
    for fault in [TreeFault::LostResponse, TreeFault::LostRequest] {
        let server = MemoryTree::new();
        let tree = FaultyTree::new(server.connect(), FaultPlan::none().fail_nth_write(1, fault));
        establish(&*tree).await.expect("created");
        assert_eq!(check(&*server.connect()).await.expect("read"), TreeState::Ready);
    }
}

#[test]
fn long_list_of_znodes_is_shortened() {
    let found: Vec<String> = (0..25).map(|n| format!("n{n}")).collect();
    let text = list(&found);
    assert!(text.ends_with("/n19 and 5 more"), "{text}");
}

#[tokio::test]
async fn fields_of_a_newer_build_are_ignored() {
    let server = tree_with(&[("/layout", r#"{"v":1,"layout":2,"colour":"blue"}"#)]).await;
    assert_eq!(check(&*server.connect()).await.expect("read"), TreeState::Ready);
}
