//! Single znodes: create, read, write, delete.

use super::*;
use crate::tree::{MAX_NODE_BYTES, SessionState};

pub(super) async fn a_created_node_is_read_back(sessions: Sessions) {
    let tree = sessions.open().await;
    let created = tree.create(&path("/a"), b"hello", CreateMode::Persistent).await;
    assert_eq!(created, Ok(path("/a")));
    let node = found(&tree, "/a").await;
    assert_eq!(&*node.data, b"hello");
    assert_eq!((node.stat.version, node.stat.owner, node.stat.n_children), (Version::FIRST, None, 0));
    assert!(node.stat.created > 0 && node.stat.modified == node.stat.created);
}

pub(super) async fn a_node_is_created_once(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    let again = tree.create(&path("/a"), b"other", CreateMode::Persistent).await;
    assert_eq!(again, Err(node_exists("/a")));
    assert_eq!(&*found(&tree, "/a").await.data, b"");
}

pub(super) async fn a_node_needs_its_parent(sessions: Sessions) {
    let tree = sessions.open().await;
    for mode in [CreateMode::Persistent, CreateMode::Ephemeral] {
        assert_eq!(tree.create(&path("/a/b"), b"", mode).await, Err(no_node("/a/b")));
    }
    let sequential = tree.create(&path("/a/b"), b"", CreateMode::PersistentSequential).await;
    assert_eq!(sequential, Err(no_node("/a/b")));
}

pub(super) async fn root_exists_and_cannot_be_created_or_deleted(sessions: Sessions) {
    let tree = sessions.open().await;
    assert_eq!(found(&tree, "/").await.stat.n_children, 0);
    assert_eq!(children(&tree, "/").await, Vec::<String>::new());
    let root = TreePath::root();
    assert_eq!(tree.create(&root, b"", CreateMode::Persistent).await, Err(node_exists("/")));
    let sequential = tree.create(&root, b"", CreateMode::PersistentSequential).await;
    assert!(matches!(sequential, Err(Error::Refused(_))), "{sequential:?}");
    let deleted = tree.delete(&root, None).await;
    assert!(matches!(deleted, Err(Error::Refused(_))), "{deleted:?}");
    write(&tree, "/", b"data").await;
    assert_eq!(&*found(&tree, "/").await.data, b"data");
    create(&tree, "/a").await;
    assert_eq!(found(&tree, "/").await.stat.n_children, 1);
}

pub(super) async fn a_missing_node_reads_as_none(sessions: Sessions) {
    let tree = sessions.open().await;
    assert_eq!(read(&tree, "/a").await, None);
    assert_eq!(read(&tree, "/a/b/c").await, None);
    assert_eq!(tree.children(&path("/a")).await, Ok(None));
}

pub(super) async fn children_are_listed_in_order(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    assert_eq!(children(&tree, "/a").await, Vec::<String>::new());
    for name in ["c", "a", "B", "b10", "b9"] {
        create(&tree, &format!("/a/{name}")).await;
    }
    create(&tree, "/a/a/below").await;
    create(&tree, "/ab").await;
    assert_eq!(children(&tree, "/a").await, ["B", "a", "b10", "b9", "c"]);
    assert_eq!(children(&tree, "/").await, ["a", "ab"]);
}

pub(super) async fn any_bytes_and_names_are_kept(sessions: Sessions) {
    let tree = sessions.open().await;
    let bytes: Vec<u8> = (0..=255).collect();
    for name in ["/with space", "/grüße", "/a.b-c_d@e:f", "/...", "/%2F"] {
        let at = path(name);
        tree.create(&at, &bytes, CreateMode::Persistent).await.expect("created");
        assert_eq!(&*found(&tree, name).await.data, &bytes[..]);
    }
    assert_eq!(children(&tree, "/").await, ["%2F", "...", "a.b-c_d@e:f", "grüße", "with space"]);
}

pub(super) async fn each_write_increments_the_version(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    let created = found(&tree, "/a").await.stat;
    for n in 1..=3 {
        assert_eq!(tree.set(&path("/a"), b"x", Some(Version(n - 1))).await, Ok(Version(n)));
    }
    assert_eq!(write(&tree, "/a", b"").await, Version(4));
    let node = found(&tree, "/a").await;
    assert_eq!((&*node.data, node.stat.version), (&b""[..], Version(4)));
    assert_eq!(node.stat.created, created.created);
    assert!(node.stat.modified > created.modified);
}

