//! Reports that arrive after the retention of their minute.

use super::*;
use stormkeeper_metrics::{Window, protocol::PointsQuery};

on_each_medium!(late_report_that_is_sent_again_counts_once,);

/// Minutes of the retention of points of a minute, in these tests and by default.
const RETENTION: u32 = 1440;

async fn late_report_that_is_sent_again_counts_once(site: &Site) {
    let home = Home::open(site.path(), site.options());
    let (store, topology) = (&home.store, topology("t"));
    let ids = register_some(store, &topology, 1).await;
    store.close_minutes(TERM, Minute(NOW - 1)).await.expect("closed");
    // A host comes back after a week, and sends the last report of a worker.
    let late = batch(&topology, NOW - 7 * RETENTION, 1, &[(ids[0], 5)]);
    let accepted = store.ingest(TERM, late.clone()).await.expect("accepted");
    for hour in 1..=20 {
        store.shared.options.clock.advance(Duration::from_secs(3600));
        store.close_minutes(TERM, Minute(NOW + 60 * hour)).await.expect("closed");
        let position = store.position();
        let again = store.ingest(TERM, late.clone()).await.expect("accepted");
        assert!(matches!(again, IngestOutcome::Accepted(_)), "{again:?}");
        assert_eq!(store.position(), position, "{accepted:?}, and again after {hour} hours");
    }
    let (id, window, limit) = (ids[0], Window::D1, 10);
    let query = PointsQuery { id, window, from: Minute(0), to: Minute(NOW + RETENTION), limit };
    let points = store.points(query).await.expect("read");
    let counts = points.iter().map(|(_, point)| match point {
        Point::Counter(counter) => counter.count,
        Point::Gauge(_) | Point::Meter(_) | Point::Histogram(_) | Point::Timer(_) => 0,
    });
    assert_eq!(counts.sum::<u64>(), 5);
    home.close().await;
}
