//! Tuples that are held for longer than the message timeout.

use super::*;

/// Holds all tuples, and resets the timeouts of the first one until it may settle it.
struct Keeps {
    held: Vec<Held>,
    n_renewals: Arc<AtomicUsize>,
    is_done: Arc<AtomicBool>,
}

impl Bolt for Keeps {
    fn execute(&mut self, _: &Tuple<'_>, out: &mut BoltOutput<'_>) -> Result<(), Error> {
        self.held.extend(out.hold());
        Ok(())
    }

    fn renew(&mut self, out: &mut BoltOutput<'_>) {
        self.n_renewals.fetch_add(1, Ordering::Relaxed);
        match self.is_done.load(Ordering::Relaxed) {
            true => self.held.drain(..1).for_each(|held| out.ack(held)),
            false => out.reset_timeout(&self.held[0]),
        }
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn held_tuple_outlives_the_timeout_only_while_its_bolt_resets_it() {
    let told = Told::default();
    let (n_renewals, is_done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let components = json!({ "numbers": spout(), "keeps": bolt(1, "numbers", shuffle()) });
    let mut stage = Stage::tracked((PER_WORKER, 1), json!({}), components, 1).await;
    let make = Numbers::below(2, &told);
    stage.options.components.add_spout(id("numbers"), move || Once(make()));
    let (renewals, done) = (Arc::clone(&n_renewals), Arc::clone(&is_done));
    let keeps =
        move || Keeps { held: Vec::new(), n_renewals: Arc::clone(&renewals), is_done: Arc::clone(&done) };
    stage.options.components.add_bolt(id("keeps"), keeps);
    let workers = stage.start();
    assert_eq!(told.becomes(1).await, ["failed 1"]);
    let n_then = n_renewals.load(Ordering::Relaxed);
    wait_until("twice the timeout has passed", WAIT_MAX, || async {
        let n = n_renewals.load(Ordering::Relaxed);
        if n >= n_then + 6 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
    assert_eq!(told.all(), ["failed 1"], "the first tuple is still pending");
    is_done.store(true, Ordering::Relaxed);
    assert_eq!(told.becomes(2).await[1], "acked 0");
    for worker in workers {
        worker.stop().await;
    }
}
