//! Track of tasks that move without end.

use super::*;
use crate::{HistoryEvent, TrackEntry};
use stormkeeper_metrics::protocol::{LogPage, LogQuery};
use stormkeeper_model::{LogPosition, Port, TaskId};

on_each_medium!(last_placements_of_a_task_that_moves_without_end_are_kept,);

/// Maximum number of placements kept for one task.
const KEPT: u64 = 100;

fn moved(task: u32, n: u64) -> HistoryEvent {
    HistoryEvent::TaskPlaced {
        topology: topology("t"),
        task: TaskId(task),
        component: "split".parse().expect("an id"),
        host: "h".parse().expect("a host"),
        port: Port(6700 + (n % 2) as u16),
        at: Timestamp::from_millis(n),
        reason: format!("move {n}"),
    }
}

/// Returns the begins of a task's placements.
fn begins(track: &[TrackEntry]) -> Vec<u64> {
    track.iter().map(|place| place.from.as_millis()).collect()
}

async fn last_placements_of_a_task_that_moves_without_end_are_kept(site: &Site) {
    let [leader, follower] = ["leader", "follower"].map(|name| Home::open(&site.dir(name), site.options()));
    let store = &leader.store;
    // One event at a time, many in one entry, and more in one entry than are kept.
    store.record_events(TERM, vec![moved(1, 1), moved(2, 1), moved(2, 2)]).await.expect("recorded");
    for n in 2..=KEPT + 10 {
        store.record_events(TERM, vec![moved(1, n)]).await.expect("recorded");
    }
    let track = store.track(&topology("t"), Some(TaskId(1)), 1000).await.expect("read");
    assert_eq!(begins(&track), (11..=KEPT + 10).collect::<Vec<_>>());
    store
        .record_events(TERM, (KEPT + 11..=KEPT + 60).map(|n| moved(1, n)).collect())
        .await
        .expect("recorded");
    let track = store.track(&topology("t"), Some(TaskId(1)), 1000).await.expect("read");
    assert_eq!(begins(&track), (61..=KEPT + 60).collect::<Vec<_>>());
    store
        .record_events(TERM, (1000..=1000 + 3 * KEPT).map(|n| moved(1, n)).collect())
        .await
        .expect("recorded");
    let track = store.track(&topology("t"), Some(TaskId(1)), 1000).await.expect("read");
    assert_eq!(begins(&track), (1001 + 2 * KEPT..=1000 + 3 * KEPT).collect::<Vec<_>>());
    let is_open = |place: &TrackEntry| place.to.is_none();
    assert_eq!(track.iter().map(is_open).collect::<Vec<_>>(), {
        let mut open = vec![false; KEPT as usize];
        open[KEPT as usize - 1] = true;
        open
    });
    // A removed placement does not return, and another task keeps all of its placements.
    store.record_events(TERM, vec![moved(1, 5)]).await.expect("recorded");
    assert_eq!(store.track(&topology("t"), Some(TaskId(1)), 1000).await.expect("read"), track);
    assert_eq!(store.track(&topology("t"), Some(TaskId(2)), 1000).await.expect("read").len(), 2);

    let LogPosition { term, index } = LogPosition::default();
    let query =
        LogQuery { nimbus: "n2".parse().expect("an id"), term, index, max_bytes: 8 << 20, leader_term: None };
    let LogPage::Entries { entries, .. } = store.log_after(&query).await.expect("read") else {
        panic!("it follows from the beginning");
    };
    follower.store.apply(entries).await.expect("applied");
    assert_eq!(follower.store.position(), store.position());
    assert_eq!(dump(store), dump(&follower.store));
    leader.close().await;
    follower.close().await;
}
