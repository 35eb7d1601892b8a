//! Store without threads, as in the simulation.

use sha2::{Digest as _, Sha256};
use stormkeeper_runtime::blocking;

use super::{following::live, *};
use crate::Error;

/// Runs `work` on a thread that does blocking work inline, under paused time.
fn inline<T: Send + 'static>(work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    // A thread of its own, as the switch stays on.
    let run = || {
        blocking::run_inline();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(work())
    };
    std::thread::spawn(run).join().expect("no panic")
}

/// Returns a digest of the stored records, of the status, and of all that was exported.
async fn digest(store: &MetricStore) -> String {
    let status = (store.status().await.expect("read"), store.queue_status().await.expect("read"));
    let latest = store.latest(crate::LatestQuery::all(topology("t"))).await.expect("read");
    let text = format!("{:?} {status:?} {latest:?}", dump(store));
    format!("{:x}", Sha256::digest(text))
}

fn run(site: fn() -> Site, seed: u64) -> (String, String) {
    inline(async move || {
        let site = site();
        let home = Home::open(site.path(), site.options());
        live(&home.store, seed).await;
        let before = digest(&home.store).await;
        home.close().await;
        let home = Home::open(site.path(), site.options());
        live(&home.store, seed + 1).await;
        (before, digest(&home.store).await)
    })
}

#[test]
fn one_seed_gives_one_digest() {
    let runs: Vec<_> = [1, 1, 2].map(|seed| run(Site::in_memory, seed)).into();
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[test]
fn jobs_run_on_the_callers_thread_on_each_medium() {
    for site in [Site::on_disk, Site::in_memory] {
        inline(async move || {
            let site = site();
            let home = Home::open(site.path(), site.options());
            let caller = std::thread::current().id();
            let ran_on = home.store.write(|_| Ok(std::thread::current().id())).await.expect("written");
            assert_eq!(ran_on, caller);
            let ran_on = home.store.read(|_, _| Ok(std::thread::current().id())).await.expect("read");
            assert_eq!(ran_on, caller);
            home.close().await;
        });
    }
}

#[test]
fn closed_or_abandoned_store_frees_its_database() {
    inline(async || {
        let site = Site::in_memory();
        let home = Home::open(site.path(), site.options());
        let store = home.store.clone();
        home.close().await;
        let late = store.close_minutes(TERM, Minute(NOW)).await;
        assert!(matches!(late, Err(Error::Stopped)), "{late:?}");
        let late = store.status().await.expect("without a database");
        assert_eq!(late.bytes, 0);
        // Its process ends without a word.
        let home = Home::open(site.path(), site.options());
        drop(home);
        Home::open(site.path(), site.options()).close().await;
    });
}

#[test]
fn job_that_panics_ends_the_store() {
    inline(async || {
        let site = Site::in_memory();
        let Home { store, tasks } = Home::open(site.path(), site.options());
        let other = store.clone();
        let panics = tokio::task::LocalSet::new();
        let job = panics.run_until(async move {
            tokio::task::spawn_local(async move { other.write::<()>(|_| panic!("a bug")).await }).await
        });
        assert!(job.await.expect_err("it panicked").is_panic());
        let late = store.close_minutes(TERM, Minute(NOW)).await;
        assert!(matches!(late, Err(Error::Stopped)), "{late:?}");
        drop(tasks);
    });
}

#[test]
fn power_loss_loses_only_what_was_not_acknowledged() {
    inline(async || {
        let site = Site::in_memory();
        let Medium::Memory(disk) = &site.medium else { unreachable!("it is in memory") };
        let dir = site.dir("metrics");
        let lost = Home::open(&dir, site.options());
        live(&lost.store, 5).await;
        let before = dump(&lost.store);
        disk.crash(site.path());
        // The store of the ended process cannot change what its successor finds.
        let home = Home::open(&dir, site.options());
        register_some(&lost.store, &topology("late"), 3).await;
        assert_eq!(dump(&home.store), before);
        home.close().await;
        disk.remove(site.path());
        let home = Home::open(&dir, site.options());
        assert_eq!(home.store.topologies().await.expect("read"), []);
    });
}
