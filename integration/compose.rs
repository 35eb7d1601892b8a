//! Checks both compose files without a container engine: their shape, that the daemons accept the
//! settings in them, and the secrets of the locked one.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Map, Value};
use stormkeeper::config::{Config, Environment};
use stormkeeper_access::{
    locks::{Locks, Mode, Settings},
    tls::TlsSettings,
};
use stormkeeper_coordination::tree::options::OnMissingRoot;
use stormkeeper_topology_package::yaml;

/// Cluster without locks.
const OPEN: &str = "docker-compose.yml";

/// Cluster with locks.
const SECURE: &str = "docker-compose.secure.yml";

/// Service that makes the secrets of the locked cluster.
const MAKER: &str = "secrets";

/// Reads a file and resolves its `<<` merges.
fn compose(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).expect("the file is there");
    merged(yaml::parse(&text).expect("it is YAML").to_json())
}

fn merged(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let mut all = Map::new();
            for (key, value) in entries {
                match (key.as_str(), merged(value)) {
                    ("<<", Value::Object(base)) => all.extend(base),
                    (_, value) => drop(all.insert(key, value)),
                }
            }
            Value::Object(all)
        }
        Value::Array(items) => items.into_iter().map(merged).collect(),
        other => other,
    }
}

#[test]
fn every_service_has_a_health_check_a_restart_policy_and_volumes() {
    for file in [OPEN, SECURE] {
        let compose = compose(file);
        let services = compose["services"].as_object().expect("services");
        assert_eq!(services.contains_key(MAKER), file == SECURE);
        let services: Vec<_> = services.iter().filter(|(name, _)| *name != MAKER).collect();
        let names: Vec<&str> = services.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["zookeeper1", "zookeeper2", "zookeeper3", "nimbus1", "nimbus2", "supervisor1", "supervisor2"]
        );
        for (name, service) in &services {
            assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
            assert_eq!(service["restart"], "unless-stopped", "{name}");
            assert!(service["image"].is_string(), "{name} has no image");
            let volumes = service["volumes"].as_array().unwrap_or_else(|| panic!("{name} has no volumes"));
            for volume in volumes {
                let (volume, _) = volume.as_str().and_then(|text| text.split_once(':')).expect("name:path");
                assert!(compose["volumes"].get(volume).is_some(), "{name}: {volume} is not declared");
            }
            let is_second_server = matches!(name.as_str(), "zookeeper2" | "zookeeper3");
            assert_eq!(service["profiles"].to_string().contains("ensemble"), is_second_server, "{name}");
        }
        let ports = services.iter().flat_map(|(_, service)| service["ports"].as_array()).flatten();
        let ports: Vec<&str> = ports.filter_map(Value::as_str).collect();
        assert_eq!(ports, ["127.0.0.1:8081:8080", "127.0.0.1:8082:8080"], "{file} publishes more");
    }
}

/// Settings of a daemon in its command.
fn settings(compose: &Value, name: &str, profile: &str) -> Vec<String> {
    let command = compose["services"][name]["command"].as_array().expect("a command");
    let word = |word: &Value| {
        let text = word.as_str().expect("text");
        text.replace("${COMPOSE_PROFILES:+, zookeeper2, zookeeper3}", profile)
    };
    let words: Vec<String> = command.iter().map(word).collect();
    assert_eq!(words[0], name[..name.len() - 1], "{words:?}");
    words.windows(2).filter(|pair| pair[0] == "-c").map(|pair| pair[1].clone()).collect()
}

#[test]
fn daemons_accept_their_settings_in_both_profiles() {
    for (file, profile) in [OPEN, SECURE]
        .into_iter()
        .flat_map(|file| ["", ", zookeeper2, zookeeper3"].into_iter().map(move |profile| (file, profile)))
    {
        let compose = compose(file);
        for name in ["nimbus1", "nimbus2", "supervisor1", "supervisor2"] {
            let given = settings(&compose, name, profile);
            let (config, warnings) =
                Config::load(None, &given, &Environment::default()).expect("they are valid");
            assert!(warnings.is_empty() && given.len() >= 3, "{name}: {warnings:?}");
            let exposed = match name.starts_with("nimbus") {
                true => config.exposure_of_nimbus(false),
                false => config.exposure_of_supervisor(false),
            };
            match file {
                SECURE => assert_eq!(exposed, Ok(None), "{name} is not locked"),
                _ => assert!(
                    matches!(&exposed, Ok(Some(text)) if text.contains("storm.insecure")),
                    "{name}: {exposed:?}"
                ),
            }
            let n_servers = config.tree_options(OnMissingRoot::Wait).servers.len();
            assert_eq!(n_servers, if profile.is_empty() { 1 } else { 3 });
        }
    }
}

