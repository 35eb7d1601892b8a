//! Merge of samples.

use super::merge::{Expected, Merge};
use std::{collections::BTreeMap, time::Duration};
use stormkeeper_metrics::live::{LiveSample, StreamCounts, TaskSample, Total};
use stormkeeper_model::{Port, Slot, TaskId, WorkerId, clock::Monotonic, heartbeat::TaskCounts};

fn at(millis: u64) -> Monotonic {
    Monotonic::START.plus(Duration::from_millis(millis))
}

fn slot(port: u16) -> Slot {
    Slot { supervisor: "s".parse().expect("valid"), port: Port(port) }
}

fn expected(workers: &[(u16, &str)]) -> BTreeMap<Slot, Expected> {
    let worker = |(port, tasks): &(u16, &str)| {
        let (host, tasks) = ("h".to_owned(), tasks.parse().expect("tasks"));
        (slot(*port), Expected { host, tasks })
    };
    workers.iter().map(worker).collect()
}

/// A sample in which each task has executed `n` tuples, emitted twice as many, and was busy a ms for each.
fn sample(uptime_ms: u64, tasks: &[(u32, &str, u64)]) -> LiveSample {
    let task = |(id, component, n): &(u32, &str, u64)| {
        let counts = TaskCounts { executed: *n, emitted: 2 * n, ..TaskCounts::default() };
        let mut task = TaskSample::new(TaskId(*id), component.parse().expect("valid"), counts, 3);
        task.busy_us = Some(1000 * n);
        task.queue = Some(f64::from(*id) / 10.0);
        task.process = Total { n: *n, sum: 250.0 * *n as f64 };
        let stream = StreamCounts { emitted: 2 * n, transferred: 4 * n };
        task.streams.insert("default".parse().expect("valid"), stream);
        task
    };
    LiveSample { uptime_ms, tasks: tasks.iter().map(task).collect() }
}

fn launch(id: &str) -> WorkerId {
    id.parse().expect("valid")
}

#[test]
fn numbers_of_all_workers_add_up_and_rates_are_those_between_samples_of_one_launch() {
    let expected = expected(&[(1, "1-2"), (2, "3")]);
    let mut merge = Merge::default();
    // The clocks of the workers begin at other times.
    merge.take(slot(1), launch("a"), sample(1_000, &[(1, "words", 100), (2, "count", 10)]), at(0));
    merge.take(slot(2), launch("b"), sample(77_000, &[(3, "count", 20)]), at(100));
    let first = merge.numbers(&expected, at(200));
    assert_eq!((first.n_live, first.age), (2, Some(Duration::from_millis(200))));
    assert!(first.components.iter().all(|one| one.rates.is_none() && one.capacity.is_none()), "{first:?}");
    assert!(merge.is_complete(&expected, 1) && !merge.is_complete(&expected, 2));
    merge.take(slot(1), launch("a"), sample(3_000, &[(1, "words", 300), (2, "count", 110)]), at(2_000));
    merge.take(slot(2), launch("b"), sample(79_000, &[(3, "count", 1020)]), at(2_100));
    assert!(merge.is_complete(&expected, 2));
    let numbers = merge.numbers(&expected, at(2_200));
    let [count, words] = &numbers.components[..] else { panic!("{numbers:?}") };
    assert_eq!((count.id.as_str(), count.tasks, count.counts.executed, count.pending), ("count", 2, 1130, 6));
    let rates = count.rates.expect("there are two samples of each");
    assert_eq!((rates.executed, rates.emitted), (50.0 + 500.0, 100.0 + 1000.0));
    assert_eq!(count.capacity, Some((0.05 + 0.5) / 2.0));
    assert_eq!((count.queue, count.process_us), (Some(0.3), Some(250.0)));
    assert_eq!((count.streams[0].emitted, count.streams[0].emitted_rate), (2260, Some(1100.0)));
    assert_eq!(words.rates.expect("there are two").executed, 100.0);
    let tasks: Vec<(u32, f64)> =
        numbers.tasks.iter().map(|task| (task.task.0, task.rates.expect("two").executed)).collect();
    assert_eq!(tasks, [(1, 100.0), (2, 50.0), (3, 500.0)]);
}

