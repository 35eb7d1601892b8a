//! A worker that dies between any two steps loses no count that was written, and none is counted
//! twice.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
};

use proptest::prelude::*;

use super::*;
use stormkeeper_metrics::{
    Leaf, MetricId, MetricName, MetricReport, MetricType, Minute, Point, Subject, name::SYS, point::Counter,
};
use stormkeeper_model::TaskId;

const TASKS: [TaskId; 2] = [TaskId(1), TaskId(2)];

fn launch() -> Launch {
    Launch {
        topology: "t-1-1".parse().expect("valid"),
        worker: "w".parse().expect("valid"),
        started: Timestamp::from_millis(7),
    }
}

fn metric(task: TaskId, n: usize) -> (MetricId, MetricName) {
    let subject = Subject::Task { component: "c".parse().expect("valid"), task };
    let topology = launch().topology;
    let name = MetricName::new(topology, MetricType::Counter, subject, SYS, &format!("m{n}")).expect("valid");
    (MetricId::of(&name.to_string(), 0), name)
}

/// A step of a worker or of the leader.
#[derive(Debug, Clone)]
enum Step {
    Count {
        task: usize,
        slot: usize,
        n: u64,
    },
    NewCounter {
        task: usize,
    },
    Write {
        task: usize,
    },
    Collect,
    /// The leader ingests the next `n` reports.
    Send {
        n: usize,
    },
    /// The sent reports are committed, and removed.
    Remove,
    Join,
}

/// The moment of the worker's death.
#[derive(Debug, Clone, Copy)]
enum Death {
    Between,
    /// A report was collected and is not on disk.
    BeforeReportFile,
    InReportFile,
    /// Two reports were joined and their parts not removed.
    InJoin,
    InSlotLine,
    InFirstNumber,
}

struct Counters {
    file: CounterFile,
    ids: Vec<MetricId>,
    totals: Vec<u64>,
    written: Vec<u64>,
}

/// A worker, and the leader that ingests its reports.
struct Scenario {
    dir: tempfile::TempDir,
    taken: Option<SpoolLock>,
    reports: Spool,
    counters: Vec<Counters>,
    on_disk: Vec<(u64, u64)>,
    n_sent: usize,
    number: u64,
    collected_totals: BTreeMap<MetricId, u64>,
    // State of the leader.
    stored: BTreeMap<MetricId, u64>,
    last_stored: u64,
}

