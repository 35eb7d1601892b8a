//! Components in the worker program, in complete workers on a memory tree.

mod cycles;
mod groupings;
mod renewals;
mod samples;
mod shuffles;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::json;

use super::*;
use crate::tests::{Stage, bolt as shell_bolt, id};
use stormkeeper_model::{heartbeat::TaskCounts, topology::Ackers};
use stormkeeper_runtime::test_support::wait_until;

const PER_WORKER: Option<Ackers> = Some(Ackers::PerWorker);
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(60);

fn spout() -> serde_json::Value {
    json!({ "kind": "spout", "parallelism": 1, "run": "in_worker",
            "outputs": { "default": { "fields": ["n", "text"] } } })
}

fn bolt(parallelism: u32, from: &str, grouping: serde_json::Value) -> serde_json::Value {
    let mut bolt = shell_bolt(&[], parallelism, from, grouping);
    bolt["run"] = json!("in_worker");
    bolt
}

fn shuffle() -> serde_json::Value {
    json!({ "type": "shuffle" })
}

/// Messages that instances got, for the test.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn add(&self, text: String) {
        self.0.lock().expect("no panic").push(text);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }

    async fn becomes(&self, n: usize) -> Vec<String> {
        wait_until(&format!("{n} things were told"), WAIT_MAX, || async {
            let all = self.all();
            if all.len() >= n { Ok(all) } else { Err(format!("{all:?}")) }
        })
        .await
    }
}

/// Emits the numbers below `n` with ids, and again those that fail.
struct Numbers {
    waiting: Vec<u64>,
    told: Told,
}

impl Numbers {
    fn below(n: u64, told: &Told) -> impl Fn() -> Self + Send + Sync + use<> {
        let told = told.clone();
        move || Self { waiting: (0..n).rev().collect(), told: told.clone() }
    }
}

impl Spout for Numbers {
    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        if let Some(n) = self.waiting.pop() {
            out.emit_with_id(n, (n, format!("number {n}")))?;
        }
        Ok(())
    }

    fn ack(&mut self, id: u64) {
        self.told.add(format!("acked {id}"));
    }

    fn fail(&mut self, id: u64) {
        self.told.add(format!("failed {id}"));
        self.waiting.push(id);
    }
}

/// Emits each number twice, derived from it.
struct Twice;

impl Bolt for Twice {
    fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        out.emit((tuple.u64("n")?, tuple.str("text")?))?;
        out.emit(tuple.to_values())?;
        Ok(())
    }
}

type Sums = Arc<Mutex<BTreeMap<u64, usize>>>;

/// Counts each number.
struct Count(Sums);

impl Bolt for Count {
    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        let n = tuple.u64(0)?;
        assert_eq!(tuple.str(1)?, format!("number {n}"));
        *self.0.lock().expect("no panic").entry(n).or_default() += 1;
        Ok(())
    }
}

fn twice_and_count() -> serde_json::Value {
    let mut twice = bolt(2, "numbers", shuffle());
    twice["outputs"] = json!({ "default": { "fields": ["n", "text"] } });
    json!({ "numbers": spout(), "twice": twice,
            "count": bolt(2, "twice", json!({ "type": "fields", "fields": ["n"] })) })
}

