//! Exporters that panic, hang, block their thread and reject exports.

use std::sync::{
    Condvar,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;

use super::*;
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::ExportKey;
use stormkeeper_metrics_service::exporters::{ExportCounts, ExportError, PayloadSource};

/// Behaviour of an exporter.
#[derive(Debug)]
enum Behaviour {
    Good,
    Panics,
    Hangs,
    /// Blocks its thread until the test releases it.
    Blocks(Mutex<bool>, Condvar),
    /// Rejects this many exports, then accepts the rest.
    Refuses(AtomicU64),
    /// Every call except exports panics the first time and hangs the second time.
    Clumsy {
        init: AtomicU64,
        metas: AtomicU64,
        events: AtomicU64,
    },
}

async fn panic_then_hang(n: &AtomicU64) {
    match n.fetch_add(1, Ordering::Relaxed) {
        0 => panic!("injected panic"),
        1 => std::future::pending().await,
        _ => {}
    }
}

#[derive(Debug)]
struct FakeExporter {
    name: &'static str,
    behaviour: Behaviour,
    sum: AtomicU64,
    n_metas: AtomicU64,
    n_events: AtomicU64,
    n_cleanups: AtomicU64,
}

fn fake_exporter(name: &'static str, behaviour: Behaviour) -> Arc<FakeExporter> {
    let zero = || AtomicU64::new(0);
    Arc::new(FakeExporter {
        name,
        behaviour,
        sum: zero(),
        n_metas: zero(),
        n_events: zero(),
        n_cleanups: zero(),
    })
}

#[async_trait]
impl MetricExporter for FakeExporter {
    fn name(&self) -> &str {
        self.name
    }

    async fn init(&self) -> Result<(), ExportError> {
        if let Behaviour::Clumsy { init, .. } = &self.behaviour {
            panic_then_hang(init).await;
        }
        Ok(())
    }

    async fn register_metrics(&self, metas: &[MetricMeta]) -> Result<(), ExportError> {
        if let Behaviour::Clumsy { metas, .. } = &self.behaviour {
            panic_then_hang(metas).await;
        }
        self.n_metas.fetch_add(metas.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn export(&self, key: &ExportKey, source: &dyn PayloadSource) -> Result<ExportCounts, ExportError> {
        match &self.behaviour {
            Behaviour::Good | Behaviour::Clumsy { .. } => {}
            Behaviour::Panics => panic!("injected panic"),
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::Blocks(free, news) => {
                let mut free = free.lock().expect("no panic");
                while !*free {
                    free = news.wait(free).expect("no panic");
                }
            }
            Behaviour::Refuses(left) => {
                let is_refused =
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
                if is_refused {
                    let (url, message) = ("http://x".to_owned(), "full".to_owned());
                    return Err(ExportError::Answered { url, status: 500, message });
                }
            }
        }
        let (mut after, mut sent) = (None, ExportCounts::default());
        loop {
            let page = source.page(after).await?;
            for (meta, point) in &page.points {
                sent.points += 1;
                if let (Point::Counter(counter), "Emitted") = (point, meta.name.name()) {
                    self.sum.fetch_add(counter.count, Ordering::Relaxed);
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert!(key.number > 0);
        Ok(sent)
    }

    async fn send_event(&self, _event: &metric_store::HistoryEvent) -> Result<(), ExportError> {
        if let Behaviour::Clumsy { events, .. } = &self.behaviour {
            panic_then_hang(events).await;
        }
        self.n_events.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn cleanup(&self) {
        self.n_cleanups.fetch_add(1, Ordering::Relaxed);
        assert!(!matches!(self.behaviour, Behaviour::Clumsy { .. }), "injected panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn faulty_exporter_does_not_affect_the_others() {
    let cluster = Cluster::new().await;
    let (good, panics, hangs) = (
        fake_exporter("good", Behaviour::Good),
        fake_exporter("panics", Behaviour::Panics),
        fake_exporter("hangs", Behaviour::Hangs),
    );
    let blocks = fake_exporter("blocks", Behaviour::Blocks(Mutex::new(false), Condvar::new()));
    let refuses = fake_exporter("refuses", Behaviour::Refuses(AtomicU64::new(3)));
    let zero = || AtomicU64::new(0);
    let clumsy = fake_exporter("clumsy", Behaviour::Clumsy { init: zero(), metas: zero(), events: zero() });
    let all = [&good, &panics, &hangs, &blocks, &refuses, &clumsy];
    let short = Duration::from_millis(300);
    let options =
        cluster.options("a", Intervals { export_timeout: short, exporter_call: short, ..INTERVALS });
    let exporters = all.map(|odd| Arc::clone(odd) as Arc<dyn MetricExporter>).to_vec();
    let leader = cluster.start_with_exporters(options, exporters).await;
    leader.until_ingesting().await;
    let (topology, minute) = (submit(&leader, "wc").await, cluster.minute());
    register(&leader, &topology).await.expect("accepted");
    for (sequence, n) in [(1, 5), (2, 6)] {
        let minute = minute.plus(u32::try_from(sequence).expect("small") - 1);
        stored(&leader, &batch(&topology, minute, sequence, n)).await;
        cluster.clock.advance(Duration::from_secs(61));
    }
    cluster.clock.advance(Duration::from_secs(61));
    let sum = |odd: &FakeExporter| odd.sum.load(Ordering::Relaxed);
    let seen = wait_until("the good exporter is done, the others failed", LONG, || async {
        // A rejected export is retried by time alone.
        cluster.clock.advance(Duration::from_millis(20));
        let states = leader.handle().metrics_status().await.exporters;
        let failure =
            |name: &str| states.get(name).and_then(|state| state.last_failure.clone()).unwrap_or_default();
        let is_done = sum(&good) == 11
            && sum(&refuses) == 11
            && sum(&clumsy) == 11
            && failure("panics").contains("panicked")
            && failure("hangs").contains("longer than")
            && states.get("blocks").is_some_and(|state| state.activity == ExporterActivity::Stuck);
        if is_done { Ok(states) } else { Err(format!("{} {} {states:?}", sum(&good), sum(&refuses))) }
    })
    .await;
    assert_eq!((seen["good"].failures, seen["refuses"].failures), (0, 3));
    // A panic and a timeout of each of its three calls; only two events are lost by that.
    assert_eq!((seen["clumsy"].failures, seen["clumsy"].events_dropped), (6, 2));
    assert!(good.n_metas.load(Ordering::Relaxed) >= 1);
    assert_eq!(clumsy.n_metas.load(Ordering::Relaxed), good.n_metas.load(Ordering::Relaxed));
    wait_until("the events are sent", LONG, || async {
        let n = good.n_events.load(Ordering::Relaxed);
        if n >= 2 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
    let queue = leader.metric_store().queue_status().await.expect("there is a queue");
    assert!(queue.exporters["panics"].pending >= 2 && queue.exporters["good"].pending == 0, "{queue:?}");

    // After its release, the blocked exporter continues where it was.
    let Behaviour::Blocks(free, news) = &blocks.behaviour else { panic!("it blocks") };
    *free.lock().expect("no panic") = true;
    news.notify_all();
    wait_until("the exporter that was stuck has everything", LONG, || async {
        cluster.clock.advance(Duration::from_millis(20));
        let state = leader.handle().metrics_status().await.exporters["blocks"].clone();
        // The export that timed out was completed all the same.
        if sum(&blocks) >= 11 && state.activity == ExporterActivity::Idle {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    })
    .await;
    leader.stop().await;
    assert_eq!([&good, &clumsy].map(|odd| odd.n_cleanups.load(Ordering::Relaxed)), [1, 1]);
}
