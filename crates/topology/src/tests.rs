//! Declared topologies.

use super::*;
use crate::builder::Built;
use stormkeeper_model::topology::{ComponentKind, Grouping, Run};

struct Nothing;

impl Spout for Nothing {
    fn next(&mut self, _: &mut SpoutOutput<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl Bolt for Nothing {
    fn execute(&mut self, _: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn declared_topology_has_its_components_streams_and_settings() {
    let mut topology = TopologyBuilder::new("t");
    topology.setting("topology.workers", 2).resources("/r");
    topology.spout("a", || Nothing).output(["x"]).stream("late", ["x", "y"]).setting("k", true);
    topology
        .bolt("b", || Nothing)
        .parallelism(3)
        .fields("a", ["x"])
        .all(("a", "late"))
        .tick_every(std::time::Duration::from_millis(500));
    topology.shell_bolt("c", ["python3", "c.py"]).shuffle("a");
    let Built { topology, resources, .. } = topology.build().expect("valid");
    assert_eq!((topology.settings["topology.workers"].as_u64(), resources), (Some(2), Some("/r".into())));
    let component = |id: &str| &topology.components[&id.parse::<ComponentId>().expect("valid")];
    assert_eq!((component("a").kind, &component("a").run), (ComponentKind::Spout, &Run::InWorker));
    let late = &component("a").outputs[&"late".parse::<StreamId>().expect("valid")];
    assert_eq!((late.fields.join(" "), late.direct), ("x y".to_owned(), false));
    let b = component("b");
    assert_eq!((b.kind, b.parallelism, b.inputs.len()), (ComponentKind::Bolt, 3, 2));
    assert_eq!(b.inputs[0].grouping, Grouping::Fields(vec!["x".to_owned()]));
    assert_eq!((b.inputs[1].stream.as_str(), &b.inputs[1].grouping), ("late", &Grouping::All));
    assert_eq!(b.settings["topology.tick.tuple.freq.secs"], 0.5);
    assert_eq!(component("c").run, Run::Command(vec!["python3".to_owned(), "c.py".to_owned()]));
}

#[test]
fn all_defects_of_a_declaration_are_named_at_once() {
    let mut topology = TopologyBuilder::new("t");
    topology.spout("a", || Nothing).output(["x"]);
    topology.spout("a", || Nothing);
    topology.bolt("b c", || Nothing);
    topology.spout("twice", || Nothing).output(["x"]).output(["y"]);
    topology.bolt("d", || Nothing).shuffle("nobody").fields("a", ["z"]).stream("x/y", ["v"]);
    let text = topology.build().expect_err("invalid").to_string();
    for part in [
        "component twice: its stream default is declared twice",
        "component a: it is declared twice",
        "component \"b c\"",
        "component d",
        "nobody",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(TopologyBuilder::new("no/name").build().expect_err("invalid").to_string().contains("no/name"));
}
