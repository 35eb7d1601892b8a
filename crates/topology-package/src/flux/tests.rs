//! Valid files, and invalid ones with the exact faults.

use std::{fs, path::Path};

use super::*;
use crate::package::read_topology;
use stormkeeper_model::topology::{ComponentKind, Grouping, Run, Topology};

const WORD_COUNT: &str = "\
name: word-count
config:
  topology.workers: 2
  words.file: text.txt
spouts:
  - id: sentences
    command: [python3, sentences.py]
    output: [sentence]
bolts:
  - id: split
    parallelism: 4
    command: [python3, split.py, 3]
    output:
      default: [word]
      odd: {fields: [line], direct: true}
  - id: count
    command: [python3, count.py]
    config: {topology.tick.tuple.freq.secs: 1}
streams:
  - {from: sentences, to: split, grouping: {type: SHUFFLE}}
  - {name: words, from: split, to: count, grouping: {type: fields, args: [word]}}
  - {from: split, to: count, grouping: {type: DIRECT, streamId: odd}}
";

fn good(text: &str) -> (Topology, Vec<String>) {
    let Parsed { topology, warnings } = parse(text).unwrap_or_else(|faults| panic!("{faults}"));
    (topology, warnings.iter().map(Fault::to_string).collect())
}

fn id(text: &str) -> stormkeeper_model::ComponentId {
    text.parse().expect("valid id")
}

/// Asserts that `text` has exactly these faults.
fn bad(text: &str, expected: &[&str]) {
    let faults = parse(text).err().map(|Faults(faults)| faults).unwrap_or_default();
    let found: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert_eq!(found, expected, "in\n{text}");
}

/// Word count with `from` replaced by `to`.
fn edited(from: &str, to: &str) -> String {
    assert!(WORD_COUNT.contains(from), "{from} is not in the word count");
    WORD_COUNT.replacen(from, to, 1)
}

#[test]
fn valid_file_is_read_completely() {
    let (topology, warnings) = good(WORD_COUNT);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(topology.name.as_str(), "word-count");
    assert_eq!(topology.wanted_workers(), 2);
    assert_eq!(topology.settings["words.file"], "text.txt");
    let split = &topology.components[&id("split")];
    assert_eq!((split.kind, split.parallelism), (ComponentKind::Bolt, 4));
    assert_eq!(split.run, Run::Command(vec!["python3".into(), "split.py".into(), "3".into()]));
    let outputs: Vec<(&str, &[String], bool)> =
        split.outputs.iter().map(|(id, s)| (id.as_str(), s.fields.as_slice(), s.direct)).collect();
    assert_eq!(outputs, [("default", &["word".to_owned()][..], false), ("odd", &["line".to_owned()], true)]);
    let count = &topology.components[&id("count")];
    assert_eq!(count.parallelism, 1);
    assert_eq!(count.settings["topology.tick.tuple.freq.secs"], 1);
    let inputs: Vec<(&str, &str, &Grouping)> =
        count.inputs.iter().map(|i| (i.from.as_str(), i.stream.as_str(), &i.grouping)).collect();
    assert_eq!(
        inputs,
        [
            ("split", "default", &Grouping::Fields(vec!["word".to_owned()])),
            ("split", "odd", &Grouping::Direct)
        ]
    );
}

#[test]
fn shell_wrappers_of_flux_are_equivalent_to_commands() {
    let (topology, _) = good(
        "\
name: shell
spouts:
  - id: lines
    className: org.apache.storm.flux.wrappers.spouts.FluxShellSpout
    parallelism: 2
    constructorArgs:
      - [node, lines.js]
      - [line]
bolts:
  - id: split
    className: FluxShellBolt
    constructorArgs:
      - [python3, split.py]
    configMethods:
      - {name: setDefaultStream, args: [[word]]}
      - {name: setNamedStream, args: [errors, true, [why]]}
      - {name: addComponentConfig, args: [rabbit.port, 5672]}
      - {name: setEnv, args: [{LANG: C}]}
      - {name: changeChildCWD, args: [true]}
streams:
  - {from: lines, to: split, grouping: {type: ALL}}
",
    );
    let lines = &topology.components[&id("lines")];
    assert_eq!(lines.kind, ComponentKind::Spout);
    assert_eq!(lines.run, Run::Command(vec!["node".into(), "lines.js".into()]));
    assert_eq!(lines.parallelism, 2);
    let split = &topology.components[&id("split")];
    assert_eq!(split.settings["rabbit.port"], 5672);
    assert_eq!(split.settings["topology.environment"]["LANG"], "C");
    let outputs: Vec<(&str, &str, bool)> =
        split.outputs.iter().map(|(id, s)| (id.as_str(), s.fields[0].as_str(), s.direct)).collect();
    assert_eq!(outputs, [("default", "word", false), ("errors", "why", true)]);
}

