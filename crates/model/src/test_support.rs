//! Example topologies for tests.

use crate::{
    ComponentId, StreamId,
    topology::{Component, ComponentKind, Grouping, Input, Run, StreamDeclaration, Topology},
};

/// Two tasks of a spout `lines` that feed two tasks of a bolt `count`, in two workers.
///
/// # Panics
/// If `name` is not a valid topology name.
pub fn lines_and_count(name: &str) -> Topology {
    let id = |text: &str| text.parse::<ComponentId>().expect("a valid id");
    let component = |kind, outputs, inputs| Component {
        kind,
        parallelism: 2,
        run: Run::Command(vec!["python3".to_owned(), "component.py".to_owned()]),
        outputs,
        inputs,
        settings: Default::default(),
    };
    let stream = StreamId::default_stream();
    let declared = StreamDeclaration { fields: vec!["line".to_owned()], direct: false };
    let spout = component(ComponentKind::Spout, [(stream.clone(), declared)].into(), Vec::new());
    let input = Input { from: id("lines"), stream, grouping: Grouping::Shuffle };
    let bolt = component(ComponentKind::Bolt, Default::default(), vec![input]);
    Topology {
        name: name.parse().expect("a valid name"),
        settings: [("topology.workers".to_owned(), 2.into())].into(),
        components: [(id("lines"), spout), (id("count"), bolt)].into(),
        program: None,
        given_at_submission: Default::default(),
    }
}
