//! Requests for many znodes.

use super::*;
use crate::tree::READ_BATCH;

pub(super) async fn many_nodes_are_read_in_the_order_asked(sessions: Sessions) {
    let tree = sessions.open().await;
    for at in ["/b", "/a", "/a/y", "/a/x"] {
        create(&tree, at).await;
    }
    write(&tree, "/a", b"data").await;
    let asked = ["/a/x", "/none", "/a", "/b", "/none/x", "/a", "/"].map(path);
    let znodes = tree.get_many(&asked).await.expect("read");
    let names: Vec<Option<Vec<String>>> =
        znodes.iter().map(|znode| znode.as_ref().map(|znode| znode.children.clone())).collect();
    let names_of = |text: &str| Some(text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let wanted = [names_of(""), None, names_of("x y"), names_of(""), None, names_of("x y"), names_of("a b")];
    assert_eq!(names, wanted);
    for (at, znode) in asked.iter().zip(&znodes) {
        let node = tree.get(at).await.expect("read");
        assert_eq!(znode.as_ref().map(|znode| &znode.node), node.as_ref(), "{at}");
    }
}

pub(super) async fn more_nodes_than_a_batch_are_read(sessions: Sessions) {
    let tree = sessions.open().await;
    let n = 2 * READ_BATCH + 7;
    let mut asked = Vec::new();
    for i in 0..n {
        let at = path(&format!("/{i:04}"));
        if i % 3 != 0 {
            let data = i.to_string();
            tree.create(&at, data.as_bytes(), CreateMode::Persistent).await.expect("created");
        }
        asked.push(at);
    }
    let znodes = tree.get_many(&asked).await.expect("read");
    assert_eq!(znodes.len(), n);
    for (i, znode) in znodes.into_iter().enumerate() {
        let data = znode.map(|znode| znode.node.data.to_vec());
        assert_eq!(data, (i % 3 != 0).then(|| i.to_string().into_bytes()), "{i}");
    }
}

pub(super) async fn empty_request_returns_nothing(sessions: Sessions) {
    let tree = sessions.open().await;
    assert_eq!(tree.get_many(&[]).await, Ok(Vec::new()));
}

pub(super) async fn subtree_is_deleted_and_counted(sessions: Sessions) {
    let tree = sessions.open().await;
    for at in ["/a", "/a/b", "/a/b/c", "/a/d", "/ab"] {
        create(&tree, at).await;
    }
    create_as(&tree, "/a/e", CreateMode::Ephemeral).await;
    assert_eq!(tree.delete_recursive(&path("/a")).await, Ok(5));
    assert_eq!(tree.delete_recursive(&path("/a")).await, Ok(0));
    assert_eq!(children(&tree, "/").await, ["ab"]);
}

pub(super) async fn the_whole_tree_can_be_emptied(sessions: Sessions) {
    let tree = sessions.open().await;
    for at in ["/a", "/a/b", "/c"] {
        create(&tree, at).await;
    }
    assert_eq!(tree.delete_recursive(&TreePath::root()).await, Ok(3));
    assert_eq!(children(&tree, "/").await, Vec::<String>::new());
}

pub(super) async fn ensure_creates_missing_nodes_and_keeps_existing_data(sessions: Sessions) {
    let tree = sessions.open().await;
    create(&tree, "/a").await;
    write(&tree, "/a", b"kept").await;
    for _ in 0..2 {
        assert_eq!(tree.ensure(&path("/a/b/c")).await, Ok(()));
    }
    assert_eq!(tree.ensure(&TreePath::root()).await, Ok(()));
    let (a, c) = (found(&tree, "/a").await, found(&tree, "/a/b/c").await);
    assert_eq!((&*a.data, a.stat.version), (&b"kept"[..], Version(1)));
    assert_eq!((&*c.data, c.stat.owner), (&b""[..], None));
}
