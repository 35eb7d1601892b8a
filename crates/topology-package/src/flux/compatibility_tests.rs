//! Parts of Flux files that have no equal here, or another one.

use super::*;
use stormkeeper_model::topology::{Run, Topology};

/// A topology of a source and a sink, with these lines in each.
fn file(source: &str, sink: &str) -> String {
    format!(
        "\
name: x
spouts:
  - id: source
{source}bolts:
  - id: sink
{sink}streams:
  - {{from: source, to: sink, grouping: {{type: SHUFFLE}}}}
"
    )
}

const SOURCE: &str = "    command: [python3, a.py]\n    output: [word]\n";
const SINK: &str = "    command: [python3, b.py]\n";

fn with_sink(lines: &str) -> String {
    file(SOURCE, lines)
}

fn good(text: &str) -> (Topology, Vec<String>) {
    let Parsed { topology, warnings } = parse(text).unwrap_or_else(|faults| panic!("{faults}"));
    (topology, warnings.iter().map(Fault::to_string).collect())
}

fn faults(text: &str) -> Vec<String> {
    let faults = parse(text).err().map(|Faults(faults)| faults).unwrap_or_default();
    faults.iter().map(Fault::to_string).collect()
}

fn sink(topology: &Topology) -> &stormkeeper_model::topology::Component {
    &topology.components[&"sink".parse().expect("valid id")]
}

#[test]
fn loads_of_a_component_are_its_resource_requests() {
    let text = with_sink(&format!(
        "{SINK}    onHeapMemoryLoad: 256\n    offHeapMemoryLoad: 64.5\n    cpuLoad: 50\n"
    ));
    let (topology, warnings) = good(&text);
    assert!(!format!("{warnings:?}").contains("Load"), "they have an effect: {warnings:?}");
    let settings = &sink(&topology).settings;
    assert_eq!(settings["topology.component.resources.onheap.memory.mb"], 256);
    assert_eq!(settings["topology.component.resources.offheap.memory.mb"], 64.5);
    assert_eq!(settings["topology.component.cpu.pcore.percent"], 50);
}

#[test]
fn settings_win_over_loads() {
    let config = "    cpuLoad: 50\n    config: {topology.component.cpu.pcore.percent: 70}\n";
    let (topology, _) = good(&with_sink(&format!("{SINK}{config}")));
    assert_eq!(sink(&topology).settings["topology.component.cpu.pcore.percent"], 70);
}

#[test]
fn loads_that_are_no_amounts_are_rejected() {
    assert_eq!(
        faults(&with_sink(&format!("{SINK}    cpuLoad: much\n    onHeapMemoryLoad: -1\n"))),
        [
            "9:14: bolts[0].cpuLoad: expected a number of percent of a core, 0 or more, found \"much\"; for \
             example `cpuLoad: 100`, or leave it out",
            "10:23: bolts[0].onHeapMemoryLoad: expected a number of MB, 0 or more, found -1; for example \
             `onHeapMemoryLoad: 100`, or leave it out",
        ]
    );
}

#[test]
fn number_of_tasks_wins_over_that_of_threads() {
    let (topology, warnings) = good(&with_sink(&format!("{SINK}    numTasks: 4\n")));
    assert_eq!((sink(&topology).parallelism, warnings.len()), (4, 0));
    let (topology, warnings) = good(&with_sink(&format!("{SINK}    parallelism: 2\n    numTasks: 4\n")));
    assert_eq!(sink(&topology).parallelism, 4);
    assert_eq!(
        warnings,
        ["9:18: bolts[0].parallelism: has no effect beside `numTasks: 4`: each task is a process of its own"]
    );
    assert_eq!(
        faults(&with_sink(&format!("{SINK}    numTasks: 0\n"))),
        ["9:15: bolts[0].numTasks: 0 tasks would never run; set it to 1 or more"]
    );
}

#[test]
fn streams_may_have_an_id() {
    let text = with_sink(SINK).replace("{from: source", "{id: first, from: source");
    assert_eq!(good(&text).1, Vec::<String>::new());
}

#[test]
fn bolts_of_java_that_log_are_offered_a_command() {
    let found = faults(&with_sink("    className: org.apache.storm.flux.wrappers.bolts.LogInfoBolt\n"));
    let [fault] = &found[..] else { panic!("{found:?}") };
    let what = "8:16: bolts[0].className: the Java class org.apache.storm.flux.wrappers.bolts.LogInfoBolt needs a \
                JVM, which Stormkeeper does not have; a bolt that logs each tuple is `";
    let command = fault.strip_prefix(what).and_then(|rest| rest.strip_suffix('`')).expect("has a command");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/flux.md"));
    assert!(page.expect("reads").contains(command), "docs/flux.md has another command than {command}");
    let (topology, _) = good(&with_sink(&format!("    {command}\n")));
    let Run::Command(words) = &sink(&topology).run else { panic!("a command") };
    assert_eq!(words.len(), 3);
    assert_eq!(words[..2], ["python3", "-c"]);
    assert!(words[2].ends_with("s.BasicBolt().run()"), "{words:?}");
}