impl Scenario {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let taken = lock(dir.path(), &launch()).expect("taken");
        let reports = Spool::create(&taken.dir).expect("created");
        let counters = TASKS.map(|task| Counters {
            file: CounterFile::create(&taken.dir, task).expect("created"),
            ids: Vec::new(),
            totals: Vec::new(),
            written: Vec::new(),
        });
        Self {
            dir,
            taken: Some(taken),
            reports,
            counters: counters.into(),
            on_disk: Vec::new(),
            n_sent: 0,
            number: 0,
            collected_totals: BTreeMap::new(),
            stored: BTreeMap::new(),
            last_stored: 0,
        }
    }

    fn metrics_dir(&self) -> PathBuf {
        self.dir.path().join(DIR)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Count { task, slot, n } => {
                if let Some(total) = self.counters[task].totals.get_mut(slot) {
                    *total += n;
                }
            }
            Step::NewCounter { task } => {
                let counters = &mut self.counters[task];
                let (id, name) = metric(TASKS[task], counters.ids.len());
                self.reports.add_name(id, &name).expect("written");
                counters.file.add_slot(id, &name).expect("written");
                counters.ids.push(id);
                counters.totals.push(0);
                counters.written.push(0);
            }
            Step::Write { task } => {
                let counters = &mut self.counters[task];
                counters.file.write(counters.totals.iter().copied()).expect("written");
                counters.written.clone_from(&counters.totals);
            }
            Step::Collect => {
                let spooled = self.collect();
                self.write_report(&spooled);
            }
            Step::Send { n } => {
                for (first, last) in self.on_disk.iter().skip(self.n_sent).take(n) {
                    let spooled = self.reports.read(*first, *last).expect("there");
                    store(&mut self.stored, &mut self.last_stored, &spooled);
                }
                self.n_sent = (self.n_sent + n).min(self.on_disk.len());
            }
            Step::Remove => {
                let n = self.n_sent.min(self.on_disk.len().saturating_sub(1));
                for (first, last) in self.on_disk.drain(..n) {
                    self.reports.remove(first, last);
                }
                self.n_sent -= n;
            }
            Step::Join => {
                if let Some([older, newer]) = self.unsent() {
                    self.reports.join(older, newer).expect("joined");
                    let place = self.n_sent;
                    self.on_disk.splice(place..place + 2, [(older.0, newer.1)]);
                }
            }
        }
    }

    fn unsent(&self) -> Option<[(u64, u64); 2]> {
        self.on_disk.get(self.n_sent..)?.first_chunk().copied()
    }

    fn collect(&mut self) -> (SpooledReport, BTreeMap<MetricId, u64>) {
        self.number += 1;
        let before = self.collected_totals.clone();
        for counters in &self.counters {
            self.collected_totals.extend(counters.ids.iter().copied().zip(counters.totals.iter().copied()));
        }
        let leaf = |(id, total): (&MetricId, &u64)| Leaf {
            id: *id,
            point: Point::Counter(Counter { count: total - before.get(id).unwrap_or(&0) }),
            total: Some(*total),
        };
        let Launch { topology, worker, started } = launch();
        let leaves = self.collected_totals.iter().map(leaf).collect();
        let report =
            MetricReport { topology, worker, number: self.number, minute: Minute(9), started, leaves };
        (SpooledReport { first: self.number, report }, self.collected_totals.clone())
    }

    fn write_report(&mut self, (spooled, totals): &(SpooledReport, BTreeMap<MetricId, u64>)) {
        self.reports.write(spooled, totals).expect("written");
        self.on_disk.push((spooled.first, spooled.report.number));
    }

    /// The counts that the leader must have in the end.
    fn expected(&self, collected_totals: &BTreeMap<MetricId, u64>) -> BTreeMap<MetricId, u64> {
        let mut expected = collected_totals.clone();
        for counters in &self.counters {
            for (id, written) in counters.ids.iter().zip(&counters.written) {
                let total = expected.entry(*id).or_default();
                *total = (*total).max(*written);
            }
        }
        expected.retain(|_, total| *total > 0);
        expected
    }

    fn die(&mut self, death: Death) -> BTreeMap<MetricId, u64> {
        let reported_totals = self.collected_totals.clone();
        let dir = self.metrics_dir();
        let truncate = |file: &Path, length: u64| {
            let file = OpenOptions::new().write(true).open(file).expect("there");
            file.set_len(length.min(file.metadata().expect("there").len())).expect("truncated");
        };
        match death {
            Death::Between => {}
            Death::BeforeReportFile => drop(self.collect()),
            Death::InReportFile => {
                let spooled = self.collect();
                self.write_report(&spooled);
                let path = dir.join(format!("report-{0}-{0}", self.number));
                let temporary = dir.join(format!("report-{0}-{0}.tmp", self.number));
                fs::rename(&path, &temporary).expect("renamed back");
                truncate(&temporary, 40);
            }
            Death::InJoin => {
                if let Some([older, newer]) = self.unsent() {
                    let keep: Vec<_> = [older, newer]
                        .map(|(first, last)| dir.join(format!("report-{first}-{last}")))
                        .into_iter()
                        .map(|path| (fs::read(&path).expect("there"), path))
                        .collect();
                    self.reports.join(older, newer).expect("joined");
                    for (bytes, path) in keep {
                        fs::write(path, bytes).expect("written");
                    }
                }
            }
            Death::InSlotLine => {
                let written = self.counters[0].totals.clone();
                self.step(&Step::NewCounter { task: 0 });
                let slots = dir.join(format!("{}{}", counter_file::SLOTS, TASKS[0]));
                truncate(&slots, fs::metadata(&slots).expect("there").len() - 1);
                let counters = &mut self.counters[0];
                counters.file.write(written.clone()).expect("written");
                counters.written = written;
            }
            Death::InFirstNumber => {
                let n_before = self.counters[0].ids.len() as u64;
                self.step(&Step::NewCounter { task: 0 });
                let last = self.counters[0].totals.len() - 1;
                self.step(&Step::Count { task: 0, slot: last, n: 5 });
                self.step(&Step::Write { task: 0 });
                self.counters[0].written[last] = 0;
                let file = dir.join(format!("{}{}", counter_file::COUNTERS, TASKS[0]));
                truncate(&file, 8 + 8 * n_before + 3);
            }
        }
        drop(self.taken.take());
        self.expected(&reported_totals)
    }
}