pub(super) async fn a_write_needs_the_expected_version(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    write(&tree, "/a", b"kept").await;
    for version in [0, 2] {
        let written = tree.set(&path("/a"), b"lost", Some(Version(version))).await;
        assert_eq!(written, Err(bad_version("/a")));
        let deleted = tree.delete(&path("/a"), Some(Version(version))).await;
        assert_eq!(deleted, Err(bad_version("/a")));
    }
    assert_eq!(&*found(&tree, "/a").await.data, b"kept");
    assert_eq!(tree.delete(&path("/a"), Some(Version(1))).await, Ok(()));
}

pub(super) async fn a_missing_node_is_not_written(sessions: Sessions) {
    let tree = sessions.open().await;
    for version in [None, Some(Version::FIRST)] {
        assert_eq!(tree.set(&path("/a"), b"", version).await, Err(no_node("/a")));
        assert_eq!(tree.delete(&path("/a"), version).await, Err(no_node("/a")));
    }
    assert_eq!(read(&tree, "/a").await, None);
}

pub(super) async fn a_deletion_removes_the_node(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    create(&tree, "/a/b").await;
    assert_eq!(found(&tree, "/a").await.stat.n_children, 1);
    delete(&tree, "/a/b").await;
    assert_eq!(read(&tree, "/a/b").await, None);
    assert_eq!(found(&tree, "/a").await.stat.n_children, 0);
    assert_eq!(children(&tree, "/a").await, Vec::<String>::new());
}

pub(super) async fn deletion_checks_the_version_before_the_children(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    create(&tree, "/a/b").await;
    assert_eq!(tree.delete(&path("/a"), Some(Version(7))).await, Err(bad_version("/a")));
    assert_eq!(tree.delete(&path("/a"), Some(Version(0))).await, Err(not_empty("/a")));
    assert_eq!(tree.delete(&path("/a"), None).await, Err(not_empty("/a")));
}

pub(super) async fn versions_start_over_with_a_new_node(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    write(&tree, "/a", b"x").await;
    let first = found(&tree, "/a").await.stat;
    delete(&tree, "/a").await;
    create(&tree, "/a").await;
    let second = found(&tree, "/a").await.stat;
    assert_eq!((first.version, second.version), (Version(1), Version(0)));
    assert!(second.created > first.modified);
}

pub(super) async fn transactions_are_numbered_in_order(sessions: Sessions) {
    let tree = sessions.open().await;
    let other = sessions.open().await;
    create(&tree, "/a").await;
    create(&other, "/b").await;
    write(&tree, "/a", b"").await;
    let (a, b) = (found(&tree, "/a").await.stat, found(&tree, "/b").await.stat);
    assert!(a.created < b.created && b.created < a.modified, "{a:?} {b:?}");
}

pub(super) async fn children_do_not_change_their_parents_version(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    let before = found(&tree, "/a").await.stat;
    create(&tree, "/a/b").await;
    write(&tree, "/a/b", b"x").await;
    let after = found(&tree, "/a").await.stat;
    assert_eq!((after.version, after.modified), (before.version, before.modified));
    assert_eq!(after.n_children, 1);
}

pub(super) async fn a_payload_may_be_as_large_as_the_limit(sessions: Sessions) {
    let tree = sessions.open().await;
    let data = vec![7; MAX_NODE_BYTES];
    tree.create(&path("/a"), &data, CreateMode::Persistent).await.expect("created");
    assert_eq!(write(&tree, "/a", &data).await, Version(1));
    assert_eq!(found(&tree, "/a").await.data.len(), MAX_NODE_BYTES);
}

pub(super) async fn oversized_payload_is_rejected_and_the_connection_survives(sessions: Sessions) {
    let tree = sessions.open().await;
    let session = *tree.session().borrow();
    let data = vec![7; MAX_NODE_BYTES + 1];
    let too_large = |at| Error::TooLarge { path: path(at), bytes: MAX_NODE_BYTES + 1, limit: MAX_NODE_BYTES };
    create(&tree, "/a").await;
    let created = tree.create(&path("/b"), &data, CreateMode::Persistent).await;
    assert_eq!(created, Err(too_large("/b")));
    assert_eq!(tree.set(&path("/a"), &data, None).await, Err(too_large("/a")));
    assert_eq!(read(&tree, "/b").await, None);
    assert_eq!(found(&tree, "/a").await.stat.version, Version::FIRST);
    assert_eq!(*tree.session().borrow(), session);
    assert!(matches!(session, SessionState::Connected(_)), "{session:?}");
}