#[test]
fn references_in_arguments_are_rejected_by_name() {
    let text = with_sink(
        "    className: FluxShellBolt\n    constructorArgs:\n      - [python3, b.py]\n      - {ref: fields}\n",
    );
    let advice = "write the value itself, or mark it with `&name` and repeat it with `*name`";
    assert_eq!(
        faults(&text),
        [format!(
            "11:9: bolts[0].constructorArgs[1]: `{{ref: fields}}` stands for a Java object, and there are none; \
             {advice}"
        )]
    );
    let text = with_sink(
        "    className: FluxShellBolt\n    constructorArgs: [[python3, b.py]]\n    configMethods:\n      \
         - {name: setEnv, args: [{A: {reflist: [x, y]}}]}\n",
    );
    assert_eq!(
        faults(&text),
        [format!(
            "11:35: bolts[0].configMethods[0].args[0].A: `{{reflist: …}}` stands for a Java object, and there are \
             none; {advice}"
        )]
    );
}

#[test]
fn maps_in_settings_that_look_like_references_are_warnings() {
    let text = with_sink(&format!("{SINK}    config: {{db: {{url: {{ref: conn}}, a: {{ref: x, b: 1}}}}}}\n"));
    let (topology, warnings) = good(&text);
    assert_eq!(sink(&topology).settings["db"]["url"]["ref"], "conn");
    assert_eq!(
        warnings,
        [
            "9:24: bolts[0].config.db.url: `{ref: conn}` is passed to components as a map: settings contain no \
             references"
        ]
    );
}

const WRAPPER: &str = "    className: FluxShellSpout\n    constructorArgs: [[python3, a.py]]\n";

#[test]
fn advice_for_streams_of_wrappers_fits_wrappers() {
    let from = |grouping: &str| faults(&file(WRAPPER, SINK).replace("{type: SHUFFLE}", grouping));
    assert_eq!(
        from("{type: SHUFFLE}"),
        [
            "10:12: streams[0]: source does not declare a stream `default`; name its fields in the second item of \
             source's `constructorArgs`"
        ]
    );
    assert_eq!(
        from("{type: SHUFFLE, streamId: odd}"),
        [
            "10:12: streams[0]: source does not declare a stream `odd`; add `{name: setNamedStream, args: [odd, \
             [field]]}` to source's `configMethods`"
        ]
    );
    let direct = WRAPPER.replace("[[python3, a.py]]", "[[python3, a.py], [word]]");
    assert_eq!(
        faults(&file(&direct, SINK).replace("SHUFFLE", "DIRECT")),
        [
            "10:12: streams[0]: direct grouping needs a direct stream, and source's `default` is none; add `{name: \
             setDefaultStream, args: [true, [field]]}` to source's `configMethods`, or group it in another way"
        ]
    );
    assert_eq!(
        faults(&file(SOURCE, SINK).replace("    output: [word]\n", "")),
        [
            "9:12: streams[0]: source does not declare a stream `default`; give source an `output` with the fields \
             of that stream"
        ]
    );
}

#[test]
fn output_of_a_wrapper_is_rejected_with_its_equal() {
    let text = file(&WRAPPER.replace("[[python3, a.py]]", "[[python3, a.py]]\n    output: [word]"), SINK);
    assert_eq!(
        faults(&text),
        ["6:13: spouts[0].output: FluxShellSpout has no `output`; name the fields in the second item of \
             `constructorArgs`, or use `command` instead of `className`"]
    );
}

#[test]
fn missing_parts_are_not_reported_if_the_file_includes_others() {
    let text = "\
includes: [{resource: false, file: spouts.yaml, override: false}]
bolts:
  - id: sink
    command: [python3, b.py]
  - id: rest
    command: [python3, c.py]
streams:
  - {from: source, to: sink, grouping: {type: FIELDS, args: [word]}}
  - {from: sink, to: other, grouping: {type: SHUFFLE}}
";
    assert_eq!(faults(text), ["1:1: includes: `includes` is not supported; put everything in one file"]);
    let broken = text.replace("command: [python3, c.py]", "command: 7");
    assert_eq!(
        faults(&broken)[1..],
        ["6:14: bolts[1].command: expected a list of words, found a number".to_owned()]
    );
    assert_eq!(
        faults("name: x\ntopologySource: {className: com.example.Main}\n"),
        ["2:1: topologySource: `topologySource` is not supported; there is no Java class that builds the \
             topology; list `spouts`, `bolts` and `streams`"]
    );
}
