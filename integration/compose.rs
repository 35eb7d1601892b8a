//! Checks `docker-compose.yml` without a container engine: its shape, and that the daemons accept
//! the settings in it.

use std::{fs, path::Path};

use serde_json::{Map, Value};
use stormkeeper::config::{Config, Environment};
use stormkeeper_coordination::tree::options::OnMissingRoot;
use stormkeeper_topology_package::yaml;

/// Reads the file and resolves its `<<` merges.
fn compose() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker-compose.yml");
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
    let compose = compose();
    let services = compose["services"].as_object().expect("services");
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["zookeeper1", "zookeeper2", "zookeeper3", "nimbus1", "nimbus2", "supervisor1", "supervisor2"]
    );
    for (name, service) in services {
        assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(service["image"].is_string(), "{name} has no image");
        let volumes = service["volumes"].as_array().unwrap_or_else(|| panic!("{name} has no volumes"));
        for volume in volumes {
            let (volume, _) = volume.as_str().and_then(|text| text.split_once(':')).expect("name:path");
            assert!(compose["volumes"].get(volume).is_some(), "{name}: the volume {volume} is not declared");
        }
        let is_second_server = matches!(name.as_str(), "zookeeper2" | "zookeeper3");
        assert_eq!(service["profiles"].to_string().contains("ensemble"), is_second_server, "{name}");
    }
}

#[test]
fn daemons_accept_their_settings_in_both_profiles() {
    let compose = compose();
    for profile in ["", ", zookeeper2, zookeeper3"] {
        for name in ["nimbus1", "nimbus2", "supervisor1", "supervisor2"] {
            let command = compose["services"][name]["command"].as_array().expect("a command");
            let words: Vec<String> = command
                .iter()
                .map(|word| {
                    word.as_str()
                        .expect("text")
                        .replace("${COMPOSE_PROFILES:+, zookeeper2, zookeeper3}", profile)
                })
                .collect();
            assert_eq!(words[0], name[..name.len() - 1], "{words:?}");
            let given: Vec<String> =
                words.windows(2).filter(|pair| pair[0] == "-c").map(|pair| pair[1].clone()).collect();
            let (config, warnings) =
                Config::load(None, &given, &Environment::default()).expect("they are valid");
            assert!(warnings.is_empty() && given.len() >= 3, "{name}: {warnings:?}");
            let n_servers = config.tree_options(OnMissingRoot::Wait).servers.len();
            assert_eq!(n_servers, if profile.is_empty() { 1 } else { 3 });
        }
    }
}