#[test]
fn yaml_errors_have_their_line() {
    bad("name: [x\nspouts:\n", &["2:7: this is not YAML: illegal placement of ':' indicator"]);
    bad("name: x\nname: y\n", &["2:1: this is not YAML: duplicated key in mapping"]);
    bad("- name: x\n", &["1:1: expected a map with name, config, spouts, bolts, streams, found a list"]);
    bad("", &["1:1: expected a map with name, config, spouts, bolts, streams, found nothing"]);
}

#[test]
fn java_classes_are_rejected_by_name() {
    bad(
        &edited("command: [python3, count.py]", "className: com.example.CountBolt"),
        &[
            "17:16: bolts[1].className: the Java class com.example.CountBolt needs a JVM, which Stormkeeper does not \
             have; write the bolt in any language that speaks multilang and use `command: [python3, bolt.py]`",
        ],
    );
    bad(
        &edited(
            "command: [python3, count.py]",
            "className: org.apache.storm.flux.wrappers.spouts.FluxShellSpout",
        ),
        &["17:16: bolts[1].className: FluxShellSpout is not a bolt; use FluxShellBolt here, or `command`"],
    );
    bad(
        &edited("streams:", "topologySource: {className: com.example.Main}\nstreams:"),
        &["19:1: topologySource: `topologySource` is not supported; there is no Java class that builds the \
           topology; list `spouts`, `bolts` and `streams`"],
    );
}

#[test]
fn drpc_and_trident_are_rejected_by_name_with_what_to_use_instead() {
    let drpc = "which Stormkeeper does not have; let clients write requests to a queue that a spout reads, and a bolt \
                write results to where the client reads them, under an id that the request brings";
    let trident = "use a spout that emits with ids and repeats what failed, and write results under keys that follow \
                   from these ids (docs/streaming.md)";
    bad(
        &edited("command: [python3, count.py]", "className: org.apache.storm.drpc.ReturnResults"),
        &[&format!(
            "17:16: bolts[1].className: org.apache.storm.drpc.ReturnResults is a class of DRPC, {drpc}"
        )],
    );
    bad(
        &edited("streams:", "topologySource: {className: storm.starter.LinearDRPCTopology}\nstreams:"),
        &[
            "19:1: topologySource: `topologySource` is not supported; there is no Java class that builds the \
             topology; list `spouts`, `bolts` and `streams`",
            &format!(
                "19:29: topologySource.className: storm.starter.LinearDRPCTopology is a class of DRPC, {drpc}"
            ),
        ],
    );
    bad(
        &edited(
            "streams:",
            "components: [{id: t, className: org.apache.storm.trident.TridentTopology}]\nstreams:",
        ),
        &[
            "19:1: components: `components` is not supported; there are no Java objects to build; give each spout \
             and bolt a `command`",
            &format!(
                "19:33: components[0].className: org.apache.storm.trident.TridentTopology is a class of Trident, which \
                 Stormkeeper does not have; {trident}"
            ),
        ],
    );
    bad(
        &edited(
            "words.file: text.txt",
            "topology.trident.batch.emit.interval.millis: 500\n  words.file: text.txt",
        ),
        &[&format!(
            "4:48: config.topology.trident.batch.emit.interval.millis: there is no Trident in Stormkeeper; {trident}"
        )],
    );
}

