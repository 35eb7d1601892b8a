//! Cost of tracking a tuple tree in one worker: time for a tree of one delivery, and memory of a million
//! trees in flight.

#![expect(clippy::print_stdout, reason = "its output is for a terminal")]

use std::time::{Duration, Instant};

use stormkeeper_runtime::{proc, tasks::Tasks};
use stormkeeper_worker::tracking_bench::Tracked;

/// Trees in flight at once, when time is measured: two full batches.
const BATCH: usize = 256;

const ROUNDS: usize = 10_000;

const MANY: usize = 1_000_000;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn resident() -> u64 {
    proc::of_this_process().expect("the system answers").resident_bytes
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _guard = runtime.enter();
    let tasks = Tasks::default();

    let mut tracked = Tracked::new(&tasks);
    let round = |tracked: &mut Tracked| {
        let given: Vec<_> = (0..BATCH).map(|n| tracked.emit(n as i64)).collect();
        tracked.ack(given);
        assert_eq!(tracked.take_outcomes(), BATCH, "every tree is complete");
    };
    (0..ROUNDS / 10).for_each(|_| round(&mut tracked));
    let begun = now();
    (0..ROUNDS).for_each(|_| round(&mut tracked));
    let took = begun.elapsed().as_secs_f64() / (ROUNDS * BATCH) as f64;
    println!("a tree of one delivery, {BATCH} in flight: {:.0} ns", took * 1e9);

    let mut tracked = Tracked::new(&tasks);
    let before = resident();
    for n in 0..MANY {
        // The bolt's part is in another worker or in its process.
        drop(tracked.emit(n as i64));
    }
    let bytes = resident().saturating_sub(before);
    println!("a million trees in flight: {:.0} bytes each", bytes as f64 / MANY as f64);
    drop(tracked);
    runtime.block_on(tasks.stop(Duration::from_secs(5)));
}
