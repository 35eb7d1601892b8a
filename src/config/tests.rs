use std::{path::Path, time::Duration};

use super::*;
use stormkeeper_coordination::tree::options::OnMissingRoot;
use stormkeeper_model::{Port, settings};
use stormkeeper_runtime::net::ListenOn;

fn environment() -> Environment {
    Environment { named_file: None, default_file: None, hostname: "here".to_owned() }
}

/// Loads `text` as `storm.yaml` with `overrides`. Messages contain the name of the file without its
/// directory.
fn load(text: &str, overrides: &[&str]) -> Result<(Config, Vec<String>), String> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("storm.yaml");
    std::fs::write(&path, text).expect("written");
    let plain = |text: String| text.replace(&format!("{}/", dir.path().display()), "");
    let overrides: Vec<String> = overrides.iter().map(|&given| given.to_owned()).collect();
    Config::load(Some(&path), &overrides, &environment())
        .map(|(config, warnings)| {
            (config, warnings.iter().map(|warning| plain(warning.to_string())).collect())
        })
        .map_err(|error| plain(error.to_string()))
}

#[test]
fn defaults_fill_every_option() {
    let (config, warnings) = Config::load(None, &[], &environment()).expect("the defaults are valid");
    assert_eq!(warnings, []);
    let tree = config.tree_options(OnMissingRoot::Create);
    assert_eq!(tree.servers, ["localhost:2181"]);
    assert_eq!(tree.root.as_str(), "/stormkeeper");
    assert_eq!(tree.session_timeout, Duration::from_secs(10));
    let nimbus = config.nimbus_options();
    assert_eq!(nimbus.api.to_string(), "127.0.0.1:8080");
    assert_eq!(nimbus.host, "127.0.0.1");
    assert_eq!(nimbus.settle, Duration::from_secs(15));
    assert_eq!(nimbus.tracking.message_timeout, Duration::from_secs(30));
    assert_eq!(nimbus.max_blob_bytes, 64 << 20);
    assert!(nimbus.local_dir.is_absolute() && nimbus.local_dir.ends_with("stormkeeper-local"));
    let supervisor = config.supervisor_options();
    assert_eq!(supervisor.ports, [6700, 6701, 6702, 6703].map(Port));
    assert!(supervisor.capacity.is_unlimited());
    assert_eq!(config.worker_timing().heartbeat_period, Duration::from_secs(1));
    assert_eq!(config.nimbus_seeds(), ["localhost:8080"]);
    assert!(config.topology_defaults().is_empty());
    assert!(config.show().iter().all(|shown| shown.provenance == "default"));
}

#[test]
fn key_table_is_sorted_by_name() {
    assert!(key::all().is_sorted_by_key(|key| key.name));
}