#[test]
fn streams_must_connect_known_components_and_fields() {
    bad(
        &edited("from: sentences,", "from: sentence,"),
        &["20:12: streams[0]: there is no component `sentence`; did you mean `sentences`?"],
    );
    bad(
        &edited("to: split,", "to: splitt,"),
        &["20:27: streams[0].to: there is no component `splitt`; did you mean `split`?"],
    );
    bad(
        &edited("args: [word]", "args: [wrod]"),
        &["21:25: streams[1]: split's stream `default` has no field `wrod`; did you mean `word`?"],
    );
    bad(
        &edited("streamId: odd", "streamId: even"),
        &["22:12: streams[2]: split does not declare a stream `even`; one of: default, odd"],
    );
    bad(
        &edited("to: split, grouping: {type: SHUFFLE}", "to: split"),
        &["20:5: streams[0].grouping: it is missing; add it, for example `grouping: {type: SHUFFLE}`"],
    );
    bad(
        &edited("  - {from: sentences, to: split, grouping: {type: SHUFFLE}}\n", ""),
        &[
            "10:5: bolts[0]: it receives no stream, so it would never run; add a stream that leads to it, or remove it",
        ],
    );
}

#[test]
fn unsupported_groupings_are_rejected() {
    let grouping = |text: &str| edited("{type: SHUFFLE}", text);
    bad(
        &grouping("{type: SHUFLE}"),
        &["20:51: streams[0].grouping.type: there is no grouping SHUFLE; did you mean `SHUFFLE`?"],
    );
    bad(
        &grouping("{type: CUSTOM, customClass: {className: x}}"),
        &[
            "20:51: streams[0].grouping.type: a custom grouping needs a JVM; use another type (PARTIAL_KEY for \
             org.apache.storm.grouping.PartialKeyGrouping), or use DIRECT and select the task in the emitter",
            "20:59: streams[0].grouping.customClass: `customClass` is not supported; a custom grouping needs a \
             JVM",
        ],
    );
    bad(
        &grouping("{type: partial_key}"),
        &["20:44: streams[0].grouping.args: it is missing; add it, for example `args: [word]`"],
    );
    bad(
        &grouping("{type: FIELDS}"),
        &["20:44: streams[0].grouping.args: it is missing; add it, for example `args: [word]`"],
    );
    bad(
        &grouping("{type: ALL, args: [x]}"),
        &["20:62: streams[0].grouping.args: ALL has no args; only FIELDS has args"],
    );
}

#[test]
fn unknown_keys_and_wrong_types_are_rejected() {
    bad(
        &edited("parallelism: 4", "paralelism: 4"),
        &["11:5: bolts[0].paralelism: unknown key `paralelism`; did you mean `parallelism`?"],
    );
    bad(
        &edited("parallelism: 4", "parallelism: many"),
        &["11:18: bolts[0].parallelism: expected a whole number of tasks, found \"many\""],
    );
    bad(
        &edited("parallelism: 4", "parallelism: 0"),
        &["11:18: bolts[0].parallelism: 0 tasks would never run; set it to 1 or more"],
    );
    bad(
        &edited("command: [python3, sentences.py]", "command: python3 sentences.py"),
        &["7:14: spouts[0].command: expected a list of words, found a string; write it as a list: \
             [python3, sentences.py]"],
    );
    bad(
        &edited("    command: [python3, sentences.py]\n", ""),
        &[
            "6:5: spouts[0].command: it has no command to run; add one, for example `command: [python3, split.py]`",
        ],
    );
    bad(
        &edited("id: count", "id: split"),
        &[
            "16:5: bolts[1]: the id `split` occurs twice; give each spout and bolt an id of its own",
            "21:36: streams[1].to: there is no component `count`; one of: sentences, split",
            "22:23: streams[2].to: there is no component `count`; one of: sentences, split",
        ],
    );
    bad(
        &edited("id: count", "id: __count"),
        &[
            "16:5: bolts[1]: names that begin with `__` belong to the system; choose another id",
            "21:36: streams[1].to: there is no component `count`; one of: __count, sentences, split",
            "22:23: streams[2].to: there is no component `count`; one of: __count, sentences, split",
        ],
    );
    bad(
        &edited("name: word-count", "name: 7"),
        &["1:7: name: expected a string, found a number; put it in quotes"],
    );
    bad(
        &edited("topology.workers: 2", "topology.workers: none"),
        &["3:21: config.topology.workers: \"none\" is not a whole number from 1 to 100000"],
    );
    bad(
        &edited("freq.secs: 1", "freq.secs: soon"),
        &[
            "18:45: bolts[1].config.topology.tick.tuple.freq.secs: \"soon\" is not a number of seconds above 0, at \
             most a week",
        ],
    );
    bad(
        &edited("output: [sentence]", "output: sentence"),
        &[
            "8:13: spouts[0].output: expected the fields of the stream, found a string; write a list such as [word, count]",
        ],
    );
    bad("name: x\nbolts:\n", &["1:1: there is no spout; without a spout, no tuple enters the topology"]);
}

