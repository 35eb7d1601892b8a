//! TLS and SASL between the daemons and a real ZooKeeper.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use stormkeeper_coordination::{
    cluster::users::{UserFiles, Users},
    test_support::zookeeper::{ZooKeeperServer, fresh_root},
    tree::{
        CreateMode, ReadTree as _, Tree as _, TreePath,
        access::Access,
        options::Options,
        tls::{Identity, Tls},
        zookeeper::ZooKeeperTree,
    },
};
use stormkeeper_runtime::{tasks::Tasks, test_support::wait_until};

use crate::{
    authority::{Authority, Issued},
    cluster::{Cluster, WAIT_MAX},
    protected_tree::{replace_a_worker, restart},
    recovery::{endless, finish},
    tree_contract::connect,
};

fn identity(issued: &Issued) -> Identity {
    Identity { certificates: issued.certificate.clone(), key: issued.key.clone() }
}

fn tls(authority: &Authority) -> Tls {
    let client = authority.issue(&["daemon"]);
    Tls::new(authority.pem.clone(), Some(identity(&client))).expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn session_over_tls_goes_on_when_the_authority_is_replaced() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let mut server = ZooKeeperServer::start().await.expect("started");
    let secure = server.add_tls(&before.pem, &before.issue(&["127.0.0.1"]).both()).expect("written");
    server.restart().await.expect("started");

    let mut options = Options { tls: Some(tls(&before)), ..server.options(fresh_root("tls")) };
    options.servers = vec![secure];
    let connected = connect(options).await;
    let path: TreePath = "/kept".parse().expect("valid");
    connected.tree.create(&path, b"1", CreateMode::Persistent).await.expect("created");
    let session = connected.tree.session().borrow().connected().expect("a session");

    server.replace_tls(&after.pem, &after.issue(&["127.0.0.1"]).both()).expect("written");
    server.restart().await.expect("started");
    connected.tree.replace_tls(tls(&after));
    wait_until("the session goes on", WAIT_MAX, async || {
        let now = connected.tree.session().borrow().connected();
        // A session that is known as connected may be about to lose its connection.
        match connected.tree.get(&path).await {
            Ok(Some(_)) if now == Some(session) => Ok(()),
            other => Err(format!("{now:?} {other:?}")),
        }
    })
    .await;
}

/// Returns whether a session is opened within two seconds.
async fn opens(options: Options) -> bool {
    let tasks = Tasks::default();
    let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
    let mut session = tree.session();
    let connected = session.wait_for(|state| state.connected().is_some());
    let opened = tokio::time::timeout(Duration::from_secs(2), connected).await.is_ok();
    // The server closes the connection of a session that it does not accept.
    opened && tree.children(&TreePath::root()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_demands_sasl_accepts_the_user_of_the_file_and_no_other() {
    let mut server = ZooKeeperServer::start().await.expect("started");
    server.demand_sasl("keeper", "s3cret").expect("written");
    server.restart().await.expect("started");
    let files = UserFiles::generate([[1; 32], [2; 32], [3; 32]]);
    let with = |line: &str| {
        let users = Users::parse(&format!("{}{line}", files.nimbus)).expect("valid");
        let access = Access {
            credentials: users.own().to_vec(),
            rules: None,
            sasl: users.sasl().cloned(),
            sasl_line: "`sasl NAME:PASSWORD` of the test".to_owned(),
        };
        Options { access: Some(access), ..server.options(fresh_root("sasl")) }
    };
    assert!(opens(with("sasl keeper:s3cret\n")).await);
    let refusal = async |options: Options| {
        let tasks = Tasks::default();
        let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
        wait_until("the reason is known", WAIT_MAX, async || tree.problem().ok_or("none yet".to_owned()))
            .await
    };
    for (lines, said) in [
        ("sasl keeper:another\n", "the servers refuse the user of the line `sasl NAME:PASSWORD` of the test"),
        (
            "",
            "the servers demand SASL, and there is no user for it: add the line `sasl NAME:PASSWORD` of the test",
        ),
    ] {
        assert!(!opens(with(lines)).await);
        let reason = refusal(with(lines)).await;
        assert!(reason.contains(said) && reason.contains("JAAS") && !reason.contains("another"), "{reason}");
    }
    let reason = refusal(Options { access: None, ..with("") }).await;
    assert!(reason.contains("set storm.zookeeper.users.file"), "{reason}");
}

pub(crate) fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
}

/// Makes the server of a cluster listen for TLS too, and demand certificates of `authority` there. Returns
/// its addresses, without and with TLS.
pub(crate) async fn demand_certificates(cluster: &mut Cluster, authority: &Authority) -> [String; 2] {
    let server = &mut cluster.zookeeper.servers[0];
    let plain = server.address();
    let secure = server.add_tls(&authority.pem, &authority.issue(&["127.0.0.1"]).both()).expect("written");
    server.restart().await.expect("started");
    [plain, secure]
}

/// Makes the directory of the certificates for daemons and workers, with the authority in it.
pub(crate) fn certificates_dir(cluster: &Cluster, authority: &Authority) -> PathBuf {
    let dir = cluster.path("tls");
    fs::create_dir(&dir).expect("created");
    fs::write(dir.join("ca.pem"), &authority.pem).expect("written");
    dir
}

/// Issues the certificate `name` of a daemon or of workers into a directory.
pub(crate) fn issue(authority: &Authority, dir: &Path, name: &str) -> Issued {
    let issued = authority.issue(&[name]);
    fs::write(dir.join(format!("{name}.pem")), &issued.certificate).expect("written");
    write_secret(&dir.join(format!("{name}.key")), &issued.key);
    issued
}

/// Configures a daemon for the address with TLS, its own certificate in `dir`, and that of its workers.
pub(crate) fn use_certificates(
    cluster: &Cluster,
    daemon: &str,
    [plain, secure]: &[String; 2],
    (dir, own): (&Path, &str),
) {
    let dir = dir.display();
    let keys = format!(
        "storm.zookeeper.tls.ca.file: {dir}/ca.pem\n\
         storm.zookeeper.tls.cert.file: {dir}/{own}.pem\nstorm.zookeeper.tls.key.file: {dir}/{own}.key\n\
         storm.zookeeper.tls.workers.cert.file: {dir}/worker.pem\n\
         storm.zookeeper.tls.workers.key.file: {dir}/worker.key\n"
    );
    let file = cluster.path(daemon).join("storm.yaml");
    let before = fs::read_to_string(&file).expect("its configuration");
    assert!(before.contains(plain), "{before}");
    fs::write(&file, before.replace(plain, secure) + &keys).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_cluster_changes_to_tls_without_the_restart_of_a_worker() {
    let mut cluster = Cluster::start().await;
    endless(&cluster).await;
    let authority = Authority::new("of the test");
    let addresses = demand_certificates(&mut cluster, &authority).await;
    let dir = certificates_dir(&cluster, &authority);
    for name in ["daemon", "worker"] {
        issue(&authority, &dir, name);
    }
    for daemon in cluster.nimbuses.iter().chain(&cluster.supervisors) {
        use_certificates(&cluster, &daemon.name, &addresses, (&dir, "daemon"));
    }
    let before = cluster.workers();
    restart(&mut cluster).await;
    assert_eq!(cluster.workers(), before, "no worker was restarted");

    replace_a_worker(&cluster).await;
    finish(&cluster).await;
}
