//! A running cluster whose tree gets users and access control lists.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use stormkeeper_coordination::{
    cluster::{layout, users::Users},
    tree::{
        CreateMode, Error, Tree as _, TreePath,
        access::{Access, AccessRules, Acl, DigestId, Rights, Who},
        options::Options,
    },
};
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, WAIT_MAX, kill9},
    recovery::{endless, finish},
    tree_contract::connect,
};

/// Names the file of its kind in the configuration of every daemon.
fn configure(cluster: &Cluster, users: &Path) {
    for (daemons, kind) in [(&cluster.nimbuses, "nimbus"), (&cluster.supervisors, "supervisor")] {
        daemons.iter().for_each(|daemon| configure_daemon(cluster, &daemon.name, kind, users));
    }
}

/// Names the file of its kind in the configuration of one daemon.
pub(crate) fn configure_daemon(cluster: &Cluster, name: &str, kind: &str, users: &Path) {
    let file = cluster.path(name).join("storm.yaml");
    let before = fs::read_to_string(&file).expect("its configuration");
    let users = users.join(format!("zookeeper-users-{kind}")).display().to_string();
    fs::write(&file, format!("{before}storm.zookeeper.users.file: {users}\n")).expect("written");
}

/// Protects the tree, as soon as the daemons say that they have the users. Returns the output.
pub(crate) async fn protect(cluster: &Cluster, config: &str, arguments: &[&str]) -> String {
    wait_until("the daemons have the users", WAIT_MAX, async || {
        let output = cluster.run(&[&["zookeeper", "protect", "--config", config], arguments].concat());
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    })
    .await
}

/// Restarts the daemons one after the other.
pub(crate) async fn restart(cluster: &mut Cluster) {
    for n in 0..cluster.nimbuses.len() {
        cluster.nimbuses[n].terminate();
        cluster.nimbuses[n].start_again();
        cluster.wait_until_ready().await;
    }
    for n in 0..cluster.supervisors.len() {
        cluster.supervisors[n].terminate();
        cluster.supervisors[n].start_again();
        cluster.wait_until_ready().await;
    }
    cluster.wait_until_whole("word-count").await;
}

/// Kills a worker, and waits until another process does its work.
pub(crate) async fn replace_a_worker(cluster: &Cluster) {
    let victim = *cluster.workers().values().next().expect("a worker");
    kill9(victim.pid);
    wait_until("another process took over", WAIT_MAX, async || {
        match cluster.workers().values().any(|worker| *worker == victim) {
            true => Err(cluster.logs()),
            false => Ok(()),
        }
    })
    .await;
    cluster.wait_until_whole("word-count").await;
}

/// Checks that a client without a user, as an attacker, may read everything and write nothing.
async fn check_that_nobody_else_writes(cluster: &Cluster) {
    let id = cluster.tree.children(&layout::storms()).await.expect("read").expect("there")[0].clone();
    let id = id.parse().expect("valid id");
    for path in [
        layout::term(),
        layout::leader(),
        layout::storm(&id),
        layout::tasks(&id),
        layout::assignment(&id),
        layout::supervisors(),
    ] {
        assert!(cluster.tree.get(&path).await.expect("everybody may read").is_some(), "{path}");
        let written = cluster.tree.set(&path, b"forged", None).await;
        assert!(matches!(written, Err(Error::NotAuthorized { .. })), "{path}: {written:?}");
        let deleted = cluster.tree.delete(&path, None).await;
        assert!(
            matches!(deleted, Err(Error::NotAuthorized { .. } | Error::NotEmpty { .. })),
            "{path}: {deleted:?}"
        );
    }
    let names = cluster.tree.children(&layout::taskbeats(&id)).await.expect("read").expect("there");
    for name in names {
        let beat = layout::taskbeat(&id, name.parse().expect("a task"));
        let deleted = cluster.tree.delete(&beat, None).await;
        assert!(matches!(deleted, Err(Error::NotAuthorized { .. })), "{beat}: {deleted:?}");
    }
}

/// Files of users of the workers that run.
fn worker_files(cluster: &Cluster) -> Vec<std::path::PathBuf> {
    let dirs = cluster.supervisors.iter().map(|daemon| cluster.path(&daemon.name).join("supervisor/workers"));
    let workers =
        dirs.flat_map(|dir| fs::read_dir(dir).expect("listed").map(|entry| entry.expect("listed").path()));
    workers.map(|dir| dir.join("zookeeper.users")).filter(|file| file.exists()).collect()
}

