//! `zookeeper protect` looks at the users of the daemons that run before it takes rights away.

use std::{fs, path::Path};

use stormkeeper_coordination::{
    cluster::layout,
    tree::{CreateMode, Error},
};
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, WAIT_MAX},
    protected_tree::{configure_daemon, protect},
};

/// Checks whether a client without a user may change the list of supervisors, as in an open tree.
async fn is_open(cluster: &Cluster) -> bool {
    match cluster.tree.set(&layout::supervisors(), b"", None).await {
        Ok(_) => true,
        Err(Error::NotAuthorized { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Runs the command, which must be refused, and returns its message.
fn refused(cluster: &Cluster, config: &str, arguments: &[&str]) -> String {
    let output = cluster.run(&[&["zookeeper", "protect", "--config", config], arguments].concat());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{message}");
    message
}

/// Waits until the command is refused with these texts, and has changed nothing.
async fn wait_until_refused(cluster: &Cluster, config: &str, texts: [&str; 2]) {
    wait_until("only the daemon that lacks something is named", WAIT_MAX, async || {
        let message = refused(cluster, config, &[]);
        texts.iter().all(|text| message.contains(text)).then_some(()).ok_or(message)
    })
    .await;
    assert!(is_open(cluster).await, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn tree_is_not_protected_while_a_live_daemon_lacks_the_users_or_does_not_say_them() {
    let mut cluster = Cluster::start().await;
    let users = cluster.path("users");
    fs::create_dir(&users).expect("created");
    let dir = users.display().to_string();
    cluster.ok(&["zookeeper", "users", &dir]);
    let n = (cluster.nimbuses.len(), cluster.supervisors.len());
    assert_eq!(n, (2, 2));

    // Only the configuration of the command names the file.
    configure_daemon(&cluster, &cluster.nimbuses[0].name, "nimbus", &users);
    let config = cluster.path(&cluster.nimbuses[0].name).join("storm.yaml").display().to_string();
    let message = refused(&cluster, &config, &["-c", "storm.zookeeper.root=/"]);
    assert!(message.contains("has no /layout, and holds"), "the tree of other programs: {message}");
    for arguments in [&[][..], &["--even-if-unknown"]] {
        let message = refused(&cluster, &config, arguments);
        assert!(message.contains("4 of 4 live daemons"), "{message}");
        assert_eq!(message.matches("has no users").count(), 4, "{message}");
    }
    assert!(is_open(&cluster).await, "nothing was changed");

    cluster.ok(&["zookeeper", "users", &dir, "--open"]);
    configure_daemon(&cluster, &cluster.nimbuses[1].name, "nimbus", &users);
    configure_daemon(&cluster, &cluster.supervisors[0].name, "supervisor", &users);
    for nimbus in 0..2 {
        cluster.nimbuses[nimbus].terminate();
        cluster.nimbuses[nimbus].start_again();
        cluster.wait_until_ready().await;
    }
    cluster.supervisors[0].terminate();
    cluster.supervisors[0].start_again();
    cluster.wait_until_ready().await;
    cluster.ok(&["zookeeper", "users", &dir, "--close"]);
    wait_until_refused(&cluster, &config, ["1 of 4 live daemons", "has no users"]).await;

    configure_daemon(&cluster, &cluster.supervisors[1].name, "supervisor", &users);
    cluster.supervisors[1].terminate();
    cluster.supervisors[1].start_again();
    cluster.wait_until_ready().await;
    let older = layout::supervisor(&"older".parse().expect("valid id"));
    let record = br#"{"v":1,"host":"h9","ports":[],"resources":{"cpu_percent":1,"memory_mb":1},"version":"0","start_ms":1}"#;
    cluster.tree.create(&older, record, CreateMode::Ephemeral).await.expect("created");
    let named = "supervisor older at h9 does not say which users it has";
    wait_until_refused(&cluster, &config, ["1 of 5 live daemons", named]).await;

    let done = cluster.run(&["zookeeper", "protect", "--config", &config, "--even-if-unknown"]);
    let warned = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && warned.contains("warning: 1 of 5 live daemons"), "{warned}");
    assert!(!is_open(&cluster).await, "it is protected");

    replace_a_password(&cluster, &config, &users).await;
    spoil_files(&cluster, &users).await;
    mix_files(&cluster, &config, &users);
}

/// Replaces the password of supervisors, which no step may do before the daemons and the lists are ready.
async fn replace_a_password(cluster: &Cluster, config: &str, users: &Path) {
    let copied = cluster.path("copied");
    fs::create_dir(&copied).expect("created");
    for name in ["zookeeper-users-nimbus", "zookeeper-users-supervisor"] {
        fs::copy(users.join(name), copied.join(name)).expect("copied");
    }
    let copy_to = |name: &str| {
        fs::copy(copied.join(name), users.join(name)).expect("copied");
    };
    let dir = copied.display().to_string();
    cluster.ok(&["zookeeper", "users", &dir, "--add", "supervisor"]);
    let remove = |arguments: &[&str]| {
        let command = ["zookeeper", "users", &dir, "--remove-old", "supervisor", "--config", config];
        let output = cluster.run(&[&command[..], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, message) = remove(&["--even-if-unknown"]);
    assert_eq!(
        (code, message.matches("does not have the new password yet").count()),
        (Some(4), 2),
        "{message}"
    );
    assert!(message.contains("older"), "{message}");
    copy_to("zookeeper-users-supervisor");
    wait_until("the lists are the next obstacle", WAIT_MAX, async || {
        let (code, message) = remove(&["--even-if-unknown"]);
        assert_eq!(code, Some(4), "{message}");
        message.contains("are not those of these files").then_some(()).ok_or(message)
    })
    .await;
    copy_to("zookeeper-users-nimbus");
    protect(cluster, config, &["--even-if-unknown"]).await;
    let (code, message) = remove(&[]);
    assert!(code == Some(4) && message.contains("1 of 5 live daemons"), "{message}");
    assert_eq!(remove(&["--even-if-unknown"]).0, Some(0));
    copy_to("zookeeper-users-nimbus");
    copy_to("zookeeper-users-supervisor");
    protect(cluster, config, &["--even-if-unknown"]).await;
}

/// Writes a mistake into the files of the running daemons, which name it, and repairs it.
async fn spoil_files(cluster: &Cluster, users: &Path) {
    for (name, command) in [("zookeeper-users-nimbus", "nimbuses"), ("zookeeper-users-supervisor", "cluster")]
    {
        let path = users.join(name);
        let good = fs::read_to_string(&path).expect("read");
        let words = [name, "line 1", "its last good content is in force"];
        for (text, is_named) in [(format!("0wn x\n{good}"), true), (good.clone(), false)] {
            fs::write(&path, &text).expect("written");
            wait_until("the mistake is named while it is there", WAIT_MAX, async || {
                let shown = cluster.ok(&[command]);
                let found = words.iter().filter(|word| shown.contains(*word)).count();
                (found == if is_named { words.len() } else { 0 }).then_some(()).ok_or(shown)
            })
            .await;
        }
    }
}

/// Protects the tree with a file whose users no supervisor has, and changes files of two clusters.
fn mix_files(cluster: &Cluster, config: &str, users: &Path) {
    let other = cluster.path("other");
    fs::create_dir(&other).expect("created");
    cluster.ok(&["zookeeper", "users", &other.display().to_string()]);
    let line = |dir: &Path| {
        let text = fs::read_to_string(dir.join("zookeeper-users-nimbus")).expect("read");
        let mut lines = text.lines().map(str::to_owned);
        lines.find(|line| line.starts_with("supervisor ")).expect("a line")
    };
    let nimbus = users.join("zookeeper-users-nimbus");
    let text = fs::read_to_string(&nimbus).expect("read");
    fs::write(&nimbus, text.replace(&line(users), &line(&other))).expect("written");
    let message = refused(cluster, config, &["--even-if-unknown"]);
    assert_eq!(message.matches("has other users than this file").count(), 2, "{message}");
    let mixed = cluster.run(&["zookeeper", "users", &users.display().to_string(), "--add", "workers"]);
    let message = String::from_utf8_lossy(&mixed.stderr).into_owned();
    assert!(
        mixed.status.code() == Some(2) && message.contains("differ in the lines `supervisor`"),
        "{message}"
    );
}
