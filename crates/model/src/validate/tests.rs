use serde_json::json;

use super::*;
use crate::suggest;

fn id(text: &str) -> ComponentId {
    text.parse().expect("valid id")
}

fn stream(text: &str) -> StreamId {
    text.parse().expect("valid id")
}

fn component(kind: ComponentKind, outputs: &[&str], inputs: &[(&str, Grouping)]) -> Component {
    let declaration =
        StreamDeclaration { fields: outputs.iter().map(|&f| f.to_owned()).collect(), direct: false };
    Component {
        kind,
        parallelism: 2,
        run: Run::Command(vec!["python3".to_owned(), "x.py".to_owned()]),
        outputs: BTreeMap::from([(stream("default"), declaration)]),
        inputs: inputs
            .iter()
            .map(|(from, grouping)| Input {
                from: id(from),
                stream: stream("default"),
                grouping: grouping.clone(),
            })
            .collect(),
        settings: Settings::new(),
    }
}

fn by(field: &str) -> Grouping {
    Grouping::Fields(vec![field.to_owned()])
}

fn word_count() -> Topology {
    use ComponentKind::{Bolt, Spout};
    Topology {
        name: "wc".parse().expect("valid name"),
        settings: Settings::new(),
        components: BTreeMap::from([
            (id("sentences"), component(Spout, &["line"], &[])),
            (id("split"), component(Bolt, &["word"], &[("sentences", Grouping::Shuffle)])),
            (id("count"), component(Bolt, &["word", "n"], &[("split", by("word"))])),
        ]),
        program: None,
        given_at_submission: Default::default(),
    }
}

/// Applies `break_it` to a valid topology and expects exactly the problems in `expected`.
fn check(break_it: impl FnOnce(&mut Topology), expected: &[&str]) {
    let mut topology = word_count();
    break_it(&mut topology);
    let found = validate(&topology).err().unwrap_or_default();
    let found: Vec<String> = found.iter().map(TopologyDefect::to_string).collect();
    assert_eq!(found, expected);
}

fn edit<'a>(topology: &'a mut Topology, component: &str) -> &'a mut Component {
    topology.components.get_mut(&id(component)).expect("is there")
}

#[test]
fn valid_topologies_are_accepted_with_and_without_a_cycle() {
    check(|_| {}, &[]);
    check(
        |t| {
            let again = Input { from: id("count"), stream: stream("default"), grouping: by("n") };
            edit(t, "split").inputs.push(again);
        },
        &[],
    );
}

#[test]
fn counts_outside_their_range_are_reported() {
    check(
        |t| edit(t, "split").parallelism = 0,
        &["bolts.split.parallelism: 0 tasks would never run; set it to 1 or more"],
    );
    check(
        |t| {
            edit(t, "split").parallelism = 600_000;
            edit(t, "count").parallelism = 600_000;
        },
        &["topology: its 1200002 tasks are more than the 1000000 that a topology may have; lower the \
             parallelism of its components"],
    );
    check(
        |t| edit(t, "split").run = Run::Command(vec![]),
        &["bolts.split.command: it is empty; name a program, for example [python3, split.py]"],
    );
}

#[test]
fn broken_connections_of_the_graph_are_reported() {
    check(
        |t| edit(t, "split").inputs[0].from = id("sentence"),
        &["bolts.split.inputs[0]: there is no component `sentence`; did you mean `sentences`?"],
    );
    check(
        |t| edit(t, "split").inputs[0].stream = stream("lines"),
        &["bolts.split.inputs[0]: sentences does not declare a stream `lines`; one of: default"],
    );
    check(
        |t| edit(t, "split").inputs.clear(),
        &[
            "bolts.split.inputs: it receives no stream, so it would never run; add a stream that leads to it, or \
             remove it",
        ],
    );
    check(
        |t| {
            let twice = edit(t, "split").inputs[0].clone();
            edit(t, "split").inputs.push(twice);
        },
        &["bolts.split.inputs[1]: it receives sentences's stream `default` twice; every tuple would come \
             twice; keep one of them"],
    );
    check(
        |t| {
            t.components.remove(&id("sentences"));
            let ring = Input { from: id("count"), stream: stream("default"), grouping: Grouping::All };
            edit(t, "split").inputs = vec![ring];
        },
        &["topology: there is no spout; without a spout, no tuple enters the topology"],
    );
    check(
        |t| {
            let back = Input { from: id("split"), stream: stream("default"), grouping: Grouping::None };
            edit(t, "sentences").inputs.push(back);
        },
        &[
            "spouts.sentences.inputs[0]: sentences is a spout, and a spout receives nothing; declare it among \
             the bolts, or direct the stream elsewhere",
        ],
    );
}

