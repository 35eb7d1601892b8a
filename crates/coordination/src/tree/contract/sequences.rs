//! Sequential names.

use super::*;
use crate::tree::CreateMode::{EphemeralSequential, PersistentSequential};

pub(super) async fn digits_count_up_from_zero(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(create_as(&tree, "/a/n-", PersistentSequential).await);
    }
    assert_eq!(names, ["/a/n-0000000000", "/a/n-0000000001", "/a/n-0000000002"]);
    assert_eq!(children(&tree, "/a").await, ["n-0000000000", "n-0000000001", "n-0000000002"]);
}

pub(super) async fn digits_count_every_creation_and_no_deletion(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    create(&tree, "/a/plain").await;
    assert_eq!(create_as(&tree, "/a/n", PersistentSequential).await, "/a/n0000000001");
    delete(&tree, "/a/plain").await;
    assert_eq!(create_as(&tree, "/a/m", PersistentSequential).await, "/a/m0000000002");
    delete(&tree, "/a/n0000000001").await;
    assert_eq!(create_as(&tree, "/a/n", EphemeralSequential).await, "/a/n0000000003");
    // Failed creations do not count, and neither do grandchildren and writes.
    let refused = tree.create(&path("/a/m0000000002"), b"", CreateMode::Persistent).await;
    assert_eq!(refused, Err(node_exists("/a/m0000000002")));
    create(&tree, "/a/m0000000002/below").await;
    write(&tree, "/a", b"x").await;
    assert_eq!(create_as(&tree, "/a/n", PersistentSequential).await, "/a/n0000000004");
}

pub(super) async fn digits_start_over_with_a_new_parent(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    assert_eq!(create_as(&tree, "/a/n", PersistentSequential).await, "/a/n0000000000");
    delete(&tree, "/a/n0000000000").await;
    delete(&tree, "/a").await;
    create(&tree, "/a").await;
    assert_eq!(create_as(&tree, "/a/n", PersistentSequential).await, "/a/n0000000000");
}

pub(super) async fn an_ephemeral_can_have_digits(sessions: Sessions) {
    let tree = sessions.open().await;
    let at = create_as(&tree, "/n", EphemeralSequential).await;
    assert_eq!(at, "/n0000000000");
    let owner = found(&tree, &at).await.stat.owner;
    assert_eq!(owner, tree.session().borrow().connected());
}