/// Files of TLS in a volume, as the daemons have them in their settings.
fn tls(volume: &Path) -> TlsSettings {
    let compose = compose(SECURE);
    let name = if volume.ends_with("nimbus") { "nimbus1" } else { "supervisor1" };
    // The containers have the names of the services.
    let environment = Environment { hostname: name.to_owned(), ..Environment::default() };
    let (config, _) =
        Config::load(None, &settings(&compose, name, ""), &environment).expect("they are valid");
    let moved = |path: Option<PathBuf>| {
        let path = path.expect("it is set");
        Some(volume.join(path.strip_prefix("/etc/stormkeeper").expect("the place of the volume")))
    };
    let settings = config.access_settings().tls;
    TlsSettings {
        certificate: moved(settings.certificate),
        key: moved(settings.key),
        authorities: moved(settings.authorities),
        ..settings
    }
}

/// Runs the service that makes the secrets, in `dir` and with this build.
fn make_secrets(dir: &Path) {
    let compose = compose(SECURE);
    let maker = &compose["services"][MAKER];
    let script = maker["command"][0].as_str().expect("a script").replace("$$", "$");
    let script = script.replace("cd /secrets", &format!("cd {}", dir.join("volumes").display()));
    let output = Command::new("bash")
        .args(["-euc", &script])
        .env("PATH", format!("{}:/usr/bin:/bin", dir.join("bin").display()))
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn secrets_of_the_locked_cluster_are_made_once_and_accepted_by_its_daemons() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["bin", "volumes/nimbus", "volumes/supervisor"] {
        fs::create_dir_all(dir.path().join(name)).expect("a directory");
    }
    symlink(env!("CARGO_BIN_EXE_stormkeeper"), dir.path().join("bin/stormkeeper")).expect("linked");
    // The user of the image does not exist here.
    symlink("/bin/true", dir.path().join("bin/chown")).expect("linked");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make-certificates");
    symlink(script, dir.path().join("bin/make-certificates")).expect("linked");
    make_secrets(dir.path());

    let (nimbus, supervisor) = (dir.path().join("volumes/nimbus"), dir.path().join("volumes/supervisor"));
    let names = |of: &Path| {
        let mut names: Vec<String> = fs::read_dir(of)
            .expect("readable")
            .map(|entry| {
                let entry = entry.expect("readable");
                assert_eq!(entry.metadata().expect("there").mode() & 0o777, 0o600, "{entry:?}");
                entry.file_name().into_string().expect("text")
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&nimbus),
        [
            "admin.token",
            "ca.crt",
            "cluster.secret",
            "daemon.crt",
            "daemon.key",
            "operator.token",
            "reader.token",
            "storm.yaml",
            "tokens",
            "zookeeper-users-nimbus"
        ]
    );
    assert_eq!(
        names(&supervisor),
        [
            "ca.crt",
            "cluster.secret",
            "daemon.crt",
            "daemon.key",
            "reader.token",
            "zookeeper-users-supervisor"
        ]
    );
    let of = |of: &Path, tokens: bool| Settings {
        tokens: tokens.then(|| of.join("tokens")),
        secret: Some(of.join("cluster.secret")),
        tls: tls(of),
        ..Settings::default()
    };
    assert_eq!(Locks::of_nimbus(&of(&nimbus, true)).expect("accepted").mode(), Mode::Required);
    assert_eq!(Locks::of_supervisor(&of(&supervisor, false)).expect("accepted").mode(), Mode::Required);

    let read = |name: &str| fs::read(nimbus.join(name)).expect("there");
    let before = ["admin.token", "daemon.crt", "ca.crt"].map(read);
    make_secrets(dir.path());
    assert_eq!(["admin.token", "daemon.crt", "ca.crt"].map(read), before, "kept at the next start");
    // Volumes of a build before TLS, and certificates that have been deleted.
    fs::remove_file(nimbus.join("daemon.crt")).expect("removed");
    fs::write(nimbus.join("storm.yaml"), "ui.token.file: x\n").expect("written");
    make_secrets(dir.path());
    let after = ["admin.token", "daemon.crt", "ca.crt"].map(read);
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1], "a new certificate of the same authority");
    Locks::of_nimbus(&of(&nimbus, true)).expect("accepted");
    let yaml = fs::read_to_string(nimbus.join("storm.yaml")).expect("there");
    assert!(yaml.contains("storm.tls.ca.file: /etc/stormkeeper/ca.crt"), "{yaml}");
}
