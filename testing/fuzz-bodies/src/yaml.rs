//! Files in YAML: topologies and the configuration.

use std::fs;

use stormkeeper::config::{Config, Environment};
use stormkeeper_model::{topology::Topology, validate::validate};
use stormkeeper_topology_package::{
    flux,
    package::{pack, read_topology},
    yaml::{self, Node, SourcePosition, Value},
};

use crate::{check_error, scratch};

/// Reads a topology file.
///
/// Each fault has a position in the file, in the order of the file, also if values of several
/// lines replace its placeholders. A topology is valid, and reads
/// back from its package.
///
/// # Panics
/// If a property does not hold.
pub fn topology_yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let end = Extent::of(text);
    match yaml::parse(text) {
        Ok(node) => end.check_node(&node, 0),
        Err(error) => {
            check_error(&error.to_string());
            end.check(error.at);
        }
    }
    check_topology(flux::parse(text), &end);
    check_topology(flux::parse_with(text, &replacements()), &end);
}

/// Values for the placeholders in the corpus. A value of many lines moves what follows beyond the
/// end of the file.
fn replacements() -> flux::Replacements {
    let lines = "\n".repeat(100);
    let script = format!("a.py\", {lines} b]\n  - [\"c");
    let values = [("field.name", "word"), ("spout.script", &script), ("list", "[1, '2']")];
    let values = values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let properties = flux::properties::Properties { path: "fuzz.properties".into(), values };
    let environment = [("INPUT_PATH".to_owned(), format!("{{a: {lines} b}}"))].into();
    flux::Replacements { properties: Some(properties), environment: Some(environment) }
}

fn check_topology(parsed: Result<flux::Parsed, flux::Faults>, end: &Extent) {
    match parsed {
        Ok(parsed) => {
            assert_eq!(validate(&parsed.topology), Ok(()));
            parsed.warnings.iter().for_each(|warning| end.check(warning.at));
            check_package(&parsed.topology);
        }
        Err(faults) => {
            assert!(!faults.0.is_empty(), "a rejected file without a fault");
            assert!(faults.0.is_sorted_by_key(|fault| fault.at), "faults out of order");
            faults.0.iter().for_each(|fault| end.check(fault.at));
        }
    }
}

fn check_package(topology: &Topology) {
    let package = pack(topology, None, Vec::new(), u64::MAX).expect("packs");
    assert_eq!(read_topology(&package.bytes[..]).expect("reads back"), *topology);
}

/// Size of a text, which bounds the positions in it.
struct Extent {
    n_lines: usize,
    n_columns: usize,
}

impl Extent {
    fn of(text: &str) -> Self {
        // YAML has more line ends than Rust; the end of the file is a position as well.
        let n_lines = text.split(['\n', '\r']).count();
        Self { n_lines: n_lines + 1, n_columns: text.chars().count() + 1 }
    }

    fn check(&self, at: SourcePosition) {
        let fits = (1..=self.n_lines).contains(&at.line) && (1..=self.n_columns).contains(&at.column);
        assert!(fits, "position {at} is outside of a file of {} lines", self.n_lines);
    }

    fn check_node(&self, node: &Node, depth: usize) {
        // JSON, which a topology becomes, is read to a depth of 128.
        assert!(depth <= 100, "too deep for JSON");
        self.check(node.at);
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| self.check_node(item, depth + 1)),
            Value::Map(entries) => entries.iter().for_each(|(key, node)| {
                self.check(key.at);
                self.check_node(node, depth + 1);
            }),
            Value::Number(n) => assert!(n.is_finite()),
            Value::Null | Value::Flag(_) | Value::Whole(_) | Value::Text(_) => {}
        }
    }
}

/// Loads a configuration file.
///
/// An error names the file and a line. A configuration shows each key once, and a warning names
/// the file as well.
///
/// # Panics
/// If a property does not hold.
pub fn storm_yaml(data: &[u8]) {
    let dir = scratch();
    let path = dir.path().join("storm.yaml");
    fs::write(&path, data).expect("written");
    let environment = Environment { hostname: "host".to_owned(), ..Environment::default() };
    let prefix = format!("{}:", path.display());
    let has_line = |text: &str| {
        let rest = text.strip_prefix(&prefix);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    match Config::load(Some(&path), &[], &environment) {
        Ok((config, warnings)) => {
            let shown = config.show();
            assert!(shown.is_sorted_by(|one, other| one.key < other.key), "a key is shown twice");
            for warning in &warnings {
                assert!(has_line(&warning.to_string()), "a warning without position: {warning}");
            }
            serde_json::to_vec(&shown).expect("shown values are JSON");
        }
        Err(error) => {
            let error = error.to_string();
            let is_text = std::str::from_utf8(data).is_ok();
            assert!(!error.is_empty());
            assert!(!is_text || error.lines().next().is_some_and(has_line), "no position: {error}");
        }
    }
}
