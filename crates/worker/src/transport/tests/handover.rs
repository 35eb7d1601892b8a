//! A worker that ends while others send to it, and its successor in the same slot.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn tuples_sent_while_a_worker_ends_arrive_there_or_at_its_successor_each_once_and_in_order() {
    const N: i64 = 20_000;
    let intake = Intake::default();
    let of_first = intake.clone();
    let mut first = Worker::start_with(0, at, |listener| listener.with_intake(of_first));
    let emitter = Emitter::to(&[(&first.me, &[7])]);
    let (mut outbox, tasks) = (emitter.peers.outbox(), Tasks::default());
    tasks.start("emits", OnExit::Ignore, async move {
        for n in 0..N {
            assert_eq!(outbox.send(TaskId(7), &tuple(n)).await, Sent::Queued);
        }
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
    assert!(next < N, "the sender keeps the rest");
    let port = first.me.slot.port.0;
    first.tasks.stop(WAIT_MAX).await;
    let mut second = Worker::start_at(port, at);
    for n in next..N {
        assert_eq!(second.next().await, n);
    }
    until_counts(&emitter.counters, "all are sent", |counts| counts.sent == N.cast_unsigned()).await;
    assert_eq!((emitter.counters.n_unsent(), emitter.counters.read().dropped), (0, 0));
}