#[test]
fn groupings_that_do_not_fit_their_streams_are_reported() {
    check(
        |t| edit(t, "count").inputs[0].grouping = by("wrod"),
        &["bolts.count.inputs[0]: split's stream `default` has no field `wrod`; did you mean `word`?"],
    );
    check(
        |t| edit(t, "count").inputs[0].grouping = Grouping::Fields(vec![]),
        &["bolts.count.inputs[0]: fields grouping without a field; name at least one in `args`"],
    );
    check(
        |t| edit(t, "count").inputs[0].grouping = Grouping::Direct,
        &["bolts.count.inputs[0]: direct grouping needs a direct stream, and split's `default` is none; \
             declare the stream with `direct: true`, or group it in another way"],
    );
    check(
        |t| edit(t, "split").outputs.get_mut(&stream("default")).expect("is there").direct = true,
        &["bolts.count.inputs[0]: split's stream `default` is direct: its emitter names the receiving \
             task; use direct grouping"],
    );
}

#[test]
fn duplicate_and_reserved_names_are_reported() {
    check(
        |t| {
            let split = t.components.remove(&id("split")).expect("is there");
            t.components.insert(id("__split"), split);
            edit(t, "count").inputs[0].from = id("__split");
        },
        &["bolts.__split: names that begin with `__` belong to the system; choose another id"],
    );
    check(
        |t| {
            let declaration = StreamDeclaration { fields: vec!["a".into(), "a".into()], direct: false };
            edit(t, "split").outputs.insert(stream("__x"), declaration);
        },
        &[
            "bolts.split.output.__x: streams that begin with `__` belong to the system; choose another name",
            "bolts.split.output.__x: the field `a` is there twice; rename one of them",
        ],
    );
}

#[test]
fn known_settings_are_checked_and_other_settings_are_accepted() {
    check(
        |t| {
            t.settings.insert("topology.workers".to_owned(), json!(0));
            t.settings.insert("my.key".to_owned(), json!({"any": ["thing"]}));
            edit(t, "split").settings.insert("topology.tick.tuple.freq.secs".to_owned(), json!("5"));
            edit(t, "count").settings.insert("topology.tick.tuple.freq.secs".to_owned(), json!(null));
        },
        &[
            "config.topology.workers: 0 is not a whole number from 1 to 100000",
            "bolts.split.config.topology.tick.tuple.freq.secs: \"5\" is not a number of seconds above 0, at most a \
             week",
        ],
    );
}

/// A topology of `n_spouts` spouts, and a bolt that receives from `sources`.
fn wide(n_spouts: usize, name: impl Fn(usize) -> String, sources: &[String]) -> Topology {
    let inputs: Vec<(&str, Grouping)> = sources.iter().map(|name| (name.as_str(), Grouping::All)).collect();
    let mut topology = word_count();
    topology.components = (0..n_spouts)
        .map(|n| (id(&name(n)), component(ComponentKind::Spout, &["line"], &[])))
        .chain([(id("sink"), component(ComponentKind::Bolt, &[], &inputs))])
        .collect();
    topology
}

fn n_hints(found: &[TopologyDefect]) -> usize {
    found.iter().filter(|defect| defect.hint.is_some()).count()
}

#[test]
fn problems_and_hints_are_bounded() {
    let sources: Vec<String> = (0..1000).map(|n| format!("spuot-{n:04}")).collect();
    let found = validate(&wide(1000, |n| format!("spout-{n:04}"), &sources)).expect_err("no such sources");
    assert_eq!(found.len(), MAX_DEFECTS + 1);
    assert_eq!(n_hints(&found), suggest::MAX_SUGGESTED + 1);
    assert_eq!(
        found[0].to_string(),
        "bolts.sink.inputs[0]: there is no component `spuot-0000`; did you mean `spout-0000`?"
    );
    let last = found.last().expect("not empty").to_string();
    assert_eq!(last, "topology: 900 more problems are not listed; correct those that are listed first");
}