#[test]
fn launch_that_replaces_another_counts_from_zero_without_a_jump_in_rates() {
    let expected = expected(&[(1, "1")]);
    let mut merge = Merge::default();
    merge.take(slot(1), launch("a"), sample(9_000, &[(1, "words", 900)]), at(0));
    merge.take(slot(1), launch("a"), sample(10_000, &[(1, "words", 1000)]), at(1_000));
    merge.take(slot(1), launch("b"), sample(20_000, &[(1, "words", 5000)]), at(2_000));
    let numbers = merge.numbers(&expected, at(2_000));
    assert_eq!((numbers.components[0].counts.executed, numbers.components[0].rates), (5000, None));
    // The first line of an agent that is asked again is one that was there.
    merge.take(slot(1), launch("b"), sample(20_000, &[(1, "words", 5000)]), at(2_100));
    assert_eq!(merge.numbers(&expected, at(2_100)).components[0].rates, None);
    merge.take(slot(1), launch("b"), sample(21_000, &[(1, "words", 5010)]), at(3_000));
    let rates = merge.numbers(&expected, at(3_000)).components[0].rates.expect("there are two");
    assert_eq!(rates.executed, 10.0);
}

#[test]
fn rates_are_those_of_the_last_seconds() {
    let expected = expected(&[(1, "1")]);
    let mut merge = Merge::default();
    for n in 0..10 {
        // Idle for five seconds, then 40 a second.
        let executed = 40 * n.max(5);
        merge.take(slot(1), launch("a"), sample(1_000 * n, &[(1, "words", executed)]), at(1_000 * n));
    }
    let rates = merge.numbers(&expected, at(9_000)).components[0].rates.expect("there are some");
    assert_eq!(rates.executed, 40.0);
}

#[test]
fn workers_without_numbers_are_named_with_the_reason_and_not_counted() {
    let expected = expected(&[(1, "1"), (2, "2"), (3, "3")]);
    let mut merge = Merge::default();
    merge.take(slot(1), launch("a"), sample(1_000, &[(1, "words", 1)]), at(0));
    merge.take_problem(slot(2), "it does not send live numbers".to_owned());
    let reasons = |merge: &Merge, now| -> Vec<(u16, String)> {
        let missing = merge.numbers(&expected, now).missing;
        missing.into_iter().map(|worker| (worker.port.0, worker.reason)).collect()
    };
    let silent = (2, "it does not send live numbers".to_owned());
    assert_eq!(reasons(&merge, at(100)), [silent.clone(), (3, "no numbers yet".to_owned())]);
    assert!(!merge.is_complete(&expected, 1), "the third may still come");
    let old = merge.numbers(&expected, at(5_000));
    assert_eq!((old.n_live, old.age, old.components.len()), (0, None, 0), "{old:?}");
    assert_eq!(reasons(&merge, at(5_000))[0], (1, "no numbers for 5 s".to_owned()));
    // A problem after a sample does not hide numbers that are not old yet.
    merge.take_problem(slot(1), "it has ended".to_owned());
    assert_eq!(merge.numbers(&expected, at(100)).n_live, 1);
    assert_eq!(reasons(&merge, at(5_000))[0], (1, "it has ended".to_owned()));
}

#[test]
fn worker_speaks_for_its_own_tasks_only_and_one_that_is_not_assigned_for_none() {
    let expected = expected(&[(1, "1")]);
    let mut merge = Merge::default();
    merge.take(slot(1), launch("a"), sample(1_000, &[(1, "words", 5), (2, "count", 9)]), at(0));
    merge.take(slot(9), launch("x"), sample(1_000, &[(1, "words", 7)]), at(0));
    let numbers = merge.numbers(&expected, at(0));
    assert_eq!((numbers.components.len(), numbers.tasks.len()), (1, 1));
    assert_eq!(numbers.components[0].counts.executed, 5);
    merge.keep_only(&expected);
    assert_eq!(merge.numbers(&expected, at(0)), numbers);
}

#[test]
fn numbers_are_new_when_every_worker_that_sends_has_sent_since() {
    let mut merge = Merge::default();
    assert!(!merge.is_newer(at(0), at(1)), "there is nothing");
    merge.take(slot(1), launch("a"), sample(1_000, &[]), at(1_000));
    merge.take(slot(2), launch("b"), sample(1_000, &[]), at(1_400));
    assert!(merge.is_newer(at(900), at(1_500)));
    merge.take(slot(1), launch("a"), sample(2_000, &[]), at(2_000));
    assert!(!merge.is_newer(at(1_500), at(2_000)), "the second has not");
    merge.take(slot(2), launch("b"), sample(2_000, &[]), at(2_400));
    assert!(merge.is_newer(at(1_500), at(2_500)));
    merge.take(slot(1), launch("a"), sample(9_000, &[]), at(9_000));
    assert!(merge.is_newer(at(8_500), at(9_000)), "the second is silent for long, and is not waited for");
}
