//! Placeholders in topology files.

use std::{collections::BTreeMap, path::PathBuf};

use super::{properties::Properties, *};

const FILE: &str = "\
name: ${name}
config:
  topology.workers: ${workers}
  input.path: ${ENV-DIR}/in # and ${comment}
spouts:
  - id: source
    className: FluxShellSpout
    constructorArgs:
      - [python3, \"${scripts[1]}\"]
      - [\"${field}\"]
bolts:
  - id: sink
    parallelism: ${n}
    command: ${command}
streams:
  - {from: source, to: sink, grouping: {type: FIELDS, args: [\"${field}\"]}}
";

fn map(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn properties(values: &[(&str, &str)]) -> Option<Properties> {
    Some(Properties { path: PathBuf::from("dev.properties"), values: map(values) })
}

fn all() -> Replacements {
    let values = [
        ("name", "filled"),
        ("workers", "3"),
        ("scripts", "[\"a.py\", \"b.py\"]"),
        ("field", "word"),
        ("n", "2"),
        ("command", "[python3, sink.py]"),
    ];
    Replacements { properties: properties(&values), environment: Some(map(&[("DIR", "/data")])) }
}

fn faults(text: &str, replacements: &Replacements) -> Vec<String> {
    let faults = parse_with(text, replacements).err().map(|Faults(faults)| faults).unwrap_or_default();
    faults.iter().map(Fault::to_string).collect()
}

#[test]
fn placeholders_are_replaced_before_the_file_is_read() {
    let Parsed { topology, warnings } = parse_with(FILE, &all()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(warnings, []);
    assert_eq!(topology.name.as_str(), "filled");
    assert_eq!(topology.wanted_workers(), 3);
    assert_eq!(topology.settings["input.path"], "/data/in");
    let component = |id: &str| &topology.components[&id.parse().expect("valid id")];
    let command = |id| match &component(id).run {
        stormkeeper_model::topology::Run::Command(words) => words.join(" "),
        stormkeeper_model::topology::Run::InWorker => panic!("a command"),
    };
    assert_eq!(command("source"), "python3 b.py");
    assert_eq!(command("sink"), "python3 sink.py");
    assert_eq!(component("sink").parallelism, 2);
}

#[test]
fn placeholders_without_a_value_are_rejected_by_name() {
    assert_eq!(
        faults(FILE, &Replacements::default()),
        [
            "1:7: name: `${name}` has no value; pass `--filter FILE` with a properties file that contains \
             `name=…`",
            "3:21: config.topology.workers: `${workers}` has no value; pass `--filter FILE` with a properties \
             file that contains `workers=…`",
            "4:15: config.input.path: `${ENV-DIR}` has no value; pass `--env-filter` to insert the environment \
             variable DIR",
            "9:19: spouts[0].constructorArgs[0][1]: `${scripts[1]}` has no value; pass `--filter FILE` with a \
             properties file that contains `scripts=[\"…\", …]`",
            "10:10: spouts[0].constructorArgs[1][0]: `${field}` has no value; pass `--filter FILE` with a \
             properties file that contains `field=…`; for a variable of a shell write `$field`",
            "13:18: bolts[0].parallelism: `${n}` has no value; pass `--filter FILE` with a properties file that \
             contains `n=…`",
            "14:14: bolts[0].command: `${command}` has no value; pass `--filter FILE` with a properties file \
             that contains `command=…`; for a variable of a shell write `$command`",
            "16:62: streams[0].grouping.args[0]: `${field}` has no value; pass `--filter FILE` with a properties \
             file that contains `field=…`",
        ]
    );
}

#[test]
fn advice_names_what_was_passed_and_does_not_have_the_value() {
    let check = |name: &str, expected: &str| {
        let text = format!("name: \"${{{name}}}\"\n");
        let values = properties(&[("hosts", "[a, b]")]);
        let replacements = Replacements { properties: values, environment: Some(BTreeMap::new()) };
        assert_eq!(
            faults(&text, &replacements),
            [format!("1:7: name: `${{{name}}}` has no value; {expected}")]
        );
    };
    check("x.y", "add `x.y=…` to dev.properties");
    check("ENV-DIR", "set the environment variable DIR, which is not set");
    check("hosts[2]", "`hosts` in dev.properties has 2 items");
    check("ports[0]", "add `ports=[\"…\"]` to dev.properties");
    check("ports[2]", "add `ports=[\"…\", …]` to dev.properties");
    check("x:-def", "add `x\\:-def=…` to dev.properties");
}

#[test]
fn all_placeholders_of_a_text_are_replaced() {
    let text = FILE.replace("name: ${name}", "name: ${name}-${n}-${name}");
    let parsed = parse_with(&text, &all()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(parsed.topology.name.as_str(), "filled-2-filled");
}

#[test]
fn environment_variables_need_permission() {
    let replacements = Replacements { environment: None, ..all() };
    assert_eq!(
        faults(FILE, &replacements),
        [
            "4:15: config.input.path: `${ENV-DIR}` has no value; pass `--env-filter` to insert the environment \
             variable DIR"
        ]
    );
}

#[test]
fn faults_after_a_replaced_placeholder_have_positions_in_the_file() {
    let mut replacements = all();
    let values = &mut replacements.properties.as_mut().expect("is there").values;
    values.insert("field".to_owned(), "a much longer name".to_owned());
    values.insert("n".to_owned(), "many".to_owned());
    values.insert("command".to_owned(), "\n      - python3\n      - sink.py".to_owned());
    let text =
        FILE.replace("{type: FIELDS, args: [\"${field}\"]}", "{type: FIELDS, args: [\"${field}\"], x: 1}");
    assert_eq!(
        faults(&text, &replacements),
        [
            "13:18: bolts[0].parallelism: expected a whole number of tasks, found \"many\"",
            "16:75: streams[0].grouping.x: unknown key `x`; one of: type, args, streamId",
        ]
    );
}

#[test]
fn values_that_break_the_yaml_are_named() {
    let mut replacements = all();
    let values = &mut replacements.properties.as_mut().expect("is there").values;
    values.insert("name".to_owned(), "a: b: c".to_owned());
    let found = faults(FILE, &replacements);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("1:7: this is not YAML"), "{found:?}");
    let hint = "; the value of `${name}` became a part of this line; put quotes around it if it is a text";
    assert!(found[0].ends_with(hint), "{found:?}");
}

#[test]
fn placeholders_that_are_no_yaml_without_a_value_are_named() {
    let found = faults("# ${comment}\nname: x\nconfig: {a: ${x.y}}\n", &Replacements::default());
    let expected =
        "3:13: `${x.y}` has no value; pass `--filter FILE` with a properties file that contains `x.y=…`";
    assert!(found.contains(&expected.to_owned()), "{found:?}");
    assert!(!found.iter().any(|fault| fault.contains("comment")), "{found:?}");
}

#[test]
fn other_dollars_are_kept() {
    let text = FILE.replace("${ENV-DIR}/in", "$HOME ${} ${open $$");
    let parsed = parse_with(&text, &all()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(parsed.topology.settings["input.path"], "$HOME ${} ${open $$");
}

#[test]
fn text_that_values_make_too_large_is_rejected() {
    let values = properties(&[("x", &"x".repeat(1 << 20))]);
    let replacements = Replacements { properties: values, environment: None };
    assert_eq!(
        faults("a: ${x}\nb: [\"${x}\", \"${x}\", \"${x}\", \"${x}\"]\n", &replacements),
        ["2:22: with its placeholders replaced, the file is larger than 4 MiB"]
    );
}

proptest::proptest! {
    /// Positions of faults lie in the file, wherever values of several lines are inserted.
    #[test]
    fn positions_lie_in_the_file(
        cut in 0usize..600,
        name in "[a\\n:\\[ ]{0,8}",
        command in "[-a\\n:\\[ ]{0,30}",
    ) {
        let text = &FILE[..cut.min(FILE.len())];
        let mut replacements = all();
        let values = &mut replacements.properties.as_mut().expect("is there").values;
        values.insert("name".to_owned(), name);
        values.insert("command".to_owned(), command);
        if let Err(Faults(faults)) = parse_with(text, &replacements) {
            let n_lines = text.split('\n').count();
            for fault in faults {
                proptest::prop_assert!((1..=n_lines + 1).contains(&fault.at.line), "{fault} of {n_lines} lines");
            }
        }
    }
}
