//! Cycles that are full of tuples.

use std::collections::BTreeSet;

use super::*;

/// More than the queues of the cycle hold.
const N: u64 = 5000;

/// Emits each tuple twice while it is switched on, so that a cycle of two overflows.
struct Doubles(Arc<AtomicBool>);

impl Bolt for Doubles {
    fn execute(&mut self, tuple: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) {
            out.emit(tuple.to_values())?;
            out.emit(tuple.to_values())?;
        }
        Ok(())
    }
}

/// Starts a spout of N numbers before a cycle of two bolts that double all tuples.
async fn overflowing(ackers: Option<Ackers>) -> (Stage, Told, Arc<AtomicBool>) {
    let (told, doubles) = (Told::default(), Arc::new(AtomicBool::new(true)));
    let outputs = json!({ "default": { "fields": ["n", "text"] } });
    let (mut there, mut back) = (bolt(1, "numbers", shuffle()), bolt(1, "there", shuffle()));
    there["inputs"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "from": "back", "stream": "default", "grouping": shuffle() }));
    (there["outputs"], back["outputs"]) = (outputs.clone(), outputs);
    let components = json!({ "numbers": spout(), "there": there, "back": back });
    let settings = json!({ "topology.cycle.timeout.secs": 0.2 });
    let mut stage = Stage::tracked((ackers, 600), settings, components, 1).await;
    stage.options.components.add_spout(id("numbers"), Numbers::below(N, &told));
    for bolt in ["there", "back"] {
        let doubles = Arc::clone(&doubles);
        stage.options.components.add_bolt(id(bolt), move || Doubles(Arc::clone(&doubles)));
    }
    (stage, told, doubles)
}

async fn emitted(stage: &Stage, component: &str) -> u64 {
    stage.counts(component).await.emitted
}

#[tokio::test(flavor = "multi_thread")]
async fn full_cycle_of_untracked_tuples_loses_some_names_itself_and_goes_on() {
    let (stage, _told, doubles) = overflowing(None).await;
    let workers = stage.start();
    wait_until("the spout has emitted all", WAIT_MAX, || async {
        let n = emitted(&stage, "numbers").await;
        if n == N { Ok(()) } else { Err(format!("{n}")) }
    })
    .await;
    let error = stage.error("there", "is in a cycle with").await.message;
    assert!(error.contains("the queue for back had no room for 200ms"), "{error}");
    assert!(error.contains("components: back, there") && error.contains("of no tree lost"), "{error}");
    doubles.store(false, Ordering::Relaxed);
    wait_until("nothing is pending", WAIT_MAX, || async {
        let pending: Vec<u64> = stage.heartbeats().await.values().map(|beat| beat.pending).collect();
        if pending.iter().all(|n| *n == 0) { Ok(()) } else { Err(format!("{pending:?}")) }
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_cycle_of_tracked_tuples_fails_some_and_loses_none() {
    let (stage, told, doubles) = overflowing(PER_WORKER).await;
    let workers = stage.start();
    wait_until("a number fails", WAIT_MAX, || async {
        let failed = told.all().iter().any(|told| told.starts_with("failed"));
        if failed { Ok(()) } else { Err(format!("{} things were told", told.all().len())) }
    })
    .await;
    doubles.store(false, Ordering::Relaxed);
    wait_until("each number is acked", WAIT_MAX, || async {
        let all = told.all();
        let acked: BTreeSet<&String> = all.iter().filter(|told| told.starts_with("acked")).collect();
        if acked.len() as u64 == N { Ok(()) } else { Err(format!("{} of {N}", acked.len())) }
    })
    .await;
    let error = stage.error("there", "is in a cycle with").await.message;
    assert!(error.contains(" failed, 0 of no tree lost"), "{error}");
    for worker in workers {
        worker.stop().await;
    }
}
