//! The socket of a worker, with readers.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::UnixStream,
};

use super::*;
use crate::{
    counters::CounterRegistry,
    metrics::{Metrics, TaskMetrics},
    tests::{Stage, options},
};
use stormkeeper_metrics::{
    Control,
    live::{LiveSample, SOCKET, StreamCounts},
};
use stormkeeper_model::{TaskId, clock::Clock, heartbeat::TaskCounts};

const WAIT_MAX: Duration = Duration::from_secs(30);

type Samples = Lines<BufReader<UnixStream>>;

/// Connects to a socket, which its worker may be opening.
async fn connect(path: &std::path::Path) -> Samples {
    let connected = stormkeeper_runtime::test_support::wait_until("the socket is open", WAIT_MAX, || async {
        UnixStream::connect(path).await.map_err(|error| error.to_string())
    });
    BufReader::new(connected.await).lines()
}

async fn next(samples: &mut Samples) -> LiveSample {
    let line = tokio::time::timeout(WAIT_MAX, samples.next_line()).await.expect("in time").expect("read");
    serde_json::from_str(&line.expect("a line")).expect("a sample")
}

fn sampler(metrics: Option<Metrics>) -> Sampler {
    let clock = Clock::new();
    let began = clock.monotonic();
    let task = |task, component: &str| LiveTask {
        task: TaskId(task),
        component: component.parse().expect("valid"),
        queue: None,
    };
    let tasks = vec![task(1, "words"), task(2, "count")];
    Sampler { tasks, counters: CounterRegistry::default(), metrics, clock, began }
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_gets_the_counts_at_once_and_again_each_second_also_at_a_long_path() {
    let dir = tempfile::tempdir().expect("a directory");
    let long: PathBuf = dir.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&long).expect("created");
    let (sampler, tasks) = (sampler(None), Tasks::default());
    let counters = sampler.counters.of(TaskId(2));
    counters.executed.add(7);
    start(long.clone(), sampler, &tasks);
    // The test reaches the socket by a short link.
    let short = dir.path().join("s");
    std::os::unix::fs::symlink(&long, &short).expect("linked");
    let mut samples = connect(&short.join(SOCKET)).await;
    let first = next(&mut samples).await;
    let of_count = |sample: &LiveSample| sample.tasks[1].counts.executed;
    assert_eq!((first.tasks.len(), of_count(&first), first.tasks[0].counts), (2, 7, TaskCounts::default()));
    counters.executed.add(3);
    let second = next(&mut samples).await;
    assert_eq!(of_count(&second), 10);
    let passed = second.uptime_ms - first.uptime_ms;
    assert!((900..10_000).contains(&passed), "{passed} ms");
    let mode = std::fs::metadata(long.join(SOCKET)).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_beyond_the_limit_is_closed_and_those_before_it_are_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let tasks = Tasks::default();
    start(dir.path().to_owned(), sampler(None), &tasks);
    let path = dir.path().join(SOCKET);
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut reader = connect(&path).await;
        next(&mut reader).await;
        readers.push(reader);
    }
    let mut fifth = connect(&path).await;
    let end = tokio::time::timeout(WAIT_MAX, fifth.next_line()).await.expect("in time");
    assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
    next(&mut readers[0]).await;
}

#[test]
fn sample_has_the_busy_time_and_the_streams_of_a_task_and_takes_nothing_from_a_report() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::new();
    let metrics = Metrics::start(&options(dir.path()), Control::default(), &clock).expect("started");
    let mut of_task = TaskMetrics::new(&metrics, "words".parse().expect("valid"), TaskId(1));
    let stream = "default".parse().expect("valid");
    let index = of_task.emitted(&stream);
    of_task.transferred(index, 3);
    of_task.spout_call_began(clock.monotonic());
    of_task.spout_called(Duration::from_millis(40), false);
    let sampler = sampler(Some(metrics.clone()));
    let sample = sampler.sample();
    assert_eq!(sample.tasks[0].streams, [(stream, StreamCounts { emitted: 1, transferred: 3 })].into());
    assert_eq!(sample.tasks[0].busy_us, Some(40_000));
    assert_eq!((sample.tasks[0].execute.n, sample.tasks[0].execute.sum), (1, 40_000.0));
    assert_eq!((sample.tasks[1].busy_us, sample.tasks[1].streams.len()), (None, 0), "it has no metrics");
    assert_eq!(sampler.sample().tasks, sample.tasks, "a sample takes nothing");
    let request = stormkeeper_metrics::CollectRequest {
        minute: stormkeeper_metrics::Minute(1),
        now: clock.monotonic(),
        with_gauges: true,
    };
    let leaves = metrics.registry().collect(request);
    assert!(!leaves.is_empty(), "a sample has taken the values of a report");
    assert_eq!(sampler.sample().tasks, sample.tasks, "nor does a report take from samples");
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_a_running_worker_end_with_the_counts_of_its_heartbeats() {
    let stage = Stage::of_words(1).await;
    let workers = stage.start();
    let mut samples = connect(&stage.dir.path().join("w0").join(SOCKET)).await;
    let expected = [("count", 600), ("sentences", 200), ("split", 200)];
    let executed = |sample: &LiveSample, component: &str| -> u64 {
        let of = sample.tasks.iter().filter(|task| task.component.as_str() == component);
        of.map(|task| task.counts.executed).sum()
    };
    let complete = async {
        loop {
            let sample = next(&mut samples).await;
            if expected.iter().all(|(component, n)| executed(&sample, component) == *n) {
                return sample;
            }
        }
    };
    let sample = tokio::time::timeout(2 * WAIT_MAX, complete).await.expect("all tuples are in a sample");
    let words: u64 = sample.tasks.iter().flat_map(|task| task.streams.values()).map(|one| one.emitted).sum();
    assert_eq!(words, 800, "sentences and words, by streams");
    let is_spout = |task: &stormkeeper_metrics::live::TaskSample| task.component.as_str() == "sentences";
    assert!(sample.tasks.iter().all(|task| task.queue.is_none() == is_spout(task)), "{sample:?}");
    for worker in workers {
        worker.stop().await;
    }
}