#[test]
fn command_line_overrides_the_file_and_each_value_has_its_source() {
    let text = "ui.port: 9000\nnimbus.seeds: [n1, 'n2:1']\ntopology.workers: 3\nstorm.local.hostname: h\n";
    let (config, warnings) = load(text, &["ui.port=9001", "supervisor.slots.ports=[1, 2]"]).expect("valid");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.nimbus_seeds(), ["n1:9001", "n2:1"]);
    assert_eq!(config.supervisor_options().ports, [Port(1), Port(2)]);
    assert_eq!(config.supervisor_options().host, "h");
    assert_eq!(config.topology_defaults()["topology.workers"], 3);
    let from = |key: &str| {
        let shown = config.show().into_iter().find(|shown| shown.key == key).expect("is shown");
        (shown.value.to_string(), shown.provenance.rsplit('/').next().unwrap_or_default().to_owned())
    };
    assert_eq!(from("ui.port"), ("9001".to_owned(), "command line".to_owned()));
    assert_eq!(from("nimbus.seeds"), (r#"["n1","n2:1"]"#.to_owned(), "storm.yaml:2".to_owned()));
    assert_eq!(from("topology.workers"), ("3".to_owned(), "storm.yaml:3".to_owned()));
    assert_eq!(from("ui.host"), ("null".to_owned(), "default".to_owned()));
}

#[test]
fn secrets_in_the_configuration_are_not_shown() {
    let text = "topology.db.password: hunter2\nnimbus.metrics.plugin.opentsdb.url: http://ann:hunter2@h:1\n";
    let (config, _) = load(text, &["ui.tokens.file=/etc/tokens"]).expect("valid");
    let shown = config.show();
    assert!(shown.iter().all(|shown| !shown.value.to_string().contains("hunter2")), "{shown:?}");
    let value = |key: &str| shown.iter().find(|shown| shown.key == key).map(|shown| shown.value.clone());
    assert_eq!(value("topology.db.password"), Some("(secret)".into()));
    assert_eq!(value("ui.tokens.file"), Some("/etc/tokens".into()));
    assert_eq!(config.topology_defaults()["topology.db.password"], "hunter2", "components get it");
}

#[test]
fn times_and_sizes_with_units_are_accepted() {
    let (config, _) =
        load("nimbus.monitor.freq.secs: 2m\nnimbus.settle.secs: 0\nnimbus.max.blob.bytes: 1GiB\n", &[])
            .expect("valid");
    let nimbus = config.nimbus_options();
    assert_eq!(nimbus.monitor_period, Duration::from_secs(120));
    assert_eq!(nimbus.settle, Duration::ZERO);
    assert_eq!(nimbus.max_blob_bytes, 1 << 30);
}

#[test]
fn api_is_addressed_by_the_names_of_this_host_the_seeds_and_the_allowed_hosts() {
    let names = |text| load(text, &[]).expect("valid").0.nimbus_options().api_names;
    let hostname = environment().hostname;
    assert_eq!(names(""), ["localhost:8080", hostname.as_str()]);
    let text = "nimbus.seeds: [n1, n2]\nstorm.local.hostname: n1\nui.allowed.hosts: [ui.example.com]\n";
    assert_eq!(names(text), ["n1", "n2", "ui.example.com", hostname.as_str()]);
}

#[test]
fn daemons_without_locks_listen_on_loopback_and_announce_it() {
    let of = |text: &str| load(text, &[]).expect("valid").0;
    let plain = of("");
    assert_eq!(plain.exposure_of_nimbus(false), Ok(None));
    assert_eq!(plain.exposure_of_supervisor(false), Ok(None));
    let supervisor = plain.supervisor_options();
    assert_eq!(plain.workers_listen_on(), ListenOn::Address([127, 0, 0, 1].into()));
    assert_eq!(supervisor.host, "127.0.0.1");
    let agent = supervisor.agent.expect("an agent");
    assert_eq!(
        (agent.address.to_string(), agent.names),
        ("127.0.0.1:8000".to_owned(), vec!["here".to_owned()])
    );
    let second = of("storm.local.hostname: 127.0.0.2");
    assert_eq!(second.nimbus_options().api.to_string(), "127.0.0.2:8080");
    assert_eq!(second.supervisor_options().host, "127.0.0.2");
    assert_eq!(second.workers_listen_on(), ListenOn::Address([127, 0, 0, 2].into()));
    let named = of("storm.local.hostname: me\nui.host: 127.0.0.1\nsupervisor.worker.host: \"::1\"\n");
    assert_eq!(named.exposure_of_nimbus(false), Ok(None));
    assert_eq!(
        (named.nimbus_options().host.as_str(), named.supervisor_options().host.as_str()),
        ("me", "me")
    );
}

#[test]
fn open_cluster_of_several_hosts_is_refused_unless_it_is_insecure() {
    let of = |text: &str| load(text, &[]).expect("valid").0;
    for text in [
        "nimbus.seeds: [n1]",
        "storm.zookeeper.servers: [zk1, zk2]",
        "storm.local.hostname: n1",
        "ui.host: 10.0.0.1\nsupervisor.worker.host: 0.0.0.0",
        "nimbus.seeds: [n1]\nstorm.access: open\nui.tokens.file: t\nstorm.cluster.secret.file: s\n",
    ] {
        let config = of(text);
        assert!(config.exposure_of_nimbus(false).is_err(), "{text}");
        assert!(config.exposure_of_supervisor(false).is_err(), "{text}");
        let insecure = of(&format!("{text}\nstorm.insecure: true"));
        assert!(matches!(config.exposure_of_nimbus(true), Ok(Some(_))), "{text}");
        assert_eq!(config.exposure_of_nimbus(true), insecure.exposure_of_nimbus(false));
        assert_eq!(config.exposure_of_supervisor(true), insecure.exposure_of_supervisor(false));
        assert_eq!(config.nimbus_options().api, insecure.nimbus_options().api, "the flag only allows it");
    }
    let seeds = of("nimbus.seeds: [n1]");
    assert_eq!(
        (seeds.nimbus_options().api.to_string(), seeds.nimbus_options().host),
        ("0.0.0.0:8080".to_owned(), "here".to_owned())
    );
    assert_eq!(seeds.workers_listen_on(), ListenOn::All);
    let agent = seeds.supervisor_options().agent.expect("an agent");
    assert_eq!(agent.address.to_string(), "127.0.0.1:8000", "monitors are no reason to open it");
}

#[test]
fn locked_cluster_listens_on_all_addresses_and_a_supervisor_needs_the_secret_only() {
    let of = |text: &str| load(text, &[]).expect("valid").0;
    let locked = of("ui.tokens.file: t\nstorm.cluster.secret.file: s\n");
    assert_eq!(
        (locked.exposure_of_nimbus(false), locked.exposure_of_supervisor(false)),
        (Ok(None), Ok(None))
    );
    assert_eq!(
        (locked.nimbus_options().api.to_string(), locked.nimbus_options().host),
        ("0.0.0.0:8080".to_owned(), "here".to_owned())
    );
    assert_eq!(
        (locked.workers_listen_on(), locked.supervisor_options().host.as_str()),
        (ListenOn::All, "here")
    );
    let supervisor = of("storm.cluster.secret.file: s\nnimbus.seeds: [n1]\nstorm.local.hostname: 10.0.0.7\n");
    assert_eq!(supervisor.exposure_of_supervisor(false), Ok(None));
    assert_eq!(supervisor.workers_listen_on(), ListenOn::Preferred([10, 0, 0, 7].into()));
    let agent = supervisor.supervisor_options().agent.expect("an agent");
    assert_eq!(agent.address.to_string(), "0.0.0.0:8000");
    let step =
        of("ui.tokens.file: t\nstorm.cluster.secret.file: s\nstorm.access: optional\nnimbus.seeds: [n1]\n");
    assert!(matches!(step.exposure_of_nimbus(false), Ok(Some(_))));
    assert!(matches!(step.exposure_of_supervisor(false), Ok(Some(_))));
}

#[test]
fn unknown_and_unsupported_keys_are_warnings_with_a_suggestion() {
    let check = |text: &str, expected: &str| {
        let (_, warnings) = load(text, &[]).expect("warnings are not errors");
        assert_eq!(warnings, [expected]);
    };
    check("ui.prot: 1", "storm.yaml:1: `ui.prot` is unknown; did you mean `ui.port`?");
    check("my.own: 1", "storm.yaml:1: `my.own` is unknown and has no effect");
    check("\nstorm: {zookeeper: x}", "storm.yaml:2: `storm` is unknown and has no effect");
    check(
        "nimbus.thrift.port: 6627",
        "storm.yaml:1: `nimbus.thrift.port` has no effect: there is no Thrift and no Netty: nimbus serves HTTP \
         at `ui.port`; set `nimbus.seeds` for clients",
    );
    check(
        "worker.childopts: -Xmx1g",
        "storm.yaml:1: `worker.childopts` has no effect: Stormkeeper has no JVM",
    );
    check(
        "topology.worker: 4",
        "storm.yaml:1: `topology.worker` has no effect; did you mean `topology.workers`?",
    );
    check(
        "topology.colour: blue",
        "storm.yaml:1: `topology.colour` has no effect here; it is only passed on to components",
    );
    let (config, warnings) = load("", &["words.file=/data/words", "topology.workers=3"]).expect("valid");
    assert!(warnings.is_empty(), "a key of the author is for the topology: {warnings:?}");
    let given = config.topology_overrides();
    assert_eq!(given["words.file"], "/data/words");
    assert_eq!(config.topology_defaults().keys().collect::<Vec<_>>(), ["topology.workers"]);
    let (_, warnings) = load("", &["ui.prot=1"]).expect("a warning is no error");
    assert!(warnings[0].contains("did you mean `ui.port`?"), "{warnings:?}");
    let (config, _) = load("topology.colour: blue", &[]).expect("valid");
    assert_eq!(config.topology_defaults()["topology.colour"], "blue");
}

#[test]
fn invalid_values_are_errors_with_key_and_line() {
    let check = |text: &str, expected: &str| {
        let error = load(text, &[]).expect_err(text);
        assert_eq!(error, expected);
    };
    check("ui.port: high", "storm.yaml:1: `ui.port` is \"high\", and must be a port from 0 to 65535");
    check(
        "nimbus.monitor.freq.secs: 0",
        "storm.yaml:1: `nimbus.monitor.freq.secs` is 0, and must be a time from 1s to 1h, as seconds or with a \
         unit (\"30s\", \"5m\")",
    );
    check(
        "storm.zookeeper.servers: []",
        "storm.yaml:1: `storm.zookeeper.servers` is [], and must be a list of 1 to 100 hosts, each `host` or \
         `host:port`, with a port from 1 to 65535",
    );
    check(
        "storm.zookeeper.servers: [\"zk:99999\"]",
        "storm.yaml:1: `storm.zookeeper.servers` is [\"zk:99999\"], and must be a list of 1 to 100 hosts, each `host` \
         or `host:port`, with a port from 1 to 65535: \"99999\" is not a port from 1 to 65535",
    );
    check(
        "storm.zookeeper.root: storm",
        "storm.yaml:1: `storm.zookeeper.root` is \"storm\", and must be a path such as /stormkeeper",
    );
    check("storm.local.dir:", "storm.yaml:1: `storm.local.dir` is null, and must be a string");
    check(
        "topology.workers: none",
        "storm.yaml:1: `topology.workers` is \"none\", and must be a whole number from 1 to 100000",
    );
    check(
        "\nworker.heartbeat.frequency.secs: 40",
        "storm.yaml:2: `worker.heartbeat.frequency.secs` must be shorter than `supervisor.worker.timeout.secs`, \
         or every worker is killed as unresponsive",
    );
    check(
        "ui.port: -1\nui.host: x y\n",
        "storm.yaml:2: `ui.host` is \"x y\", and must be an IP address or `localhost`\n\
         storm.yaml:1: `ui.port` is -1, and must be a port from 0 to 65535",
    );
    check(
        "\nnimbus.metric.uploader.class: log,opentsbd",
        "storm.yaml:2: `nimbus.metric.uploader.class` cannot work: `opentsbd` is not a metric exporter; did you mean \
         `opentsdb`?",
    );
    check(
        "nimbus.metrics.plugin.file.insert.filters: tasks",
        "storm.yaml:1: `nimbus.metrics.plugin.file.insert.filters` holds \"tasks\", which is no level; did you mean \
         `task`?",
    );
    for [one, other] in [
        ["storm.tls.key.file", "storm.tls.cert.file"],
        ["storm.zookeeper.tls.cert.file", "storm.zookeeper.tls.key.file"],
        ["storm.zookeeper.tls.workers.cert.file", "storm.zookeeper.tls.workers.key.file"],
        ["ui.cert.file", "ui.cert.key.file"],
    ] {
        for [set, unset] in [[one, other], [other, one]] {
            let message = format!("storm.yaml:2: `{set}` is set without `{unset}`: set both, or neither");
            check(&format!("\n{set}: /f"), &message);
        }
        load(&format!("{one}: /f\n{other}: /g\n"), &[]).expect("both are set");
    }
    check("- a\n- b\n", "storm.yaml:1:1: expected `key: value` lines, found a list");
    let broken = load("a: [1\nb: 2\n", &[]).expect_err("broken");
    assert!(broken.starts_with("storm.yaml:2:2: this is not YAML"), "{broken}");
}

#[test]
fn invalid_overrides_are_errors() {
    assert_eq!(load("", &["ui.port"]).expect_err("rejected"), "-c \"ui.port\" is not `key=value`");
    assert_eq!(
        load("ui.port: 1", &["ui.port=x"]).expect_err("rejected"),
        "command line: `ui.port` is \"x\", and must be a port from 0 to 65535"
    );
    // A value that is not YAML is a string.
    let (config, _) = load("", &["storm.local.dir=a: b: c"]).expect("valid");
    assert!(config.local_dir().ends_with("a: b: c"));
}

#[test]
fn given_file_must_exist_and_the_default_file_need_not() {
    let missing = Path::new("/no/such/storm.yaml").to_owned();
    let error = Config::load(Some(&missing), &[], &environment()).expect_err("missing");
    assert_eq!(error.to_string(), "cannot read the configuration file /no/such/storm.yaml");
    let named = Environment { named_file: Some(missing.clone()), ..environment() };
    assert!(Config::load(None, &[], &named).is_err());
    let default = Environment { default_file: Some(missing), ..environment() };
    let (config, _) = Config::load(None, &[], &default).expect("valid");
    assert_eq!(config.file(), None);
}

#[test]
fn every_metric_key_is_documented_in_the_metrics_pages() {
    let docs = [include_str!("../../docs/metrics.md"), include_str!("../../docs/exporters.md")].concat();
    let keys = key::all().map(|key| key.name).chain(settings::KNOWN.iter().map(|setting| setting.key));
    let keys: Vec<&str> = keys.filter(|key| key.contains("metric")).collect();
    assert!(keys.len() > 30, "{keys:?}");
    let missing: Vec<&str> = keys.into_iter().filter(|key| !docs.contains(&format!("`{key}`"))).collect();
    assert_eq!(missing, Vec::<&str>::new(), "neither docs/metrics.md nor docs/exporters.md names them");
}

/// Compares the reference in `docs/` with the tables; `UPDATE=1` rewrites it.
#[test]
#[expect(clippy::disallowed_methods, reason = "a developer requests the rewrite by an environment variable")]
fn generated_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let expected = reference::reference();
    if std::env::var("UPDATE").is_ok() {
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("docs/ can be created");
        std::fs::write(&path, &expected).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/configuration.md is stale: run UPDATE=1 cargo test --lib generated");
}

#[test]
fn no_configuration_key_is_called_unsupported() {
    for key in key::all() {
        assert_eq!(stormkeeper_model::unsupported_keys::key_warning(key.name), None, "{}", key.name);
    }
}

#[test]
fn every_key_of_daemons_is_a_warning_in_a_topology() {
    for key in key::all() {
        let warning = stormkeeper_topology_package::flux::topology_key_warning(key.name);
        // A topology may set the timeout of its components.
        let is_honoured = key.name == "supervisor.worker.timeout.secs";
        assert_eq!(warning.is_none(), is_honoured, "{}: {warning:?}", key.name);
    }
}

#[test]
fn addresses_are_taken_as_people_type_them() {
    let given = |set: &str| Config::load(None, &[set.to_owned()], &environment());
    let seeds = |text: &str| given(&format!("nimbus.seeds={text}")).expect(text).0.nimbus_seeds();
    assert_eq!(seeds("fd00::1"), ["[fd00::1]:8080"]);
    assert_eq!(seeds("[fd00::1]:9000"), ["[fd00::1]:9000"]);
    assert_eq!(seeds("[n1, \"fd00::1\"]"), ["n1:8080", "[fd00::1]:8080"]);
    let (config, _) = given("ui.host=::").expect("an address");
    assert_eq!(config.nimbus_options().api, "[::]:8080".parse().expect("an address"));
    let error = given("storm.zookeeper.servers=zk:99999").expect_err("no port").to_string();
    assert!(
        error.contains("storm.zookeeper.servers") && error.contains("\"99999\" is not a port"),
        "{error}"
    );
}

#[test]
fn settings_of_tls_are_read_and_misspelt_ones_refused() {
    use stormkeeper_access::tls::{TlsMode, TlsSettings};

    let read = |text: &str| load(text, &[]).map(|(config, _)| config.tls_settings());
    let host = || "here".to_owned();
    assert_eq!(read(""), Ok(TlsSettings { host: host(), ..TlsSettings::default() }));
    let settings = read(
        "storm.tls: optional\nstorm.tls.cert.file: /c\nstorm.tls.key.file: /k\nstorm.tls.ca.file: /a\n\
         storm.tls.client.certificates: required\nstorm.tls.daemons: 'n1.example.com, *.storm.example.com'\n",
    );
    let daemons = ["n1.example.com", "*.storm.example.com"].map(str::to_owned);
    assert_eq!(
        settings,
        Ok(TlsSettings {
            mode: Some(TlsMode::Optional),
            certificate: Some("/c".into()),
            key: Some("/k".into()),
            authorities: Some("/a".into()),
            client_certificates: TlsMode::Required,
            daemons: daemons.into(),
            host: host(),
        })
    );
    for bad in ["storm.tls: on", "storm.tls.client.certificates: maybe"] {
        let error = read(bad).expect_err(bad);
        assert!(error.contains("optional"), "{error}");
    }
}
