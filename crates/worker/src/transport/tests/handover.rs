//! A worker that ends while others send to it, and its successor in the same slot.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn tuples_sent_while_a_worker_ends_arrive_there_or_at_its_successor_each_once_and_in_order() {
    let intake = Intake::default();
    let of_first = intake.clone();
    let mut first = Worker::start_with(0, at, |listener| listener.with_intake(of_first));
    let emitter = Emitter::to(&[(&first.me, &[7])]);
    let (mut outbox, tasks) = (emitter.peers.outbox(), Tasks::default());
    let (is_enough, total) = (CancellationToken::new(), Arc::new(AtomicI64::new(0)));
    let has_ended = CancellationToken::new();
    let (enough, emitted, ended) = (is_enough.clone(), Arc::clone(&total), has_ended.clone());
    tasks.start("emits", OnExit::Ignore, async move {
        while !enough.is_cancelled() {
            let n = emitted.fetch_add(1, Ordering::Relaxed);
            assert_eq!(outbox.send(TaskId(7), &tuple(n)).await, Sent::Queued);
        }
        ended.cancel();
    });
    let mut next = 0;
    while next < 1000 {
        assert_eq!(first.next().await, next);
        next += 1;
    }
    intake.close();
    // It finishes what it has accepted; the sender closes its connection meanwhile.
    loop {
        match tokio::time::timeout(Duration::from_millis(100), first.inbox.recv()).await {
            Ok(received) => {
                assert_eq!(number(&received.expect("the inbox stays open")), next);
                next += 1;
            }
            Err(_nothing) if intake.is_over() => break,
            Err(_nothing) => {}
        }
    }
    let port = first.me.slot.port.0;
    first.tasks.stop(WAIT_MAX).await;
    let mut second = Worker::start_at(port, at);
    for n in next..next + 1000 {
        assert_eq!(second.next().await, n);
    }
    is_enough.cancel();
    next += 1000;
    while !has_ended.is_cancelled() || next < total.load(Ordering::Relaxed) {
        if let Ok(received) = tokio::time::timeout(Duration::from_millis(100), second.inbox.recv()).await {
            assert_eq!(number(&received.expect("the inbox stays open")), next);
            next += 1;
        }
    }
    until_counts(&emitter.counters, "all are sent", |counts| counts.sent == next.cast_unsigned()).await;
    assert_eq!((emitter.counters.n_unsent(), emitter.counters.read().dropped), (0, 0));
}