#[test]
fn all_faults_are_reported_at_once() {
    bad(
        &edited("parallelism: 4", "parallelism: -1")
            .replace("[python3, count.py]", "{}")
            .replace("type: SHUFFLE", "type: X"),
        &[
            "11:18: bolts[0].parallelism: expected a whole number of tasks, found -1",
            "17:14: bolts[1].command: expected a list of words, found a map",
            "20:51: streams[0].grouping.type: there is no grouping X; one of: SHUFFLE, LOCAL_OR_SHUFFLE, FIELDS, \
             PARTIAL_KEY, ALL, GLOBAL, NONE, DIRECT",
        ],
    );
}

/// The note about tracking at a submit names null as the way to leave it out.
#[test]
fn number_of_ackers_without_a_value_is_a_setting() {
    let (topology, _) =
        good(&edited("words.file: text.txt", "topology.acker.executors: null\n  words.file: text.txt"));
    assert_eq!(topology.settings.get("topology.acker.executors"), Some(&serde_json::Value::Null));
    let (topology, _) = good(&edited("words.file: text.txt", "words.file: text.txt"));
    assert!(!topology.settings.contains_key("topology.acker.executors"));
}

#[test]
fn settings_without_effect_are_warnings() {
    let (_, warnings) = good(&edited(
        "words.file: text.txt",
        "topology.worker: 2\n  topology.priority: 1\n  nimbus.seeds: [x]\n  \
         supervisor.memory.capacity.mb: 5\n  supervisor.worker.timeout.secs: 9\n  words.file: text.txt",
    ));
    assert_eq!(
        warnings,
        [
            "4:3: config.topology.worker: has no effect; did you mean `topology.workers`?",
            "5:3: config.topology.priority: has no effect: there is one scheduler: even and sticky, within the \
             capacity of supervisors",
            "6:3: config.nimbus.seeds: has no effect in a topology: it is a key of the daemons; set it in their \
             storm.yaml",
            "7:3: config.supervisor.memory.capacity.mb: has no effect in a topology: it is a key of the daemons; set \
             it in their storm.yaml",
        ]
    );
}

#[test]
fn settings_of_the_whole_topology_are_warnings_in_a_component() {
    let (_, warnings) = good(&edited(
        "{topology.tick.tuple.freq.secs: 1}",
        "{topology.tick.tuple.freq.secs: 1, topology.message.timeout.secs: 2, topology.acker.executors: 0}",
    ));
    let [timeout, ackers] = warnings.as_slice() else { panic!("{warnings:?}") };
    let reason = "has no effect for one component: set it for the topology";
    assert!(timeout.ends_with(&format!("config.topology.message.timeout.secs: {reason}")), "{timeout}");
    assert!(ackers.ends_with(&format!("config.topology.acker.executors: {reason}")), "{ackers}");
}

/// Creates a topology file with these resources; a name that ends with `*` makes an executable.
fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("topology.yaml"), WORD_COUNT).expect("written");
    for (name, text) in files {
        let path = dir.path().join("resources").join(name.trim_end_matches('*'));
        fs::create_dir_all(path.parent().expect("has a parent")).expect("created");
        fs::write(&path, text).expect("written");
        if name.ends_with('*') {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        }
    }
    dir
}

fn load_from(dir: &Path) -> Source {
    load(&dir.join("topology.yaml")).expect("a good file")
}

const SCRIPTS: [(&str, &str); 3] = [("sentences.py", "1"), ("split.py", "2"), ("count.py", "3")];

