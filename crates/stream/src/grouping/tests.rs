use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Value, ValueWriter};
use stormkeeper_model::topology::{Component, ComponentKind, Run};

const GROUPINGS: [fn() -> Grouping; 7] = [
    || Grouping::Shuffle,
    || Grouping::LocalOrShuffle,
    || Grouping::Fields(vec!["word".to_owned()]),
    || Grouping::PartialKey(vec!["word".to_owned()]),
    || Grouping::All,
    || Grouping::Global,
    || Grouping::None,
];

fn component(id: &str) -> ComponentId {
    id.parse().expect("valid id")
}

fn stream(id: &str) -> StreamId {
    id.parse().expect("valid id")
}

fn tasks(ids: impl IntoIterator<Item = u32>) -> TaskSet {
    ids.into_iter().map(TaskId).collect()
}

/// A spout `source` (task 1) with streams `default` (word, n) and `named` (word; direct), and
/// one bolt `b0`, `b1`, … per input with the given number of tasks.
fn topology(inputs: &[(&str, Grouping, u32)]) -> (Topology, TaskTable) {
    let run = || Run::Command(vec!["true".to_owned()]);
    let declare = |fields: &[&str], direct| StreamDeclaration {
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        direct,
    };
    let outputs: BTreeMap<_, _> = [
        (StreamId::default_stream(), declare(&["word", "n"], false)),
        (stream("named"), declare(&["word"], true)),
    ]
    .into();
    let blank = |kind, parallelism| Component {
        kind,
        parallelism,
        run: run(),
        outputs: BTreeMap::new(),
        inputs: Vec::new(),
        settings: BTreeMap::new(),
    };
    let mut components = BTreeMap::new();
    let mut numbered = vec![(component("source"), 1)];
    components.insert(component("source"), Component { outputs, ..blank(ComponentKind::Spout, 1) });
    for (n, (from_stream, grouping, parallelism)) in inputs.iter().enumerate() {
        let id = component(&format!("b{n}"));
        let input =
            Input { from: component("source"), stream: stream(from_stream), grouping: grouping.clone() };
        let bolt = Component { inputs: vec![input], ..blank(ComponentKind::Bolt, *parallelism) };
        components.insert(id.clone(), bolt);
        numbered.push((id, *parallelism));
    }
    let topology = Topology {
        name: "t".parse().expect("valid"),
        settings: BTreeMap::new(),
        components,
        program: None,
        given_at_submission: Default::default(),
    };
    (topology, TaskTable::number(numbered))
}

fn router(inputs: &[(&str, Grouping, u32)], local: &TaskSet) -> Router {
    let (topology, table) = topology(inputs);
    Router::new(&topology, &table, &component("source"), TaskId(1), local).expect("they fit together")
}

fn word(text: &str, n: i64) -> [Value; 2] {
    [text.into(), n.into()]
}

fn default_of(router: &mut Router, values: &[Value]) -> Result<Vec<u32>, Error> {
    let mut out = vec![TaskId(99)];
    router.route(None, ValueWriter::of(values).encoded(), None, &mut out)?;
    Ok(out.into_iter().map(|task| task.0).collect())
}

#[test]
fn each_grouping_selects_its_receivers() {
    let check = |grouping: Grouping, local: &TaskSet, expected: &[u32]| {
        let mut router = router(&[("default", grouping.clone(), 3)], local);
        let mut seen: Vec<u32> =
            (0..30).flat_map(|n| default_of(&mut router, &word("w", n)).expect("routed")).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, expected, "{grouping:?}");
    };
    let nowhere = TaskSet::default();
    check(Grouping::Shuffle, &tasks([3]), &[2, 3, 4]);
    check(Grouping::None, &nowhere, &[2, 3, 4]);
    check(Grouping::All, &nowhere, &[2, 3, 4]);
    check(Grouping::Global, &tasks([4]), &[2]);
    check(Grouping::LocalOrShuffle, &tasks([1, 3, 4, 9]), &[3, 4]);
    check(Grouping::LocalOrShuffle, &tasks([1]), &[2, 3, 4]);
    // Without any field every tuple is equal.
    let mut by_nothing = router(&[("default", Grouping::Fields(vec![]), 3)], &nowhere);
    let one = default_of(&mut by_nothing, &word("a", 1)).expect("routed");
    assert_eq!(default_of(&mut by_nothing, &word("b", 2)).expect("routed"), one);
}