fn store(stored: &mut BTreeMap<MetricId, u64>, last_stored: &mut u64, spooled: &SpooledReport) {
    if spooled.report.number <= *last_stored {
        return;
    }
    assert_eq!(spooled.first, *last_stored + 1, "the report follows directly on the last one");
    *last_stored = spooled.report.number;
    for leaf in &spooled.report.leaves {
        let Point::Counter(Counter { count }) = leaf.point else { panic!("not a counter") };
        *stored.entry(leaf.id).or_default() += count;
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let count = (0..TASKS.len(), 0..4_usize, 1..100_u64);
    prop_oneof![
        4 => count.prop_map(|(task, slot, n)| Step::Count { task, slot, n }),
        2 => (0..TASKS.len()).prop_map(|task| Step::NewCounter { task }),
        3 => (0..TASKS.len()).prop_map(|task| Step::Write { task }),
        2 => Just(Step::Collect),
        2 => (1..3_usize).prop_map(|n| Step::Send { n }),
        1 => Just(Step::Remove),
        1 => Just(Step::Join),
    ]
}

fn any_death() -> impl Strategy<Value = Death> {
    prop::sample::select(vec![
        Death::Between,
        Death::BeforeReportFile,
        Death::InReportFile,
        Death::InJoin,
        Death::InSlotLine,
        Death::InFirstNumber,
    ])
}

proptest! {
    #[test]
    fn no_written_count_is_lost_or_counted_twice(
        steps in prop::collection::vec(any_step(), 0..60),
        death in any_death(),
    ) {
        let mut scenario = Scenario::new();
        for step in &steps {
            scenario.step(step);
        }
        let expected = scenario.die(death);
        let SpoolState::Orphaned(taken, launch) = inspect(scenario.dir.path()).expect("readable") else {
            panic!("the worker is gone and its spool is not empty");
        };
        let recovered = recover::recover(&taken.dir, &launch).expect("readable");
        prop_assert_eq!(&recovered.problems, &Vec::<String>::new());
        // Sending the reports twice changes nothing.
        for spooled in recovered.reports.iter().chain(&recovered.reports) {
            store(&mut scenario.stored, &mut scenario.last_stored, spooled);
            for leaf in &spooled.report.leaves {
                prop_assert!(recovered.names.contains_key(&leaf.id));
            }
        }
        scenario.stored.retain(|_, count| *count > 0);
        prop_assert_eq!(&scenario.stored, &expected);
        mark_delivered(&taken).expect("finished");
        prop_assert!(matches!(inspect(scenario.dir.path()).expect("readable"), SpoolState::Delivered));
    }
}

#[test]
fn a_live_spool_is_not_orphaned_and_an_empty_one_is_done() {
    let dir = tempfile::tempdir().expect("temporary directory");
    assert!(matches!(inspect(dir.path()).expect("readable"), SpoolState::Delivered));
    let taken = lock(dir.path(), &launch()).expect("taken");
    assert!(matches!(inspect(dir.path()).expect("readable"), SpoolState::Live));
    drop(taken);
    let SpoolState::Orphaned(taken, found) = inspect(dir.path()).expect("readable") else {
        panic!("it is unlocked")
    };
    assert_eq!(found, launch());
    assert_eq!(recover::recover(&taken.dir, &found).expect("readable"), Recovered::default());
}

#[test]
fn spool_of_a_newer_format_is_an_error_and_is_not_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(lock(dir.path(), &launch()).expect("taken"));
    let file = dir.path().join(DIR).join(LAUNCH_FILE);
    let text = fs::read_to_string(&file).expect("text");
    assert!(text.starts_with(r#"{"v":1,"topology":""#), "{text}");
    fs::write(&file, r#"{"v":2,"shape":"new"}"#).expect("written");
    let error = inspect(dir.path()).expect_err("newer").to_string();
    assert!(error.contains("has format 2, and this build reads up to format 1"), "{error}");
    assert!(may_be_orphaned(dir.path()));
}

#[test]
fn a_damaged_report_is_a_problem_and_the_counters_replace_it() {
    let mut scenario = Scenario::new();
    for step in [
        Step::NewCounter { task: 0 },
        Step::Count { task: 0, slot: 0, n: 5 },
        Step::Collect,
        Step::Count { task: 0, slot: 0, n: 6 },
        Step::Write { task: 0 },
        Step::Collect,
    ] {
        scenario.step(&step);
    }
    fs::write(scenario.metrics_dir().join("report-2-2"), b"short").expect("written");
    let recovered = recover::recover(&scenario.metrics_dir(), &launch()).expect("readable");
    assert_eq!(recovered.problems.len(), 1, "{:?}", recovered.problems);
    let numbers: Vec<_> =
        recovered.reports.iter().map(|spooled| (spooled.first, spooled.report.number)).collect();
    assert_eq!(numbers, [(1, 1), (2, 3)]);
    assert_eq!(recovered.reports[1].report.leaves[0].point, Point::Counter(Counter { count: 6 }));
}

#[test]
fn reports_with_the_largest_number_are_recovered() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let taken = lock(dir.path(), &launch()).expect("taken");
    let spool = Spool::create(&taken.dir).expect("created");
    let Launch { topology, worker, started } = launch();
    let report =
        MetricReport { topology, worker, number: u64::MAX, minute: Minute(1), started, leaves: Vec::new() };
    spool.write(&SpooledReport { first: 1, report }, &BTreeMap::new()).expect("written");
    let mut counters = CounterFile::create(&taken.dir, TASKS[0]).expect("created");
    let (id, name) = metric(TASKS[0], 0);
    counters.add_slot(id, &name).expect("added");
    counters.write([5]).expect("written");
    let recovered = recover::recover(&taken.dir, &launch()).expect("readable");
    let numbers: Vec<_> = recovered.reports.iter().map(|one| (one.first, one.report.number)).collect();
    assert_eq!(numbers, [(1, u64::MAX), (u64::MAX, u64::MAX)]);
}