#[test]
fn one_wrong_source_of_many_bolts_is_suggested_without_comparing_it_again_and_again() {
    let mut topology = wide(1, |_| "sentences".to_owned(), &["sentences".to_owned()]);
    for n in 0..2000 {
        let bolt = component(ComponentKind::Bolt, &["word"], &[("sentence", Grouping::Shuffle)]);
        topology.components.insert(id(&format!("bolt-{n:04}")), bolt);
    }
    let found = validate(&topology).expect_err("there is no such source");
    assert_eq!(found.len(), MAX_DEFECTS + 1);
    let hint = Some("did you mean `sentences`?");
    assert_eq!(found.iter().filter(|defect| defect.hint.as_deref() == hint).count(), suggest::MAX_SUGGESTED);
}

#[test]
fn long_names_are_not_compared_letter_by_letter_for_each_problem() {
    // With all of them compared, this takes minutes.
    let sources: Vec<String> = (0..1000).map(|n| format!("{}-{n:04}", "x".repeat(182))).collect();
    let topology = wide(1400, |n| format!("{}-{n:04}", "y".repeat(182)), &sources);
    let found = validate(&topology).expect_err("no such sources");
    assert_eq!(found.len(), MAX_DEFECTS + 1);
}

#[test]
fn many_fields_are_looked_up_and_not_searched() {
    // With a search per field, this takes hours.
    let fields: Vec<String> = (0..400_000).map(|n| format!("f{n}")).collect();
    let mut topology = word_count();
    let streams = &mut edit(&mut topology, "split").outputs;
    streams.get_mut(&stream("default")).expect("is there").fields = fields.clone();
    edit(&mut topology, "count").inputs[0].grouping = Grouping::Fields(fields);
    assert_eq!(validate(&topology), Ok(()));
}

#[test]
fn long_texts_are_cut() {
    let mut topology = word_count();
    edit(&mut topology, "count").inputs[0].grouping = by(&"ä".repeat(1 << 20));
    let found = validate(&topology).expect_err("there is no such field");
    assert!(found[0].what.starts_with("split's stream `default` has no field `ää"), "{}", found[0].what);
    assert!(found[0].what.len() <= 2 * MAX_TEXT_CHARS, "{} bytes", found[0].what.len());
}

#[test]
fn name_that_could_be_taken_for_another_one_is_a_problem_of_its_place() {
    let hint = "; use letters of one script";
    let invisible =
        "could be taken for another one: it contains U+200B, which is invisible, or no letter that is in use";
    check(
        |topology| topology.name = "w\u{200b}c".parse().expect("valid"),
        &[&format!("topology: the name \"w\\u{{200b}}c\" {invisible}{hint}")],
    );
    let mixed = "it mixes letters of scripts that look alike, such as Latin and Cyrillic";
    check(
        |topology| {
            let count = topology.components.remove(&id("count")).expect("there");
            topology.components.insert(id("c\u{43e}unt"), count);
        },
        &[&format!(
            "bolts.c\u{43e}unt: the name \"c\u{43e}unt\" could be taken for another one: {mixed}{hint}"
        )],
    );
    check(
        |topology| {
            let declaration = StreamDeclaration { fields: vec!["f".to_owned()], direct: false };
            edit(topology, "count").outputs.insert(stream("st\u{200b}"), declaration);
        },
        &[&format!("bolts.count.output.st\u{200b}: the name \"st\\u{{200b}}\" {invisible}{hint}")],
    );
}

#[test]
fn components_that_look_the_same_are_a_problem_of_the_second() {
    check(
        |topology| {
            let count = topology.components[&id("count")].clone();
            topology.components.insert(id("saeson"), count.clone());
            topology.components.insert(id("sæson"), count);
        },
        &["bolts.sæson: \"sæson\" and \"saeson\" look the same; choose another id for one of them"],
    );
}