#[test]
fn partial_key_alternates_between_the_same_two_tasks_of_every_emitter() {
    let by_word = || Grouping::PartialKey(vec!["word".to_owned()]);
    for n_tasks in 2..10 {
        let emitter = || router(&[("default", by_word(), n_tasks)], &TaskSet::default());
        let (mut one, mut other) = (emitter(), emitter());
        for text in ["a", "b", "c", "d"] {
            let sent = |router: &mut Router| -> BTreeMap<u32, usize> {
                (0..100).fold(BTreeMap::new(), |mut sent, n| {
                    let receivers = default_of(router, &word(text, n)).expect("routed");
                    *sent.entry(receivers[0]).or_default() += 1;
                    sent
                })
            };
            let tasks: Vec<u32> = sent(&mut one).into_keys().collect();
            assert!(tasks.len() <= 2, "{tasks:?}");
            let both: Vec<u32> = sent(&mut emitter()).into_keys().collect();
            assert_eq!(both.len(), 2, "an emitter that has sent nothing else uses both");
            assert!(tasks.iter().all(|task| both.contains(task)), "{tasks:?} of {both:?}");
            assert!(sent(&mut other).into_keys().all(|task| both.contains(&task)));
        }
    }
    let mut only = router(&[("default", by_word(), 1)], &TaskSet::default());
    assert_eq!(default_of(&mut only, &word("a", 1)), Ok(vec![2]));
}

#[test]
fn partial_key_spreads_one_frequent_key() {
    let by_word = Grouping::PartialKey(vec!["word".to_owned()]);
    let mut router = router(&[("default", by_word, 4)], &TaskSet::default());
    let mut sent = BTreeMap::<u32, u32>::new();
    for n in 0..10_000 {
        // Half of all tuples have the same key.
        let key = if n % 2 == 0 { "the".to_owned() } else { format!("w{n}") };
        *sent.entry(default_of(&mut router, &word(&key, n)).expect("routed")[0]).or_default() += 1;
    }
    // Its two tasks also get the keys that have no other choice, a sixth of them: 2,917 tuples each. Fields
    // grouping would send 6,250 to one task.
    assert!(sent.values().all(|n| (2000..3000).contains(n)), "{sent:?}");
}

#[test]
fn all_tasks_of_an_all_receiver_get_every_tuple() {
    let mut router = router(&[("default", Grouping::All, 3)], &TaskSet::default());
    assert_eq!(default_of(&mut router, &word("w", 1)), Ok(vec![2, 3, 4]));
}

#[test]
fn a_stream_without_receivers_gives_no_receivers() {
    let mut router = router(&[], &TaskSet::default());
    assert_eq!(default_of(&mut router, &word("w", 1)), Ok(vec![]));
}

#[test]
fn a_tuple_that_cannot_be_routed_is_rejected_with_the_reason() {
    let mut router =
        router(&[("default", Grouping::Shuffle, 2), ("named", Grouping::Direct, 2)], &TaskSet::default());
    let mut check = |to: &str, values: &[Value], direct: Option<u32>, expected: &str| {
        let mut out = vec![TaskId(99)];
        let values = ValueWriter::of(values);
        let refused = router
            .route(Some(&stream(to)), values.encoded(), direct.map(TaskId), &mut out)
            .expect_err("refused");
        assert_eq!(refused.to_string(), expected);
        assert_eq!(out, [], "a rejected tuple has no receivers");
    };
    check("nosuch", &word("w", 1), None, "component source declares no stream nosuch");
    let short = &[Value::from("w")];
    check("default", short, None, "a tuple of stream default of source needs 2 values and has 1");
    check("named", short, None, "stream named of source is direct: the emit must name a task");
    let not_direct = |task: u32, to: &str| {
        format!("task {task} does not receive stream {to} of source by direct grouping")
    };
    check("default", &word("w", 1), Some(2), &not_direct(2, "default"));
    check("named", short, Some(2), &not_direct(2, "named"));
    check("named", short, Some(77), &not_direct(77, "named"));
    // The rejected tuples did not change the router.
    let mut out = Vec::new();
    let values = ValueWriter::of(short);
    router.route(Some(&stream("named")), values.encoded(), Some(TaskId(5)), &mut out).expect("routed");
    assert_eq!(out, [TaskId(5)]);
}

