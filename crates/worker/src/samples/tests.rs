use std::fs;

use super::*;
use line::{ENCODED_MAX, LISTED_MAX, VALUES_MAX};
use stormkeeper_model::Timestamp;
use stormkeeper_runtime::test_support::wait_until;
use stormkeeper_stream::{Anchor, AnchorList, Origin, Value, ValueWriter};

const WAIT_MAX: Duration = Duration::from_secs(30);

const TASK: TaskId = TaskId(3);

fn component() -> ComponentId {
    "split".parse().expect("valid")
}

fn origin() -> Origin {
    Origin { task: TASK, component: component(), stream: "words".parse().expect("valid") }
}

struct World {
    clock: Clock,
    samples: Samples,
    sampler: Sampler,
    lines: mpsc::Receiver<String>,
}

impl World {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let table = TaskTable([(component(), TaskSet::from_iter([TASK]))].into());
        let (sent, lines) = mpsc::channel(LINES_WAITING);
        let samples = Samples::new((&TaskSet::from_iter([TASK]), &table), sent, clock.clone());
        let sampler = samples.sampler(&component(), TASK);
        Self { clock, samples, sampler, lines }
    }

    fn follow(&mut self, one_in: u32, per_sec: u32, for_secs: u64) {
        let until = Timestamp::from_millis(5_000_000);
        let sample = TupleSample { one_in, per_sec, for_secs, until };
        self.samples.follow(&TupleSamples([(component(), sample)].into()));
    }

    /// Lets tuples pass that have their number as value. Returns the lines that they leave.
    fn pass(&mut self, n: usize) -> Vec<serde_json::Value> {
        for number in 0..n {
            if self.sampler.is_next() {
                let values = [Value::Int(number as i64)];
                let trees = AnchorList::Given(&[]);
                let origin = origin();
                self.sampler.show(Way::Received { origin: &origin, trees }, Values::Plain(&values));
            }
        }
        self.lines()
    }

    fn lines(&mut self) -> Vec<serde_json::Value> {
        let lines = std::iter::from_fn(|| self.lines.try_recv().ok());
        lines.map(|line| serde_json::from_str(&line).expect("JSON")).collect()
    }

    /// Returns the line of an emitted tuple.
    fn shown(&mut self, to: &[TaskId], anchors: &[Anchor], values: Values<'_>) -> serde_json::Value {
        let origin = origin();
        self.sampler.show(Way::Emitted { origin: &origin, to, trees: AnchorList::Given(anchors) }, values);
        self.lines().pop().expect("a line")
    }
}

fn anchor(root: u64) -> Anchor {
    Anchor { acker: TASK, root, edge: 1 }
}

fn numbers(lines: &[serde_json::Value]) -> Vec<i64> {
    lines.iter().map(|line| line["values"][0].as_i64().expect("a number")).collect()
}

#[test]
fn share_of_the_tuples_is_shown_until_the_sample_ends_by_the_own_clock_and_none_without_one() {
    let mut world = World::new();
    assert_eq!(world.pass(1000).len(), 0);
    world.follow(100, 10, 60);
    assert_eq!(numbers(&world.pass(250)), [0, 100, 200]);
    // The next share is smaller: no task waits for the end of the former one.
    world.follow(2, 10, 60);
    assert_eq!(numbers(&world.pass(5)), [1, 3]);
    world.clock.advance(Duration::from_secs(59));
    assert_eq!(world.pass(4).len(), 2);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.pass(1000).len(), 0);
    assert!(!world.sampler.is_next(), "it is off");
    world.follow(1, 10, 60);
    assert_eq!(world.pass(2).len(), 2);
    world.samples.follow(&TupleSamples::default());
    assert_eq!(world.pass(1000).len(), 0);
}

