//! Users and access control lists on a real ZooKeeper: who may write what.

use std::sync::Arc;

use stormkeeper_coordination::{
    cluster::{
        layout::{self, Ephemeral},
        presence::Presence,
        record::StoppedSupervisor,
        store::Store,
        users::Users,
    },
    test_support::zookeeper::{ZooKeeperServer, fresh_root, shared},
    tree::{
        CreateMode, Error, Op, ReadTree as _, Tree as _, TreePath,
        access::{Access, AccessRules, Acl, Credential, Rights, Who},
        options::Options,
        zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_model::{
    BlobKey, NimbusId, Port, SupervisorId, TaskId, Timestamp, TopologyId, error::TaskError,
};
use stormkeeper_runtime::tasks::Tasks;

use crate::tree_contract::{Connected, connect};

/// Users of a cluster: the text of the file of each kind of daemon.
fn users(own: &str) -> Users {
    let credential = |name: &str| Credential::new(name, &format!("0123456789abcdef-{name}")).expect("valid");
    let [nimbus, supervisor] = ["nimbus", "supervisor"].map(|name| credential(name).id());
    let (own, key) = (credential(own).reveal(), "5a".repeat(32));
    Users::parse(&format!("own {own}\nnimbus {nimbus}\nsupervisor {supervisor}\nworkers {key}\n"))
        .expect("valid")
}

fn topology(id: &str) -> TopologyId {
    id.parse().expect("valid id")
}

/// Connections to one tree, each as another user.
struct Connections {
    nimbus: Connected,
    supervisor: Connected,
    worker: Connected,
    other_worker: Connected,
    anyone: Connected,
}

fn with(mut options: Options, users: Option<Users>, protects: bool) -> Options {
    options.access = users.map(|users| Access {
        credentials: users.own().to_vec(),
        sasl: users.sasl().cloned(),
        sasl_line: String::new(),
        rules: protects.then(|| Arc::new(users) as Arc<dyn AccessRules>),
    });
    options
}

impl Connections {
    async fn to(server: &ZooKeeperServer, root: &TreePath, protects: bool) -> Self {
        let (ours, other) = (topology("t-1-1"), topology("t-2-1"));
        let as_user = async |users| connect(with(server.options(root.clone()), users, protects)).await;
        Self {
            nimbus: as_user(Some(users("nimbus"))).await,
            supervisor: as_user(Some(users("supervisor"))).await,
            worker: as_user(Some(users("supervisor").of_worker(&ours))).await,
            other_worker: as_user(Some(users("nimbus").of_worker(&other))).await,
            anyone: as_user(None).await,
        }
    }

    /// Each user that is not a nimbus, by name.
    fn others(&self) -> [(&'static str, &ZooKeeperTree); 4] {
        [
            ("supervisor", &*self.supervisor.tree),
            ("worker", &*self.worker.tree),
            ("worker of another topology", &*self.other_worker.tree),
            ("anyone", &*self.anyone.tree),
        ]
    }
}

async fn create(tree: &ZooKeeperTree, path: &TreePath) {
    tree.create(path, b"{}", CreateMode::Persistent).await.unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn is_denied<T>(result: &Result<T, Error>) -> bool {
    matches!(result.as_ref().err().map(Error::root), Some(Error::NotAuthorized { .. }))
}

/// Znodes that a leader creates for a topology, and those that only nimbuses may write.
fn of_leader(id: &TopologyId) -> Vec<TreePath> {
    [
        layout::layout(),
        layout::term(),
        layout::tree_id(),
        layout::storm(id),
        layout::tasks(id),
        layout::assignment(id),
        layout::taskbeats(id),
        layout::taskerrors(id),
        layout::last_errors(id),
        layout::metric_log(),
    ]
    .into()
}

async fn create_tree(nimbus: &Arc<ZooKeeperTree>, id: &TopologyId) {
    Store::new(Arc::clone(nimbus) as _).ensure_layout().await.expect("created");
    for path in of_leader(id).into_iter().filter(|path| *path != layout::layout()) {
        create(nimbus, &path).await;
    }
}

fn error(task: u32) -> TaskError {
    TaskError {
        component: "bolt".parse().expect("valid id"),
        task: TaskId(task),
        time: Timestamp::from_millis(1),
        host: "host".to_owned(),
        port: Port(6700),
        message: "message".to_owned(),
        stack: String::new(),
    }
}

/// Checks who may write what in a tree that a nimbus has created or protected.
async fn check_rights(connections: &Connections, id: &TopologyId) {
    // The heartbeats and the supervisors' records have writers of their own; their parents' data has not.
    let closed: Vec<TreePath> = of_leader(id).into_iter().chain(layout::top_level()).collect();
    for (name, tree) in connections.others() {
        for path in &closed {
            assert!(tree.get(path).await.expect("everybody may read").is_some(), "{path}");
            let is_of_errors = path.as_str().starts_with("/taskerrors/");
            if is_of_errors && (name == "supervisor" || name == "worker") {
                continue;
            }
            assert!(is_denied(&tree.set(path, b"forged", None).await), "{name} writes {path}");
            let set = Op::Set { path: path.clone(), data: b"forged".to_vec(), version: None };
            assert!(is_denied(&tree.multi(vec![set]).await), "{name} writes {path} in a transaction");
        }
        for path in [layout::storm(id), layout::tasks(id), layout::term(), layout::layout()] {
            assert!(is_denied(&tree.delete(&path, None).await), "{name} deletes {path}");
        }
        for path in [layout::leader(), layout::event_prefix(), layout::metrics(id)] {
            let created = tree.create(&path, b"{}", CreateMode::Persistent).await;
            assert!(is_denied(&created), "{name} creates {path}");
        }
    }
    check_heartbeats(connections, id).await;
    check_errors(connections, id).await;
    check_supervisors(connections).await;
}

async fn check_heartbeats(connections: &Connections, id: &TopologyId) {
    let beat = layout::taskbeat(id, TaskId(1));
    for (name, tree) in connections.others().into_iter().filter(|(name, _)| *name != "worker") {
        let created = tree.create(&beat, b"{}", CreateMode::Ephemeral).await;
        assert!(is_denied(&created), "{name} creates {beat}");
    }
    let worker = &connections.worker.tree;
    worker.create(&beat, b"{}", CreateMode::Ephemeral).await.expect("its own heartbeat");
    worker.set(&beat, b"{1}", None).await.expect("its own heartbeat");
    assert!(is_denied(&connections.other_worker.tree.set(&beat, b"{}", None).await));
    assert!(is_denied(&connections.supervisor.tree.delete(&beat, None).await));
    connections.nimbus.tree.delete(&beat, None).await.expect("a nimbus may delete everything");
}

async fn check_errors(connections: &Connections, id: &TopologyId) {
    let store = |connected: &Connected| Store::new(Arc::clone(&connected.tree) as _);
    // The twelfth error deletes the oldest ones, of whoever wrote them.
    for _ in 0..6 {
        store(&connections.worker).report_error(id, error(1)).await.expect("an error of its task");
        store(&connections.supervisor).report_error(id, error(1)).await.expect("in the worker's name");
    }
    assert_eq!(store(&connections.anyone).errors(id, TaskId(1)).await.expect("read").len(), 10);
    for connected in [&connections.other_worker, &connections.anyone] {
        store(connected).report_error(id, error(1)).await.expect_err("not its topology");
    }
}

async fn check_supervisors(connections: &Connections) {
    let id: SupervisorId = "s".parse().expect("valid id");
    let (record, store) =
        (layout::supervisor(&id), Store::new(Arc::clone(&connections.supervisor.tree) as _));
    connections.supervisor.tree.create(&record, b"{}", CreateMode::Ephemeral).await.expect("its own");
    for (name, tree) in connections.others().into_iter().filter(|(name, _)| *name != "supervisor") {
        assert!(is_denied(&tree.delete(&record, None).await), "{name} deletes {record}");
    }
    let stopped = StoppedSupervisor {
        host: "host".to_owned(),
        stopped: Timestamp::from_millis(1),
        unknown_fields: Default::default(),
    };
    store.announce_stop(&id, &stopped).await.expect("its own stop");
    store.withdraw_stop(&id).await.expect("its own stop");
    store.ensure_layout().await.expect("nothing is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_writes_its_own_znodes_and_no_others() {
    let id = topology("t-1-1");
    let root = fresh_root("access");
    let connections = Connections::to(shared().await, &root, true).await;
    create_tree(&connections.nimbus.tree, &id).await;
    check_rights(&connections, &id).await;
    let secret = layout::credentials(&id);
    create(&connections.nimbus.tree, &secret).await;
    for (name, tree) in connections.others() {
        let may_read = tree.get(&secret).await.is_ok();
        assert_eq!(may_read, name == "supervisor", "{name} reads {secret}");
        assert!(is_denied(&tree.set(&secret, b"forged", None).await), "{name} writes {secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_tree_is_protected_and_opened_again() {
    let id = topology("t-1-1");
    let (server, root) = (shared().await, fresh_root("protected"));
    let open = Connections::to(server, &root, false).await;
    create_tree(&open.nimbus.tree, &id).await;
    let forged = b"forged";
    open.anyone.tree.set(&layout::term(), forged, None).await.expect("the tree is open");
    let rules: Arc<dyn AccessRules> = Arc::new(users("nimbus"));
    let denied = open.anyone.tree.protect(None).await.expect("nothing differs");
    assert_eq!((denied.n_changed, denied.denied.len()), (0, 0));
    let n_znodes = 1 + layout::top_level().len() + of_leader(&id).len();
    let protected = open.nimbus.tree.protect(Some(&rules)).await.expect("protected");
    assert_eq!((protected.n_changed, protected.denied.len()), (n_znodes, 0));
    let again = open.nimbus.tree.protect(Some(&rules)).await.expect("protected");
    assert_eq!((again.n_changed, again.denied.len()), (0, 0), "it can be repeated");
    let connections = Connections::to(server, &root, true).await;
    check_rights(&connections, &id).await;
    let refused = open.anyone.tree.protect(None).await.expect("denials are in the result");
    assert_eq!((refused.n_changed, refused.denied.len() >= n_znodes), (0, true), "{refused:?}");
    assert!(open.nimbus.tree.protect(None).await.expect("opened").n_changed >= n_znodes);
    open.anyone.tree.set(&layout::term(), forged, None).await.expect("the tree is open again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_is_replaced_while_both_are_in_force() {
    let (server, root) = (shared().await, fresh_root("replaced"));
    let old = users("nimbus");
    let new = Credential::new("nimbus", "fedcba9876543210-new").expect("valid");
    let both = format!("{old}own {}\nnimbus {}\n", new.reveal(), new.id());
    let both = Users::parse(&both).expect("valid");
    let only_new: String = both
        .to_string()
        .lines()
        .filter(|line| !line.contains("0123456789abcdef-nimbus"))
        .filter(|line| *line != format!("nimbus {}", old.own()[0].id()))
        .map(|line| format!("{line}\n"))
        .collect();
    let only_new = Users::parse(&only_new).expect("valid");
    let [first, second, last] = [old, both, only_new].map(|users| {
        (
            Arc::new(users.clone()) as Arc<dyn AccessRules>,
            with(server.options(root.clone()), Some(users), true),
        )
    });
    let with_old = connect(first.1).await;
    create(&with_old.tree, &layout::term()).await;
    let with_both = connect(second.1).await;
    with_both.tree.protect(Some(&second.0)).await.expect("both may administer");
    // A process that runs takes the new password at once, and presents the old one no more later.
    let with_new = connect(with(server.options(root.clone()), None, true)).await;
    assert!(is_denied(&with_new.tree.set(&layout::term(), b"{}", None).await));
    with_new.tree.replace_access(last.1.access).await;
    with_old.tree.set(&layout::term(), b"{}", None).await.expect("the old password is still in force");
    with_new.tree.set(&layout::term(), b"{}", None).await.expect("the new password is in force");
    with_new.tree.protect(Some(&last.0)).await.expect("the new one may administer");
    assert!(is_denied(&with_old.tree.set(&layout::term(), b"{}", None).await));
}

/// Lists that let one user do everything and nobody else anything.
#[derive(Debug)]
struct Locked(Credential);

impl AccessRules for Locked {
    fn acl_of(&self, _path: &TreePath) -> Vec<Acl> {
        vec![(Who::User(self.0.id()), Rights::All)]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_locked_znode_is_named_and_the_others_are_protected() {
    let (server, root) = (shared().await, fresh_root("locked"));
    let open = Connections::to(server, &root, false).await;
    create_tree(&open.nimbus.tree, &topology("t-1-1")).await;
    let mine = Credential::new("mine", "fedcba9876543210-mine").expect("valid");
    let mut options = server.options(root.clone());
    let rules = Some(Arc::new(Locked(mine.clone())) as Arc<dyn AccessRules>);
    options.access = Some(Access { credentials: vec![mine], rules, sasl: None, sasl_line: String::new() });
    let hostile = connect(options).await;
    let blob = |n: u8| layout::blob(&BlobKey::of(&[n]));
    for n in 0..4 {
        let owner = if n < 2 { &hostile.tree } else { &open.nimbus.tree };
        create(owner, &blob(n)).await;
    }
    let rules: Arc<dyn AccessRules> = Arc::new(users("nimbus"));
    let protected = open.nimbus.tree.protect(Some(&rules)).await.expect("the others");
    assert_eq!(protected.denied, [blob(0), blob(1)].into());
    assert!(
        open.nimbus.tree.with_other_lists(&rules).await.expect("read").is_empty(),
        "the others are protected"
    );
    let tasks = Tasks::default();
    let presence = Presence::start(Arc::clone(&open.nimbus.tree) as _, &tasks);
    let me: NimbusId = "n-1".parse().expect("valid");
    let announcement = |n: u8| Ephemeral::BlobReplica(BlobKey::of(&[n]), me.clone());
    presence.keep_all((0..4).map(|n| (announcement(n), b"{}".to_vec())));
    presence.settled().await;
    let owned = [0, 1, 2, 3].map(|n| presence.owns(&announcement(n)));
    assert_eq!(owned, [false, false, true, true], "a locked znode costs one blob");
}