#[test]
fn a_topology_that_does_not_match_its_task_table_gives_no_router() {
    let (topology, table) = topology(&[("default", Grouping::Fields(vec!["nosuch".to_owned()]), 2)]);
    let new = |emitter: &str, table: &TaskTable| {
        Router::new(&topology, table, &component(emitter), TaskId(1), &TaskSet::default())
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        new("source", &table),
        r#"b0 groups by the field "nosuch", which stream default of source does not have"#
    );
    assert_eq!(new("nobody", &table), "component nobody is not in the topology");
    assert_eq!(new("source", &TaskTable::default()), "component b0 receives from source but has no tasks");
}

#[test]
fn emitters_do_not_all_start_with_the_same_receiver() {
    let (topology, table) = topology(&[("default", Grouping::Shuffle, 8)]);
    let first = |source| {
        let source = TaskId(source);
        let mut router =
            Router::new(&topology, &table, &component("source"), source, &TaskSet::default()).expect("fits");
        default_of(&mut router, &word("w", 1)).expect("routed")
    };
    let firsts: std::collections::BTreeSet<_> = (0..32).map(first).collect();
    assert!(firsts.len() > 4, "{firsts:?}");
}

fn any_inputs() -> impl Strategy<Value = Vec<(&'static str, Grouping, u32)>> {
    let input = (0..GROUPINGS.len(), 1u32..9).prop_map(|(kind, n)| ("default", GROUPINGS[kind](), n));
    prop::collection::vec(input, 0..6)
}