/// Waits until the file of every worker is as wanted.
async fn wait_for_files(cluster: &Cluster, is_wanted: impl Fn(&str) -> bool) {
    wait_until("every worker has its users", WAIT_MAX, async || {
        let texts: Vec<String> =
            worker_files(cluster).iter().map(|file| fs::read_to_string(file).expect("read")).collect();
        match texts.len() == 2 && texts.iter().all(|text| is_wanted(text)) {
            true => Ok(()),
            false => Err(format!("{} files\n{}", texts.len(), cluster.logs())),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_cluster_is_protected_and_survives_the_loss_of_leader_and_worker() {
    let mut cluster = Cluster::start().await;
    endless(&cluster).await;
    let users = cluster.path("users");
    fs::create_dir(&users).expect("created");
    let dir = users.display().to_string();
    let made = cluster.ok(&["zookeeper", "users", &dir, "--open"]);
    assert_eq!(made.lines().count(), 2, "{made}");
    let again = cluster.run(&["zookeeper", "users", &dir]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success(), "the files are not overwritten");
    assert!(said.contains("exists already") && said.contains("--add KIND"), "{said}");

    configure(&cluster, &users);
    let before = cluster.workers();
    restart(&mut cluster).await;
    wait_for_files(&cluster, |text| text.contains("own worker:") && text.contains("open")).await;
    cluster.ok(&["zookeeper", "users", &dir, "--close"]);
    wait_for_files(&cluster, |text| text.contains("own worker:") && !text.contains("open")).await;

    let config = cluster.path(&cluster.nimbuses[0].name).join("storm.yaml").display().to_string();
    let of_supervisor = cluster.path(&cluster.supervisors[0].name).join("storm.yaml").display().to_string();
    let refused = cluster.run(&["zookeeper", "protect", "--config", &of_supervisor]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("not the file of a nimbus"), "{message}");
    let done = protect(&cluster, &config, &[]).await;
    assert!(done.contains("/stormkeeper is protected"), "{done}");
    let done = cluster.ok(&["zookeeper", "protect", "--config", &config]);
    assert!(done.contains("was protected by these users already"), "{done}");
    check_that_nobody_else_writes(&cluster).await;
    assert_eq!(cluster.workers(), before, "no worker was restarted");
    for file in worker_files(&cluster) {
        let text = fs::read_to_string(&file).expect("read");
        assert!(!text.contains("workers ") && text.contains("own worker:"), "no key of other topologies");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    }

    let leading = cluster.leading().await.expect("a leader");
    cluster.nimbuses[leading.nimbus].kill9();
    cluster.wait_for_leader_after(leading.term).await;
    replace_a_worker(&cluster).await;
    check_that_nobody_else_writes(&cluster).await;
    cluster.nimbuses[leading.nimbus].start_again();
    cluster.wait_until_nimbuses_registered().await;
    finish(&cluster).await;
}

/// Access control lists of a hostile component: nobody else may do anything.
#[derive(Debug)]
struct OnlyMine(DigestId);

impl AccessRules for OnlyMine {
    fn acl_of(&self, _path: &TreePath) -> Vec<Acl> {
        vec![(Who::User(self.0.clone()), Rights::All)]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn znodes_that_a_component_keeps_from_the_nimbuses_stop_nothing_and_are_named() {
    let mut cluster = Cluster::start().await;
    let users = cluster.path("users");
    fs::create_dir(&users).expect("created");
    cluster.ok(&["zookeeper", "users", &users.display().to_string()]);
    configure(&cluster, &users);
    endless(&cluster).await;
    restart(&mut cluster).await;
    let config = cluster.path(&cluster.nimbuses[0].name).join("storm.yaml").display().to_string();
    wait_for_files(&cluster, |text| text.contains("own worker:")).await;
    protect(&cluster, &config, &[]).await;

    let id = cluster.tree.children(&layout::storms()).await.expect("read").expect("there")[0].clone();
    let id = id.parse().expect("valid id");
    let text = fs::read_to_string(&worker_files(&cluster)[0]).expect("the file of a worker");
    let worker = Users::parse(&text).expect("valid");
    let only_mine = OnlyMine(worker.own()[0].id());
    let mut options: Options = cluster.zookeeper.options(cluster.tree.root().clone());
    options.access = Some(Access {
        credentials: worker.own().to_vec(),
        rules: Some(Arc::new(only_mine)),
        sasl: None,
        sasl_line: String::new(),
    });
    let open = Access { rules: None, ..options.access.clone().expect("set") };
    let with_open_lists = connect(Options { access: Some(open), ..options.clone() }).await;
    let hostile = connect(options).await;
    let kept: Vec<TreePath> = [layout::taskbeats(&id), layout::taskerrors(&id), layout::last_errors(&id)]
        .iter()
        .map(|parent| parent.child("77").expect("valid"))
        .collect();
    for path in &kept {
        hostile.tree.create(path, b"", CreateMode::Persistent).await.expect("created");
        let below = path.child("below").expect("valid");
        hostile.tree.create(&below, b"", CreateMode::Persistent).await.expect("created");
    }
    // Names that are too long for many in one request.
    for n in 0..4 {
        for parent in [layout::taskbeats(&id), layout::taskerrors(&id), layout::last_errors(&id)] {
            let long = parent.child(&format!("{n}{}", "x".repeat(300_000))).expect("valid");
            with_open_lists.tree.create(&long, b"", CreateMode::Persistent).await.expect("created");
        }
    }
    for command in [["show", "word-count"], ["get-errors", "word-count"], ["list", "--json"]] {
        cluster.ok(&command);
    }
    let listed: serde_json::Value = serde_json::from_str(&cluster.ok(&["list", "--json"])).expect("JSON");
    let topology = &listed["topologies"][0];
    assert_eq!(topology["tasks_alive"], topology["tasks_total"], "{listed}");

    cluster.ok(&["kill", "word-count", "-w", "0s"]);
    wait_until("the kill is complete, and the rest is named", WAIT_MAX, async || {
        let seen = (cluster.ok(&["list", "--json"]), cluster.ok(&["cluster"]));
        let listed: serde_json::Value = serde_json::from_str(&seen.0).expect("JSON");
        let no_topologies = listed["topologies"].as_array().is_some_and(Vec::is_empty);
        match no_topologies && seen.1.contains("superuser") && seen.1.contains("/77") {
            true => Ok(()),
            false => Err(format!("{}\n{}\n{}", seen.0, seen.1, cluster.logs())),
        }
    })
    .await;
    endless(&cluster).await;
    for path in &kept {
        hostile.tree.delete(&path.child("below").expect("valid"), None).await.expect("deleted");
        hostile.tree.delete(path, None).await.expect("deleted");
    }
    drop((hostile, with_open_lists));
    finish(&cluster).await;
}