#[test]
fn package_contains_the_topology_and_its_resources_only() {
    let dir = project(
        &[&SCRIPTS[..], &[("lib/a.py*", "a"), ("__pycache__/x.pyc", "x"), (".git/config", "y")]].concat(),
    );
    std::os::unix::fs::symlink("split.py", dir.path().join("resources/link.py")).expect("linked");
    let source = load_from(dir.path());
    assert_eq!(source.warnings, Vec::<String>::new());
    let first = bundle(&source, 1 << 20).expect("packs");
    assert_eq!(read_topology(&first.bytes[..]).expect("reads"), source.topology);
    let names: Vec<String> = tar::Archive::new(&first.bytes[..])
        .entries()
        .expect("a tar")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "topology.json",
            "resources/count.py",
            "resources/lib/a.py",
            "resources/link.py",
            "resources/sentences.py",
            "resources/split.py"
        ]
    );
    let again = project(&[&SCRIPTS[..], &[("lib/a.py*", "a"), ("link.py", "2")]].concat());
    assert_eq!(bundle(&load_from(again.path()), 1 << 20).expect("packs").key, first.key);
}

#[test]
fn resources_that_cannot_be_packed_are_rejected() {
    let rejects = |dir: &Path, max_bytes, expected: &str| {
        let error = bundle(&load_from(dir), max_bytes).expect_err("rejected").to_string();
        assert!(error.contains(expected), "{error}");
    };
    let large = project(&[("data", &"x".repeat(5000))]);
    rejects(large.path(), 4000, "contains more than the 4000 bytes allowed (nimbus.max.blob.bytes)");
    let out = project(&SCRIPTS);
    std::os::unix::fs::symlink("../topology.yaml", out.path().join("resources/link")).expect("linked");
    rejects(out.path(), 1 << 20, "is a link to a target outside of");
    let ring = project(&SCRIPTS);
    std::os::unix::fs::symlink(".", ring.path().join("resources/again")).expect("linked");
    rejects(ring.path(), 1 << 20, "is a link to a folder above it");
    let dangling = project(&SCRIPTS);
    std::os::unix::fs::symlink("nothing", dangling.path().join("resources/link")).expect("linked");
    rejects(dangling.path(), 1 << 20, "cannot read");
}

#[test]
fn scripts_that_are_not_in_the_resources_are_warnings() {
    let dir = project(&SCRIPTS[..2]);
    let source = load_from(dir.path());
    let warnings: Vec<String> =
        source.warnings.iter().map(|text| text.replace(&format!("{}/", dir.path().display()), "")).collect();
    assert_eq!(
        warnings,
        ["topology.yaml: count: `count.py` is not in resources, so it must exist on every host"]
    );
}

#[test]
fn faults_of_a_file_begin_with_its_path() {
    let dir = project(&[]);
    let path = dir.path().join("bad.yaml");
    fs::write(&path, "name: x\n").expect("written");
    let error = load(&path).expect_err("rejected").to_string();
    assert_eq!(
        error,
        format!("{}:1:1: there is no spout; without a spout, no tuple enters the topology", path.display())
    );
    let error = load(&dir.path().join("none.yaml")).expect_err("missing").to_string();
    assert!(error.starts_with("cannot read the topology file"), "{error}");
}

#[test]
fn examples_are_valid_files() {
    for name in ["word-count", "access-log"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        let source = load_from(&folder);
        assert_eq!(source.warnings, Vec::<String>::new(), "{name}");
        assert_eq!(source.topology.name.as_str(), name);
        bundle(&source, 64 << 20).expect("packs");
    }
}

proptest::proptest! {
    /// A file that was truncated, repeated or scrambled is reported and causes no panic.
    #[test]
    fn no_text_makes_the_reader_panic(keep in 0usize..800, paste in 0usize..800, junk in "[\\[\\]{}:,&*!|>'\"#%@`\\-? \\na-z0]{0,12}") {
        let at = |n: usize| n.min(WORD_COUNT.len());
        let text = format!("{}{junk}{}", &WORD_COUNT[..at(keep)], &WORD_COUNT[at(paste)..]);
        if let Err(Faults(faults)) = parse(&text) {
            proptest::prop_assert!(!faults.is_empty());
            proptest::prop_assert!(faults.iter().all(|fault| fault.at.line > 0));
        }
    }
}