#[test]
fn no_more_tuples_are_shown_in_a_second_than_the_limit_and_the_others_are_counted() {
    let mut world = World::new();
    world.follow(1, 3, 60);
    let lines = world.pass(10);
    assert_eq!(numbers(&lines), [0, 1, 2]);
    assert!(lines.iter().all(|line| line.get("left_out").is_none()));
    world.clock.advance(LIMIT_PERIOD);
    let lines = world.pass(2);
    assert_eq!(lines[0]["left_out"], 7);
    assert!(lines[1].get("left_out").is_none());
    // As many wait for the disk as may.
    world.follow(1, 2000, 60);
    for number in 0..600 {
        assert!(world.sampler.is_next());
        let trees = AnchorList::Given(&[]);
        let values = [Value::Int(number)];
        world.sampler.show(Way::Received { origin: &origin(), trees }, Values::Plain(&values));
    }
    assert_eq!(world.lines().len(), LINES_WAITING);
    assert_eq!(world.pass(1)[0]["left_out"], 600 - LINES_WAITING);
}

#[test]
fn line_has_the_tuple_its_task_its_receivers_and_its_trees() {
    let mut world = World::new();
    world.follow(1, 100, 60);
    let values = [Value::from("a\n\"b"), Value::Int(-1), Value::Null, Value::List(vec![Value::Bool(true)])];
    let encoded = ValueWriter::of(&values);
    let receivers = [TaskId(5), TaskId(6)];
    let line = world.shown(&receivers, &[anchor(255)], Values::Encoded(encoded.encoded()));
    let expected = serde_json::json!({
        "time": "1970-01-01T00:16:40.000Z", "until_ms": 5_000_000, "component": "split", "task": 3,
        "way": "emitted", "stream": "words", "values": ["a\n\"b", -1, null, [true]], "to": [5, 6],
        "trees": ["00000000000000ff"]
    });
    assert_eq!(line, expected);
    world
        .sampler
        .show(Way::Received { origin: &origin(), trees: AnchorList::Given(&[]) }, Values::Plain(&values));
    let received = &world.lines()[0];
    assert_eq!(received["from"], serde_json::json!({ "component": "split", "task": 3 }));
    assert_eq!(received["values"], expected["values"]);
}

#[test]
fn long_values_and_lists_are_cut_and_say_so() {
    let mut world = World::new();
    world.follow(1, 100, 60);
    let long = "€".repeat(VALUES_MAX);
    for values in [[Value::from(&*long)], [Value::List(vec![Value::from(&*long); 2])]] {
        let encoded = ValueWriter::of(&values);
        for shown in [Values::Encoded(encoded.encoded()), Values::Plain(&values)] {
            let line = world.shown(&[TASK], &[], shown);
            assert!(line.get("values").is_none());
            let cut = line["values_cut"].as_str().expect("text");
            assert!(cut.starts_with('[') && cut.ends_with('€'), "{cut}");
            assert!((VALUES_MAX - 3..=VALUES_MAX).contains(&cut.len()), "{}", cut.len());
        }
    }
    let huge = ValueWriter::of([&Value::from("x".repeat(ENCODED_MAX))]);
    let line = world.shown(&[TASK], &[], Values::Encoded(huge.encoded()));
    assert!(line["values_cut"].as_str().is_some_and(|text| text.ends_with(" bytes)")), "{line}");
    let (many, roots) = (vec![TASK; 100], vec![anchor(1); 100]);
    let line = world.shown(&many, &roots, Values::Plain(&[]));
    let listed = |name: &str| line[name].as_array().map(Vec::len);
    assert_eq!((listed("to"), listed("trees")), (Some(LISTED_MAX), Some(LISTED_MAX)));
    assert_eq!((&line["more_receivers"], &line["more_trees"]), (&84.into(), &84.into()));
}

#[tokio::test]
async fn lines_are_in_a_file_of_their_own_which_exists_only_after_a_sample() {
    let dir = tempfile::tempdir().expect("a directory");
    let (logs, tasks) = (dir.path().join("logs"), Tasks::default());
    let lines = start_writer(logs.clone(), &tasks);
    let file = logs.join(SAMPLES_FILE);
    assert!(!file.exists());
    lines.send("{\"a\":1}\n".to_owned()).await.expect("taken");
    lines.send("{\"a\":2}\n".to_owned()).await.expect("taken");
    wait_until("both lines are written", WAIT_MAX, async || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if text == "{\"a\":1}\n{\"a\":2}\n" { Ok(()) } else { Err(text) }
    })
    .await;
    assert!(tasks.stop(WAIT_MAX).await);
}