async fn count_twice(ackers: Option<Ackers>, n_workers: usize) {
    let (told, sums) = (Told::default(), Sums::default());
    let mut stage = Stage::tracked((ackers, 30), json!({}), twice_and_count(), n_workers).await;
    let components = &mut stage.options.components;
    components.add_spout(id("numbers"), Numbers::below(3000, &told));
    components.add_bolt(id("twice"), || Twice);
    let shared = Arc::clone(&sums);
    components.add_bolt(id("count"), move || Count(Arc::clone(&shared)));
    let workers = stage.start();
    let n = |n| TaskCounts { executed: n, acked: n, ..TaskCounts::default() };
    let emitted = |n| TaskCounts { emitted: n, transferred: n, ..TaskCounts::default() };
    stage.counts_become("count", n(6000)).await;
    let spout = TaskCounts { executed: 3000, acked: 3000, ..emitted(3000) };
    stage.counts_become("numbers", spout).await;
    stage.counts_become("twice", TaskCounts { executed: 3000, acked: 3000, ..emitted(6000) }).await;
    assert_eq!(*sums.lock().expect("no panic"), (0..3000).map(|n| (n, 2)).collect());
    let mut told = told.becomes(3000).await;
    told.sort();
    let mut expected: Vec<String> = (0..3000).map(|n| format!("acked {n}")).collect();
    expected.sort();
    assert_eq!(told, expected);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tuple_is_processed_and_acked_once_in_one_worker() {
    count_twice(PER_WORKER, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tuple_is_processed_and_acked_once_over_three_workers() {
    count_twice(PER_WORKER, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spout_is_told_at_once_in_a_topology_that_is_not_tracked() {
    count_twice(None, 2).await;
}

/// Fails each number once by an error, and then once by a panic.
struct FailsTwice {
    failed: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Bolt for FailsTwice {
    fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        let n = tuple.u64("n")?;
        let before = {
            let mut failed = self.failed.lock().expect("no panic");
            let count = failed.entry(n).or_default();
            *count += 1;
            *count - 1
        };
        match before {
            0 => Err(format!("no luck with {n}").into()),
            1 => panic!("cannot stand {n}"),
            _ => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn error_and_panic_fail_the_tuple_and_are_task_errors() {
    let (told, failed) = (Told::default(), Sums::default());
    let components = json!({ "numbers": spout(), "fails": bolt(1, "numbers", shuffle()) });
    let mut stage = Stage::tracked((PER_WORKER, 30), json!({}), components, 2).await;
    stage.options.components.add_spout(id("numbers"), Numbers::below(2, &told));
    stage.options.components.add_bolt(id("fails"), move || FailsTwice { failed: Arc::clone(&failed) });
    let workers = stage.start();
    // Two numbers, each failed twice and then acked. A panic costs the delay before the next instance.
    let told = told.becomes(6).await;
    let n_of = |what: &str| told.iter().filter(|told| *told == what).count();
    assert_eq!(
        [n_of("failed 0"), n_of("failed 1"), n_of("acked 0"), n_of("acked 1")],
        [2, 2, 1, 1],
        "{told:?}"
    );
    stage
        .counts_become("fails", TaskCounts { executed: 6, acked: 2, failed: 4, ..TaskCounts::default() })
        .await;
    let error = stage.error("fails", "panicked: cannot stand").await;
    assert!(error.message.starts_with("task 1 of fails: panicked: cannot stand"), "{error:?}");
    for worker in workers {
        worker.stop().await;
    }
}

/// Holds its tuples until it has three, emits one tuple for all of them, and drops every third.
#[derive(Default)]
struct Batches {
    held: Vec<Held>,
}

impl Bolt for Batches {
    fn execute(&mut self, _: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        self.held.extend(out.hold());
        assert!(out.hold().is_none(), "held once");
        if self.held.len() == 3 {
            out.emission().anchored_to(&mut self.held).emit((3, "all"))?;
            // The third is dropped, and fails.
            self.held.truncate(2);
            self.held.drain(..).for_each(|held| out.ack(held));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_tuples_are_acked_later_and_fail_if_they_are_dropped() {
    let told = Told::default();
    let mut batches = bolt(1, "numbers", json!({ "type": "global" }));
    batches["outputs"] = json!({ "default": { "fields": ["n", "text"] } });
    let components =
        json!({ "numbers": spout(), "batches": batches, "count": bolt(1, "batches", shuffle()) });
    let mut stage = Stage::tracked((PER_WORKER, 30), json!({}), components, 2).await;
    struct Once(Numbers);
    impl Spout for Once {
        fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
            self.0.next(out)
        }
        fn ack(&mut self, id: u64) {
            self.0.ack(id);
        }
        fn fail(&mut self, id: u64) {
            self.0.told.add(format!("failed {id}"));
        }
    }
    let make = Numbers::below(6, &told);
    stage.options.components.add_spout(id("numbers"), move || Once(make()));
    stage.options.components.add_bolt(id("batches"), Batches::default);
    struct Ignores;
    impl Bolt for Ignores {
        fn execute(&mut self, tuple: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
            assert_eq!(tuple.str("text")?, "all");
            Ok(())
        }
    }
    stage.options.components.add_bolt(id("count"), || Ignores);
    let workers = stage.start();
    let mut told = told.becomes(6).await;
    told.sort();
    assert_eq!(told, ["acked 0", "acked 1", "acked 3", "acked 4", "failed 2", "failed 5"]);
    stage.counts_become("count", TaskCounts { executed: 2, acked: 2, ..TaskCounts::default() }).await;
    for worker in workers {
        worker.stop().await;
    }
}

/// Emits without end, and notes what it is told about its life.
struct Endless(Told);

impl Spout for Endless {
    fn open(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        assert_eq!((context.component().as_str(), context.task_index()), ("endless", 0));
        assert_eq!(context.tasks_of("stuck").len(), 1);
        assert_eq!(context.setting("my.key"), Some(&json!("mine")));
        context.counter("opened")?.increment();
        self.0.add("open".to_owned());
        Ok(())
    }

    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        out.emit((1, "x"))?;
        Ok(())
    }

    fn activate(&mut self) {
        self.0.add("activate".to_owned());
    }

    fn deactivate(&mut self) {
        self.0.add("deactivate".to_owned());
    }

    fn close(&mut self) {
        self.0.add("close".to_owned());
    }
}

/// Waits in its first call until it is told to go on.
struct Stuck(Arc<AtomicBool>, Arc<AtomicUsize>);

impl Bolt for Stuck {
    fn execute(&mut self, _: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        self.1.fetch_add(1, Ordering::Relaxed);
        while !self.0.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_bolt_halts_its_spout_and_is_reported_and_a_stop_ends_both() {
    let (told, goes_on, n_executed) = (Told::default(), Arc::new(AtomicBool::new(false)), Arc::default());
    let components = json!({ "endless": spout(), "stuck": bolt(1, "endless", shuffle()) });
    let settings = json!({ "my.key": "mine", "topology.subprocess.timeout.secs": 1 });
    let mut stage = Stage::new(settings, components, 1).await;
    let for_spout = told.clone();
    stage.options.components.add_spout(id("endless"), move || Endless(for_spout.clone()));
    let (released, executed) = (Arc::clone(&goes_on), Arc::clone(&n_executed));
    stage
        .options
        .components
        .add_bolt(id("stuck"), move || Stuck(Arc::clone(&released), Arc::clone(&executed)));
    let workers = stage.start();
    stage.error("stuck", "a call has not returned for 1 s").await;
    assert_eq!(n_executed.load(Ordering::Relaxed), 1);
    // Its inbox is full, one batch is taken from it, and the spout waits; that is not the spout's fault.
    let emitted = stage.counts("endless").await.emitted;
    assert!((1..=3000).contains(&emitted), "{emitted}");
    goes_on.store(true, Ordering::Relaxed);
    wait_until("the bolt goes on", WAIT_MAX, || async {
        let n: usize = n_executed.load(Ordering::Relaxed);
        if n > 10_000 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(told.all(), ["open", "activate", "deactivate", "close"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bolt_is_ticked_and_refused_emits_are_errors_of_its_call() {
    struct Ticked(Told);
    impl Bolt for Ticked {
        fn execute(&mut self, _: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
            let unknown = out.emit_to("nowhere", (1,)).expect_err("no such stream").to_string();
            assert_eq!(unknown, "component ticked declares no stream nowhere");
            out.emit(("one", "too many"))?;
            Ok(())
        }
        fn tick(&mut self, out: &mut BoltOutput<'_>) -> Result<(), Error> {
            assert!(out.hold().is_none());
            self.0.add("tick".to_owned());
            Ok(())
        }
    }
    let told = Told::default();
    let mut ticked = bolt(1, "numbers", shuffle());
    ticked["outputs"] = json!({ "default": { "fields": ["n"] } });
    ticked["settings"] = json!({ "topology.tick.tuple.freq.secs": 0.01 });
    let components = json!({ "numbers": spout(), "ticked": ticked });
    let mut stage = Stage::tracked((PER_WORKER, 30), json!({}), components, 1).await;
    let (numbers, ticks) = (Told::default(), told.clone());
    stage.options.components.add_spout(id("numbers"), Numbers::below(1, &numbers));
    stage.options.components.add_bolt(id("ticked"), move || Ticked(ticks.clone()));
    let workers = stage.start();
    told.becomes(3).await;
    stage.error("ticked", "a tuple of stream default of ticked needs 1 values and has 2").await;
    assert_eq!(numbers.becomes(1).await[0], "failed 0");
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn program_without_a_component_of_the_topology_is_refused_by_name() {
    let stage = Stage::new(json!({}), json!({ "numbers": spout() }), 1).await;
    let mut workers = stage.start();
    let worker = workers.pop().expect("one");
    let error = worker.error().await.to_string();
    assert!(error.contains("a spout numbers") && error.contains("not the one that was submitted"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn emit_within_a_runtime_of_the_component_waits_for_room() {
    struct Own(tokio::runtime::Runtime, u64);
    impl Spout for Own {
        fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
            if self.1 < 5000 {
                self.1 += 1;
                let n = self.1;
                self.0.block_on(async { out.emit((n, "x")) })?;
            }
            Ok(())
        }
    }
    let (goes_on, n_executed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let components = json!({ "own": spout(), "stuck": bolt(1, "own", shuffle()) });
    let mut stage = Stage::new(json!({}), components, 1).await;
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    stage.options.components.add_spout(id("own"), move || Own(runtime(), 0));
    let (released, executed) = (Arc::clone(&goes_on), Arc::clone(&n_executed));
    stage
        .options
        .components
        .add_bolt(id("stuck"), move || Stuck(Arc::clone(&released), Arc::clone(&executed)));
    let workers = stage.start();
    wait_until("the inbox is full", WAIT_MAX, || async {
        let emitted = stage.counts("own").await.emitted;
        if emitted > 1024 { Ok(()) } else { Err(emitted.to_string()) }
    })
    .await;
    goes_on.store(true, Ordering::Relaxed);
    stage.counts_become("stuck", TaskCounts { executed: 5000, acked: 5000, ..TaskCounts::default() }).await;
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_are_told_while_the_next_call_lasts() {
    struct SecondIsLong(u32, Arc<AtomicBool>);
    impl Bolt for SecondIsLong {
        fn execute(&mut self, _: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
            self.0 += 1;
            while self.0 == 2 && !self.1.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(())
        }
    }
    let (told, goes_on) = (Told::default(), Arc::new(AtomicBool::new(false)));
    let components = json!({ "numbers": spout(), "long": bolt(1, "numbers", shuffle()) });
    let mut stage = Stage::tracked((PER_WORKER, 600), json!({}), components, 1).await;
    stage.options.components.add_spout(id("numbers"), Numbers::below(2, &told));
    let released = Arc::clone(&goes_on);
    stage.options.components.add_bolt(id("long"), move || SecondIsLong(0, Arc::clone(&released)));
    let workers = stage.start();
    assert_eq!(told.becomes(1).await, ["acked 0"]);
    goes_on.store(true, Ordering::Relaxed);
    assert_eq!(told.becomes(2).await, ["acked 0", "acked 1"]);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_tuple_may_be_acked_by_another_task() {
    type Shared = Arc<Mutex<Option<Held>>>;
    struct Holds(Shared);
    impl Bolt for Holds {
        fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
            out.emission().unanchored().emit(tuple.to_values())?;
            *self.0.lock().expect("no panic") = out.hold();
            Ok(())
        }
    }
    struct Acks(Shared);
    impl Bolt for Acks {
        fn execute(&mut self, _: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
            // The other one emits before it holds.
            loop {
                if let Some(held) = self.0.lock().expect("no panic").take() {
                    out.ack(held);
                    return Ok(());
                }
                std::thread::yield_now();
            }
        }
    }
    let (told, shared) = (Told::default(), Shared::default());
    let mut holds = bolt(1, "numbers", shuffle());
    holds["outputs"] = json!({ "default": { "fields": ["n", "text"] } });
    let components = json!({ "numbers": spout(), "holds": holds, "settles": bolt(1, "holds", shuffle()) });
    let mut stage = Stage::tracked((PER_WORKER, 600), json!({}), components, 1).await;
    stage.options.components.add_spout(id("numbers"), Numbers::below(1, &told));
    let (first, second) = (Arc::clone(&shared), shared);
    stage.options.components.add_bolt(id("holds"), move || Holds(Arc::clone(&first)));
    stage.options.components.add_bolt(id("settles"), move || Acks(Arc::clone(&second)));
    let workers = stage.start();
    assert_eq!(told.becomes(1).await, ["acked 0"]);
    stage.counts_become("settles", TaskCounts { executed: 1, acked: 2, ..TaskCounts::default() }).await;
    wait_until("nothing is pending", WAIT_MAX, || async {
        let pending: Vec<u64> = stage.heartbeats().await.values().map(|beat| beat.pending).collect();
        if pending.iter().all(|n| *n == 0) { Ok(()) } else { Err(format!("{pending:?}")) }
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}
