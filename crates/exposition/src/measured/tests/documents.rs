//! The dashboard and the alert rules use names that exist, and miss no state of the cluster.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;

/// Files whose PromQL is compared.
const FILES: [&str; 2] = ["docs/grafana/stormkeeper.json", "docs/alerts.yml"];

/// Returns all names that begin with `stormkeeper_` in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with("stormkeeper_")).collect()
}

/// Returns the names of the samples of a family.
fn samples(about: &Description) -> Vec<String> {
    let ends: &[&str] = match about.kind {
        FamilyKind::Gauge => &[""],
        FamilyKind::Counter => &["_total"],
        FamilyKind::Histogram => &["", "_bucket", "_count", "_sum"],
    };
    ends.iter().map(|end| format!("{}{end}", about.name)).collect()
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn dashboard_and_alerts_use_names_that_exist() {
    let of_nimbus = all().into_iter().filter(|(level, _)| level.is_none_or(is_on_a_page));
    let mut known: BTreeSet<String> = of_nimbus.flat_map(|(_, about)| samples(&about)).collect();
    // A test of the agent keeps its table there.
    let of_agent = read("docs/operations/logs.md");
    known.extend(names(&of_agent).into_iter().map(str::to_owned));
    for file in FILES {
        let text = read(file);
        let used = names(&text);
        assert!(used.len() > 20, "{file} uses only {used:?}");
        let unknown: Vec<_> = used.iter().filter(|name| !known.contains(**name)).collect();
        assert!(unknown.is_empty(), "{file} uses names that no page has: {unknown:?}");
    }
}

#[test]
fn every_family_of_the_cluster_is_in_the_dashboard_or_an_alert() {
    let texts = FILES.map(read);
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| names(text)).collect();
    let unused =
        cluster::ALL.iter().filter(|about| !samples(about).iter().any(|name| used.contains(name.as_str())));
    let unused: Vec<_> = unused.map(|about| &about.name).collect();
    assert!(unused.is_empty(), "neither dashboard nor alerts use {unused:?}");
}

#[test]
fn names_are_found_in_expressions() {
    let found =
        names("sum(rate(stormkeeper_a_total{topology=\"x\"}[5m])) / stormkeeper_b-1\nmystormkeeper_c");
    assert_eq!(found, BTreeSet::from(["stormkeeper_a_total", "stormkeeper_b"]));
}