proptest! {
    #[test]
    fn every_subscriber_gets_each_tuple_once_and_all_grouping_sends_to_all_its_tasks(
        inputs in any_inputs(),
        local in prop::collection::btree_set(0u32..40, 0..20),
        words in prop::collection::vec("[a-c]{1,3}", 1..40),
    ) {
        let (_, table) = topology(&inputs);
        let mut router = router(&inputs, &tasks(local));
        for (n, text) in (0i64..).zip(&words) {
            let routed = default_of(&mut router, &word(text, n)).expect("routed");
            for (bolt, (_, grouping, parallelism)) in inputs.iter().enumerate() {
                let own = &table.0[&component(&format!("b{bolt}"))];
                let got = routed.iter().filter(|task| own.contains(TaskId(**task))).count();
                let expected = if *grouping == Grouping::All { *parallelism as usize } else { 1 };
                prop_assert_eq!(got, expected, "{:?}", grouping);
            }
        }
    }

    #[test]
    fn equal_fields_go_to_the_same_task_from_every_worker(
        parallelism in 1u32..20,
        text in ".*",
        here in prop::collection::btree_set(0u32..30, 0..30),
        there in prop::collection::btree_set(0u32..30, 0..30),
        n_before in 0i64..5,
    ) {
        let inputs = [("default", GROUPINGS[2](), parallelism)];
        let (mut one, mut other) = (router(&inputs, &tasks(here)), router(&inputs, &tasks(there)));
        for n in 0..n_before {
            default_of(&mut one, &word("before", n)).expect("routed");
        }
        prop_assert_eq!(default_of(&mut one, &word(&text, 1)), default_of(&mut other, &word(&text, 2)));
    }

    #[test]
    fn shuffle_passes_over_tasks_without_room_and_none_with_room_waits_longer_than_a_round(
        parallelism in 1u32..20,
        full in prop::collection::vec(any::<u32>(), 1..200),
        grouping in 0..2usize,
    ) {
        let local = if grouping == 1 { TaskSet::range(2, 1 + parallelism) } else { TaskSet::default() };
        let mut router = router(&[("default", GROUPINGS[grouping](), parallelism)], &local);
        let n = parallelism as usize;
        // Number of tuples since each task had its last one or had no room.
        let mut waited = vec![0; n];
        for bits in full {
            // Every third tuple finds room everywhere.
            let bits = if bits % 3 == 0 { 0 } else { bits };
            let is_full = |task: TaskId| bits >> (task.0 - 2) & 1 == 1;
            let mut found_full = Vec::new();
            router.pass_over(None, |task| !is_full(task), &mut found_full);
            let chosen = TaskId(default_of(&mut router, &word("w", 1)).expect("routed")[0]);
            prop_assert_eq!(is_full(chosen), !found_full.is_empty(), "{} of {:?}", chosen, found_full);
            if !found_full.is_empty() {
                prop_assert_eq!(found_full.len(), n.min(1 + PASSED_OVER_MAX));
                prop_assert!(found_full.iter().all(|task| is_full(*task)));
            }
            for (task, waited) in (2..).map(TaskId).zip(&mut waited) {
                *waited = if task == chosen || is_full(task) { 0 } else { *waited + 1 };
                prop_assert!(*waited < n, "task {} had room for {} tuples and got none", task, waited);
            }
        }
    }

    #[test]
    fn shuffle_with_room_everywhere_is_as_one_that_does_not_look(parallelism in 1u32..20, n in 0usize..100) {
        let inputs = [("default", Grouping::Shuffle, parallelism)];
        let (mut looks, mut deals) = (router(&inputs, &tasks([])), router(&inputs, &tasks([])));
        for _ in 0..n {
            let mut full = Vec::new();
            looks.pass_over(None, |_| true, &mut full);
            prop_assert!(full.is_empty());
            let tuple = word("w", 1);
            prop_assert_eq!(default_of(&mut looks, &tuple), default_of(&mut deals, &tuple));
        }
    }

    #[test]
    fn share_of_each_task_follows_what_it_can_take(speeds in prop::collection::vec(1usize..20, 2..8)) {
        // Queues of 8 tuples; in each step one tuple comes, and all tasks together can take one.
        let mut router = router(&[("default", Grouping::Shuffle, speeds.len() as u32)], &tasks([]));
        let (mut queued, mut taken) = (vec![0usize; speeds.len()], vec![0usize; speeds.len()]);
        let (total, n_rounds) = (speeds.iter().sum::<usize>(), 200);
        for step in 0..n_rounds * total {
            let mut full = Vec::new();
            router.pass_over(None, |task| queued[task.0 as usize - 2] < 8, &mut full);
            // The emitter waits if all are full.
            if full.is_empty() {
                let chosen = default_of(&mut router, &word("w", 1)).expect("routed")[0];
                queued[chosen as usize - 2] += 1;
            }
            for (at, speed) in speeds.iter().enumerate() {
                // Each task takes `speed` tuples in `total` steps.
                let is_due = (step + 1) * speed / total > step * speed / total;
                if is_due && queued[at] > 0 {
                    queued[at] -= 1;
                    taken[at] += 1;
                }
            }
        }
        for (speed, taken) in speeds.iter().zip(&taken) {
            let most = speed * n_rounds;
            prop_assert!(*taken * 10 >= most * 9, "{} of {}: {:?}", taken, most, speeds);
        }
    }

    #[test]
    fn shuffles_are_even_within_one(parallelism in 1u32..20, n_tuples in 0u32..300, local in 0u32..20) {
        for grouping in [Grouping::Shuffle, Grouping::LocalOrShuffle, Grouping::None] {
            let local = tasks(2..2 + local.min(parallelism));
            let mut router = router(&[("default", grouping.clone(), parallelism)], &local);
            let receiving = match (&grouping, local.is_empty()) {
                (Grouping::LocalOrShuffle, false) => local,
                _ => TaskSet::range(2, 1 + parallelism),
            };
            let mut got: BTreeMap<u32, u32> = receiving.iter().map(|task| (task.0, 0)).collect();
            for _ in 0..n_tuples {
                for task in default_of(&mut router, &word("w", 1)).expect("routed") {
                    *got.get_mut(&task).expect("a receiver") += 1;
                }
            }
            let (least, most) = (got.values().min().expect("some"), got.values().max().expect("some"));
            prop_assert!(most - least <= 1, "{:?}", got);
        }
    }
}
