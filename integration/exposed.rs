//! Daemons that nobody has locked: they are reached from their own host only, or say that they are not.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Daemon, WAIT_MAX, free_ports};

/// Starts a daemon without ZooKeeper, and waits until its log has `text`.
async fn started(kind: &'static str, dir: &Path, settings: &str, text: &str) -> Daemon {
    fs::create_dir_all(dir).expect("a directory");
    let config = format!("storm.local.dir: {}\nstorm.zookeeper.port: 1\n{settings}", dir.display());
    fs::write(dir.join("storm.yaml"), config).expect("written");
    let daemon = Daemon::start(kind, kind, dir);
    wait_until(&format!("the log says {text:?}"), WAIT_MAX, async || {
        let log = daemon.log();
        if log.contains(text) { Ok(()) } else { Err(log) }
    })
    .await;
    daemon
}

fn is_reached(address: [u8; 4], port: u16) -> bool {
    let address = SocketAddr::from((address, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_that_everybody_could_use_does_not_start_and_an_insecure_one_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    for (kind, key) in [("nimbus", "ui.host"), ("supervisor", "supervisor.worker.host")] {
        for set in [format!("{key}=0.0.0.0"), "nimbus.seeds=[n1, n2]".to_owned()] {
            let local_dir = format!("storm.local.dir={}", dir.path().join("refused").display());
            let output = Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
                .args([kind, "-c", &set, "-c", &local_dir])
                .env_remove("STORMKEEPER_CONF")
                .output()
                .expect("the binary runs");
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{message}");
            for part in ["nothing is locked", "0.0.0.0", "storm.cluster.secret.file", "--insecure", key] {
                assert!(message.contains(part), "{kind} with {set} does not say {part}: {message}");
            }
        }
    }
    let ports = free_ports(1);
    let settings = format!("ui.host: 0.0.0.0\nui.port: {}\nstorm.insecure: true\n", ports[0]);
    let said = "this daemon is not locked: everybody who reaches this host may use its API on 0.0.0.0";
    let _insecure = started("nimbus", &dir.path().join("insecure"), &settings, said).await;
    wait_until("the nimbus listens", WAIT_MAX, async || {
        if is_reached([127, 0, 0, 2], ports[0]) { Ok(()) } else { Err("it does not".to_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_without_settings_of_addresses_are_reached_on_loopback_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let ports = free_ports(2);
    let settings = format!("ui.port: {}\n", ports[0]);
    let started_at = format!("127.0.0.1:{}", ports[0]);
    let _nimbus = started("nimbus", &dir.path().join("nimbus"), &settings, &started_at).await;
    let settings = format!("supervisor.agent.port: {}\n", ports[1]);
    let listens = format!("address=127.0.0.1:{}", ports[1]);
    let _supervisor = started("supervisor", &dir.path().join("supervisor"), &settings, &listens).await;
    for port in ports {
        assert!(is_reached([127, 0, 0, 1], port), "{port}");
        // A listener on all addresses has this one, too.
        assert!(!is_reached([127, 0, 0, 2], port), "{port}");
    }
}
