//! Shuffles to tasks of which one is slow.

use std::sync::Condvar;

use super::*;
use crate::limits;

/// Number of tuples: far more than the queues of all tasks hold.
const N: u64 = 40_000;

/// Number of tasks of the bolt.
const TASKS: usize = 4;

/// Door before which a task waits.
#[derive(Debug, Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let (is_open, opened) = &*self.0;
        let is_open = is_open.lock().expect("no panic");
        drop(opened.wait_while(is_open, |is_open| !*is_open).expect("no panic"));
    }
}

/// Emits the numbers below `n`.
struct Count(std::ops::Range<u64>);

impl Spout for Count {
    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        if let Some(n) = self.0.next() {
            out.emit((n, "text"))?;
        }
        Ok(())
    }
}

/// Counts tuples by task; the first task waits at the gate.
struct Work {
    gate: Gate,
    index: usize,
    counts: Arc<[AtomicUsize; TASKS]>,
}

impl Bolt for Work {
    fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
        self.index = context.task_index();
        Ok(())
    }

    fn execute(&mut self, _: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        if self.index == 0 {
            self.gate.pass();
        }
        self.counts[self.index].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Shuffled {
    stage: Stage,
    gate: Gate,
    counts: Arc<[AtomicUsize; TASKS]>,
    workers: Vec<crate::tests::Running>,
}

impl Shuffled {
    async fn start(n: u64, grouping: &str, settings: serde_json::Value) -> Self {
        let work = bolt(TASKS as u32, "numbers", json!({ "type": grouping }));
        let components = json!({ "numbers": spout(), "work": work });
        let mut stage = Stage::new(settings, components, 1).await;
        let (gate, counts) = (Gate::default(), Arc::<[AtomicUsize; TASKS]>::default());
        stage.options.components.add_spout(id("numbers"), move || Count(0..n));
        let (passed, counted) = (gate.clone(), Arc::clone(&counts));
        stage.options.components.add_bolt(id("work"), move || Work {
            gate: passed.clone(),
            index: 0,
            counts: Arc::clone(&counted),
        });
        let workers = stage.start();
        Self { stage, gate, counts, workers }
    }

    fn counts(&self) -> [usize; TASKS] {
        std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed))
    }

    /// Waits until the tasks other than the first have had `n` tuples.
    async fn others_have(&self, n: usize) {
        wait_until(&format!("the other tasks have {n} tuples"), WAIT_MAX, || async {
            let counts = self.counts();
            if counts[1..].iter().sum::<usize>() >= n { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }

    async fn all_have(&self, n: u64) -> [usize; TASKS] {
        self.stage.counts_become("work", TaskCounts { executed: n, acked: n, ..TaskCounts::default() }).await;
        self.counts()
    }

    async fn stop(self) {
        for worker in self.workers {
            worker.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shuffle_passes_over_a_task_that_hangs_and_the_others_get_what_it_cannot_take() {
    for grouping in ["shuffle", "local_or_shuffle"] {
        let shuffled = Shuffled::start(N, grouping, json!({})).await;
        // What the first one has at hand, and its queue.
        let stuck = 2 * limits::BATCH_TUPLES_MAX;
        shuffled.others_have(N as usize - stuck).await;
        assert_eq!(shuffled.counts()[0], 0);
        shuffled.gate.open();
        let counts = shuffled.all_have(N).await;
        assert!(counts[0] > 0, "it has its share of the beginning: {counts:?}");
        let (least, most) = (counts[1..].iter().min(), counts[1..].iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most < &(2 * least)), "{counts:?}");
        shuffled.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shuffle_is_exactly_even_while_no_queue_fills_and_always_where_load_is_not_looked_at() {
    // The first task takes none, and no queue is half full.
    let shuffled = Shuffled::start(1600, "shuffle", json!({})).await;
    shuffled.others_have(1200).await;
    shuffled.gate.open();
    assert_eq!(shuffled.all_have(1600).await, [400; TASKS]);
    shuffled.stop().await;

    let off = json!({ "topology.disable.loadaware.messaging": true });
    let shuffled = Shuffled::start(N, "shuffle", off).await;
    shuffled.others_have(3 * limits::BATCH_TUPLES_MAX).await;
    shuffled.gate.open();
    assert_eq!(shuffled.all_have(N).await, [N as usize / TASKS; TASKS]);
    shuffled.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn task_that_hangs_does_not_get_all_that_a_spout_may_have_pending() {
    const PENDING: usize = 200;
    let told = Told::default();
    let work = bolt(TASKS as u32, "numbers", shuffle());
    let components = json!({ "numbers": spout(), "work": work });
    let settings = json!({ "topology.max.spout.pending": PENDING });
    let mut stage = Stage::tracked((PER_WORKER, 60), settings, components, 1).await;
    let (gate, counts) = (Gate::default(), Arc::<[AtomicUsize; TASKS]>::default());
    stage.options.components.add_spout(id("numbers"), Numbers::below(5000, &told));
    let (passed, counted) = (gate.clone(), Arc::clone(&counts));
    stage.options.components.add_bolt(id("work"), move || Work {
        gate: passed.clone(),
        index: 0,
        counts: Arc::clone(&counted),
    });
    let workers = stage.start();
    // All but what the first task has at hand and in its queue, and what it got before the others did.
    told.becomes(5000 - PENDING).await;
    assert_eq!(counts[0].load(Ordering::Relaxed), 0);
    gate.open();
    told.becomes(5000).await;
    assert!(told.all().iter().all(|told| told.starts_with("acked")));
    for worker in workers {
        worker.stop().await;
    }
}

/// Prints how many tuples a second pass if one of four tasks takes ten times as long as the others.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for a release build"]
async fn measure_shuffle_with_one_slow_task() {
    struct Slow(usize);
    impl Bolt for Slow {
        fn prepare(&mut self, context: &mut TopologyContext<'_>) -> Result<(), Error> {
            self.0 = context.task_index();
            Ok(())
        }
        fn execute(&mut self, _: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
            // Waits as for a store: four tasks that compute need four processors.
            let micros = if self.0 == 0 { 10_000 } else { 1000 };
            let (lock, never) = (Mutex::new(()), Condvar::new());
            let guard = lock.lock().expect("no panic");
            drop(never.wait_timeout(guard, std::time::Duration::from_micros(micros)).expect("no panic"));
            Ok(())
        }
    }
    for off in [true, false] {
        let work = bolt(TASKS as u32, "numbers", shuffle());
        let components = json!({ "numbers": spout(), "work": work });
        let settings = json!({ "topology.disable.loadaware.messaging": off });
        let mut stage = Stage::new(settings, components, 1).await;
        stage.options.components.add_spout(id("numbers"), || Count(0..u64::MAX));
        stage.options.components.add_bolt(id("work"), || Slow(0));
        let workers = stage.start();
        let executed = async |n: u64| {
            wait_until("tuples are executed", WAIT_MAX, || async {
                let executed = stage.counts("work").await.executed;
                if executed >= n { Ok(executed) } else { Err(executed.to_string()) }
            })
            .await
        };
        // The queues are full before the measurement begins.
        let first = executed(12_000).await;
        let began = stage.clock.monotonic();
        let last = executed(first + 3000).await;
        let secs = stage.clock.monotonic().since(began).as_secs_f64();
        println!("load-aware: {}, {:.0} tuples/s", !off, (last - first) as f64 / secs);
        for worker in workers {
            worker.stop().await;
        }
    }
}
