//! The tree on a real ZooKeeper: the contract, and faults that only a real server can cause.

use std::{sync::Arc, time::Duration};

use stormkeeper_coordination::{
    test_support::zookeeper::{Ensemble, ZooKeeperServer, fresh_root, shared},
    tree::{
        Changes, CreateMode, Error, Op, OpResult, ReadTree as _, Scope, SessionId, SessionState, Tree,
        TreePath, Version, Watcher,
        contract::{Sessions, run_all},
        memory::MemoryTree,
        options::{OnMissingRoot, Options},
        zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_runtime::{tasks::Tasks, test_support::wait_until};

const WAIT_MAX: Duration = Duration::from_secs(60);

fn path(text: &str) -> TreePath {
    text.parse().expect("valid path")
}

/// A connection and its background tasks.
pub(crate) struct Connected {
    pub(crate) tree: Arc<ZooKeeperTree>,
    _tasks: Arc<Tasks>,
}

pub(crate) async fn connect(options: Options) -> Connected {
    let tasks = Arc::new(Tasks::default());
    let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
    let connected = Connected { tree, _tasks: tasks };
    connected.session(|_| true).await;
    connected
}

impl Connected {
    /// Waits for a connected session that satisfies `fits`.
    async fn session(&self, fits: impl Fn(SessionId) -> bool) -> SessionId {
        let states = self.tree.session();
        wait_until("a session is open", WAIT_MAX, async || {
            let state = *states.borrow();
            state.connected().filter(|&session| fits(session)).ok_or_else(|| format!("{state:?}"))
        })
        .await
    }

    async fn disconnected(&self) {
        let states = self.tree.session();
        wait_until("the connection is lost", WAIT_MAX, async || {
            let state = *states.borrow();
            if state.connected().is_none() { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
    }
}

/// Waits for the next change of a watcher.
async fn changed(watcher: &mut Watcher) -> Changes {
    tokio::time::timeout(WAIT_MAX, watcher.changed()).await.expect("the watcher reports a change")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zookeeper_tree_satisfies_the_contract() {
    let server = shared().await;
    run_all(async |name| {
        let root = fresh_root(name);
        let tasks = Arc::new(Tasks::default());
        Sessions::new(move || {
            let tree = ZooKeeperTree::connect(server.options(root.clone()), fastrand::Rng::new(), &tasks);
            let connected = Connected { tree, _tasks: Arc::clone(&tasks) };
            async move {
                connected.session(|_| true).await;
                connected.tree as Arc<dyn Tree>
            }
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_watches_survive_a_restart_of_the_server() {
    let mut server = ZooKeeperServer::start().await.expect("a server");
    let (one, two) = (connect(server.options(path("/r"))).await, connect(server.options(path("/r"))).await);
    let session = one.session(|_| true).await;
    one.tree.create(&path("/mine"), b"", CreateMode::Ephemeral).await.expect("created");
    let mut node = one.tree.watch(&path("/a"), Scope::Node);
    let mut subtree = one.tree.watch(&path("/b"), Scope::Subtree);
    assert_eq!(
        (changed(&mut node).await, changed(&mut subtree).await),
        (Changes::Everything, Changes::Everything)
    );

    // Twice, as a watch that was restored must be restored once more.
    for round in 0..2 {
        server.kill9();
        one.disconnected().await;
        assert_eq!(one.tree.get(&path("/mine")).await, Err(Error::Disconnected));
        server.restart().await.expect("it starts again");
        assert_eq!(one.session(|_| true).await, session);
        two.session(|_| true).await;
        let expected = (Changes::Everything, Changes::Everything);
        assert_eq!((changed(&mut node).await, changed(&mut subtree).await), expected);

        // A watch that the client crate restores would miss these.
        let changes_at = |at: &str| Changes::Paths([path(at)].into());
        two.tree.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");
        assert_eq!(changed(&mut node).await, changes_at("/a"));
        two.tree.create(&path("/b"), b"", CreateMode::Persistent).await.expect("created");
        assert_eq!(changed(&mut subtree).await, changes_at("/b"));
        two.tree.delete(&path("/a"), None).await.expect("deleted");
        assert_eq!(changed(&mut node).await, changes_at("/a"));
        two.tree.delete(&path("/b"), None).await.expect("deleted");
        assert_eq!(changed(&mut subtree).await, changes_at("/b"));

        let mine = one.tree.get(&path("/mine")).await.expect("read").expect("it outlived the restart");
        assert_eq!(mine.stat.owner, Some(session), "round {round}");
    }
    // One watch per path on the server, however often it was restored.
    let watches = server.ask("wchp").await.expect("asked");
    assert_eq!(watches.lines().filter(|line| line.starts_with("/r/")).count(), 2, "{watches}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_longer_than_the_session_opens_a_new_session() {
    let mut server = ZooKeeperServer::start().await.expect("a server");
    let brief = Options { session_timeout: Duration::from_secs(1), ..server.options(path("/r")) };
    let (one, other) = (connect(brief.clone()).await, connect(brief).await);
    let first = one.session(|_| true).await;
    one.tree.create(&path("/mine"), b"", CreateMode::Ephemeral).await.expect("created");
    one.tree.create(&path("/kept"), b"", CreateMode::Persistent).await.expect("created");
    let mut watcher = one.tree.watch(&TreePath::root(), Scope::Subtree);
    assert_eq!(changed(&mut watcher).await, Changes::Everything);

    server.kill9();
    let states = one.tree.session();
    wait_until("the session has expired", WAIT_MAX, async || {
        let state = *states.borrow();
        if state == SessionState::Connecting { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    server.restart().await.expect("it starts again");
    let second = one.session(|session| session != first).await;
    assert_ne!(second, first);
    assert_eq!(changed(&mut watcher).await, Changes::Everything);
    other.session(|_| true).await;
    wait_until("the old session's ephemeral is gone", WAIT_MAX, async || {
        match other.tree.get(&path("/mine")).await {
            Ok(None) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    assert!(one.tree.get(&path("/kept")).await.expect("read").is_some());
    // The watch of the new session works.
    other.tree.set(&path("/kept"), b"", None).await.expect("written");
    wait_until("the watch reports the write", WAIT_MAX, || {
        let changes = watcher.take();
        // It may first report the loss of the old session's ephemerals.
        async move {
            match changes {
                Some(Changes::Paths(paths)) if paths.contains(&path("/kept")) => Ok(()),
                changes => Err(format!("{changes:?}")),
            }
        }
    })
    .await;
}

/// Starts to connect with `options`, and returns when the server has opened several sessions for it.
async fn attempts_to_connect(server: &ZooKeeperServer, options: Options) -> Connected {
    let observer = connect(server.options(TreePath::root())).await;
    let probe = path("/probe");
    observer.tree.ensure(&probe).await.expect("created");
    let tasks = Arc::new(Tasks::default());
    let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
    let mut last = None;
    // A session that is opened is a transaction between two writes.
    let (mut n_sessions, observer) = (0, &observer);
    while n_sessions < 6 {
        observer.tree.set(&probe, b"", None).await.expect("written");
        let now = observer.tree.get(&probe).await.expect("read").expect("there").stat.modified;
        n_sessions += last.map_or(0, |last| now - last - 1);
        last = Some(now);
    }
    Connected { tree, _tasks: tasks }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misspelt_root_is_not_created_by_a_daemon_that_waits_for_it() {
    let server = ZooKeeperServer::start().await.expect("a server");
    let options = Options { on_missing_root: OnMissingRoot::Wait, ..server.options(path("/missing")) };
    let waiting = attempts_to_connect(&server, options).await;
    let observer = connect(server.options(TreePath::root())).await;
    assert_eq!(observer.tree.get(&path("/missing")).await, Ok(None));
    observer.tree.ensure(&path("/missing")).await.expect("created");
    waiting.session(|_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_inside_the_tree_of_another_cluster_is_refused() {
    let server = ZooKeeperServer::start().await.expect("a server");
    let cluster = connect(server.options(path("/a"))).await;
    for name in ["/layout", "/storms", "/drains"] {
        cluster.tree.ensure(&path(name)).await.expect("created");
    }
    let inner = attempts_to_connect(&server, server.options(path("/a/drains/b"))).await;
    assert_eq!(cluster.tree.children(&path("/drains")).await, Ok(Some(Vec::new())));
    cluster.tree.delete(&path("/storms"), None).await.expect("deleted");
    inner.session(|_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unresponsive_server_leaves_outcomes_unknown() {
    let server = ZooKeeperServer::start().await.expect("a server");
    let hasty = Options { request_timeout: Duration::from_millis(300), ..server.options(path("/r")) };
    let one = connect(hasty).await;
    one.tree.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");
    server.pause().await;
    let written = one.tree.set(&path("/a"), b"x", Some(Version::FIRST)).await;
    let error = written.expect_err("no response");
    assert!(matches!(&error, Error::ConnectionLost(why) if why.contains("no response within")), "{error:?}");
    // Far more than may be in flight: requests that wait until the timeout were not sent.
    let at = path("/a");
    let reads = futures_util::future::join_all((0..1000).map(|_| one.tree.get(&at))).await;
    let refused = reads.iter().filter(|read| **read == Err(Error::Disconnected)).count();
    assert!(refused > 0 && reads.iter().all(Result::is_err), "{refused} were refused");
    server.resume();
    // The write with the unknown outcome took effect.
    let node = wait_until("the server responds", WAIT_MAX, async || {
        one.tree.get(&at).await.map_err(|error| error.to_string())?.ok_or_else(|| "no node".to_owned())
    })
    .await;
    assert_eq!((&*node.data, node.stat.version), (&b"x"[..], Version(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tree_waits_for_its_server_and_closes_without_it() {
    let mut server = ZooKeeperServer::start().await.expect("a server");
    let options = server.options(path("/deep/root/of/ours"));
    server.kill9();
    let tasks = Arc::new(Tasks::default());
    let tree = ZooKeeperTree::connect(options.clone(), fastrand::Rng::new(), &tasks);
    let late = Connected { tree, _tasks: Arc::clone(&tasks) };
    assert_eq!(late.tree.get(&TreePath::root()).await, Err(Error::Disconnected));
    let mut watcher = late.tree.watch(&path("/a"), Scope::Node);
    server.restart().await.expect("it starts again");
    late.session(|_| true).await;
    assert_eq!(changed(&mut watcher).await, Changes::Everything);
    late.tree.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");

    server.kill9();
    late.disconnected().await;
    tokio::time::timeout(Duration::from_secs(5), late.tree.close()).await.expect("closing is bounded");
    assert_eq!(late.tree.get(&path("/a")).await, Err(Error::Closed));
    assert_eq!(*late.tree.session().borrow(), SessionState::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_of_the_server_hides_the_znodes_of_zookeeper() {
    let server = ZooKeeperServer::start().await.expect("a server");
    let plain = connect(server.options(TreePath::root())).await;
    plain.tree.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");
    assert_eq!(plain.tree.children(&TreePath::root()).await, Ok(Some(vec!["a".to_owned()])));
    let families = plain.tree.get_many(&[TreePath::root()]).await.expect("read");
    let family = families[0].as_ref().expect("the root is there");
    assert_eq!((family.node.stat.n_children, &family.children[..]), (1, &["a".to_owned()][..]));
    assert_eq!(plain.tree.delete_recursive(&TreePath::root()).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_watcher_leaves_no_watch_on_the_server() {
    let server = ZooKeeperServer::start().await.expect("a server");
    let one = connect(server.options(path("/r"))).await;
    let mut kept = one.tree.watch(&path("/kept"), Scope::Node);
    changed(&mut kept).await;
    for scope in [Scope::Node, Scope::Subtree] {
        let mut watcher = one.tree.watch(&path("/gone"), scope);
        changed(&mut watcher).await;
    }
    wait_until("one watch is left", WAIT_MAX, async || {
        let watches = server.ask("wchp").await.map_err(|error| error.to_string())?;
        let left: Vec<&str> = watches.lines().filter(|line| line.starts_with("/r/")).collect();
        if left == ["/r/kept"] { Ok(()) } else { Err(watches.clone()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_tree_closes_its_session() {
    let server = ZooKeeperServer::start().await.expect("a server");
    // Longer than the timeout of the test, so that nothing disappears by expiry.
    let lasting = Options { session_timeout: 2 * WAIT_MAX, ..server.options(path("/r")) };
    let (one, two) = (connect(lasting.clone()).await, connect(lasting).await);
    one.tree.create(&path("/mine"), b"", CreateMode::Ephemeral).await.expect("created");
    let _watcher = one.tree.watch(&path("/mine"), Scope::Node);
    drop(one);
    wait_until("the ephemeral is gone", WAIT_MAX, async || match two.tree.get(&path("/mine")).await {
        Ok(None) => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ensemble_survives_the_loss_of_a_server() {
    let mut ensemble = Ensemble::start(3).await.expect("three servers");
    let one = connect(ensemble.options(path("/r"))).await;
    let session = one.session(|_| true).await;
    one.tree.create(&path("/mine"), b"", CreateMode::Ephemeral).await.expect("created");
    for server in 0..3 {
        ensemble.servers[server].kill9();
        wait_until("two servers serve", WAIT_MAX, async || {
            one.tree.set(&path("/mine"), b"x", None).await.map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(one.session(|_| true).await, session);
        ensemble.servers[server].restart().await.expect("it starts again");
    }
}

/// A random operation on a handful of paths, so that many of them collide.
fn random_op(random: &mut fastrand::Rng) -> Op {
    const PATHS: [&str; 8] = ["/a", "/b", "/a/a", "/a/b", "/b/a", "/a/a/a", "/c", "/c/a"];
    let path = path(random.choice(PATHS).expect("there are some"));
    let version = random.bool().then(|| Version(random.i32(0..3)));
    let data = vec![random.u8(..); random.usize(0..4)];
    let modes = [
        CreateMode::Persistent,
        CreateMode::Persistent,
        CreateMode::Persistent,
        CreateMode::Ephemeral,
        CreateMode::PersistentSequential,
        CreateMode::EphemeralSequential,
    ];
    match random.u8(0..10) {
        0 => Op::Check { path, version },
        1..=4 => Op::Create { path, data, mode: random.choice(modes).expect("there are some") },
        5..=6 => Op::Set { path, data, version },
        _ => Op::Delete { path, version },
    }
}

/// Applies operations and returns the result.
async fn act(tree: &dyn Tree, ops: &[Op]) -> Result<Vec<OpResult>, Error> {
    match ops {
        [Op::Create { path, data, mode }] => {
            tree.create(path, data, *mode).await.map(|path| vec![OpResult::Created(path)])
        }
        [Op::Set { path, data, version }] => {
            tree.set(path, data, *version).await.map(|version| vec![OpResult::Set(version)])
        }
        [Op::Delete { path, version }] => tree.delete(path, *version).await.map(|()| vec![OpResult::Deleted]),
        ops => tree.multi(ops.to_vec()).await,
    }
}

/// State of the whole tree, without the numbers of transactions and sessions.
async fn state_of(tree: &dyn Tree) -> Vec<String> {
    let mut paths = vec![TreePath::root()];
    let mut lines = Vec::new();
    while let Some(at) = paths.pop() {
        let family =
            tree.get_many(std::slice::from_ref(&at)).await.expect("read").remove(0).expect("it is there");
        let stat = family.node.stat;
        let owned = stat.owner.is_some();
        lines.push(format!("{at} {} {:?} {owned} {}", stat.version, family.node.data, stat.n_children));
        paths.extend(family.children.iter().map(|name| at.child(name).expect("a name")));
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_tree_and_zookeeper_return_the_same_results() {
    let server = shared().await;
    for seed in 0..30 {
        let real = connect(server.options(fresh_root("alike"))).await;
        let memory = MemoryTree::new().connect();
        let mut random = fastrand::Rng::with_seed(seed);
        for step in 0..100 {
            let n_ops = if random.bool() { 1 } else { random.usize(1..5) };
            let ops: Vec<Op> = (0..n_ops).map(|_| random_op(&mut random)).collect();
            let (in_memory, in_reality) = (act(&*memory, &ops).await, act(&*real.tree, &ops).await);
            assert_eq!(in_memory, in_reality, "seed {seed}, step {step}: {ops:?}");
        }
        assert_eq!(state_of(&*memory).await, state_of(&*real.tree).await, "seed {seed}");
        real.tree.close().await;
    }
}
