//! Tests of queues: order, bounds, wake-ups in both directions, and the end of either side.

use std::{sync::Arc, time::Duration};

use super::*;
use stormkeeper_model::StreamId;
use stormkeeper_stream::{Origin, Row, Value, ValueWriter};

/// Limit of every wait; reached only if something is broken.
const WAIT_MAX: Duration = Duration::from_secs(30);

const SMALL: Capacity = Capacity { tuples: 4, bytes: 1 << 10 };

fn origin() -> Arc<Origin> {
    let component = "numbers".parse().expect("valid");
    Arc::new(Origin { task: TaskId(1), component, stream: StreamId::default_stream() })
}

fn tuple(n: i64) -> Tuple {
    Tuple::new(origin(), vec![Value::Int(n)])
}

fn number(row: &Row<'_>) -> i64 {
    match row.values.to_values()[..] {
        [Value::Int(n), ..] => n,
        ref other => panic!("{other:?}"),
    }
}

fn drained(inbox: &mut Inbox) -> Vec<i64> {
    std::iter::from_fn(|| inbox.next_row().map(|row| number(&row))).collect()
}

async fn in_time<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, event).await.expect("in time")
}

#[test]
fn full_lane_refuses_rows_until_the_receiver_takes_its_batch() {
    let (inlet, mut inbox) = queue(SMALL);
    let mut lane = inlet.lane();
    for n in 0..4 {
        assert_eq!(lane.push_tuple(&[], &tuple(n)), Ok(()));
    }
    assert_eq!(lane.push_tuple(&[], &tuple(4)), Err(Refused::Full));
    assert_eq!((inbox.len(), inlet.gauge().fill(), inlet.gauge().n_tuples()), (4, Some(1.0), Some(4)));
    assert_eq!(inbox.next_row().map(|row| number(&row)), Some(0));
    // The rest is in the batch that is being read.
    assert_eq!((inbox.len(), inbox.n_in_batch(), inlet.gauge().n_tuples()), (3, 3, Some(0)));
    assert_eq!(lane.push_tuple(&[], &tuple(4)), Ok(()));
    assert_eq!(drained(&mut inbox), [1, 2, 3, 4]);
    assert!(inbox.is_empty());
}

#[test]
fn bytes_and_copies_count_and_an_empty_lane_takes_a_row_of_any_size() {
    let (inlet, mut inbox) = queue(SMALL);
    let mut lane = inlet.lane();
    let large = Tuple::new(origin(), vec![Value::Int(1), "x".repeat(5000).into()]);
    assert_eq!(lane.push_tuple(&[], &large), Ok(()));
    assert_eq!(lane.push_tuple(&[], &tuple(2)), Err(Refused::Full));
    assert_eq!(drained(&mut inbox), [1]);
    let tasks = [1, 2, 3].map(TaskId);
    assert_eq!(lane.push_tuple(&tasks, &tuple(3)), Ok(()));
    assert_eq!(lane.push_tuple(&tasks[..2], &tuple(4)), Err(Refused::Full));
    assert_eq!(lane.push_tuple(&tasks[..1], &tuple(5)), Ok(()));
    assert_eq!(inbox.len(), 4);
    assert_eq!(drained(&mut inbox), [3, 5]);
    assert_eq!(inbox.len(), 0);
}

#[test]
fn lanes_are_read_in_turn_and_each_keeps_its_order() {
    let (inlet, mut inbox) = queue(SMALL);
    let mut lanes = [inlet.lane(), inlet.lane(), inlet.lane()];
    for n in 0..3 {
        for (of, lane) in (0..).zip(&mut lanes) {
            lane.push_tuple(&[], &tuple(10 * of + n)).expect("room");
        }
    }
    let mut read = drained(&mut inbox);
    // A lane is read as a whole, then the next one.
    let first = read[0] / 10;
    assert_eq!(read[..3].iter().map(|n| n / 10).collect::<Vec<_>>(), [first; 3]);
    read.sort_by_key(|n| n / 10);
    assert_eq!(read, [0, 1, 2, 10, 11, 12, 20, 21, 22]);
}

#[tokio::test]
async fn waiting_receiver_is_woken_by_any_lane_also_a_new_one() {
    let (inlet, mut inbox) = queue(SMALL);
    let mut known = inlet.lane();
    for n in 0..100 {
        let send = async {
            // The receiver waits by now.
            tokio::task::yield_now().await;
            match n % 2 {
                0 => known.push_tuple(&[], &tuple(n)),
                _ => inlet.lane().push_tuple(&[], &tuple(n)),
            }
        };
        let (received, sent) = in_time(async { tokio::join!(inbox.recv(), send) }).await;
        assert_eq!((received, sent), (Some(tuple(n)), Ok(())));
    }
}

#[tokio::test]
async fn waiting_emitter_is_woken_when_there_is_room_and_when_the_receiver_goes() {
    let (inlet, mut inbox) = queue(SMALL);
    let mut lane = inlet.lane();
    let mut emit = async |n: i64| loop {
        match lane.push_tuple(&[], &tuple(n)) {
            Err(Refused::Full) => lane.room().await,
            done => return done,
        }
    };
    for n in 0..4 {
        assert_eq!(emit(n).await, Ok(()));
    }
    let (emitted, received) = in_time(async {
        tokio::join!(emit(4), async {
            tokio::task::yield_now().await;
            inbox.recv().await
        })
    })
    .await;
    assert_eq!((emitted, received), (Ok(()), Some(tuple(0))));
    for n in 5..8 {
        assert_eq!(emit(n).await, Ok(()));
    }
    let (emitted, ()) = in_time(async {
        tokio::join!(emit(8), async {
            tokio::task::yield_now().await;
            drop(inbox);
        })
    })
    .await;
    assert_eq!(emitted, Err(Refused::Closed));
    assert_eq!(inlet.lane().push_tuple(&[], &tuple(9)), Err(Refused::Closed));
}

#[tokio::test]
async fn receiver_gets_everything_and_then_the_end_once_all_senders_are_gone() {
    let (inlet, mut inbox) = queue(SMALL);
    let gauge = inlet.gauge();
    let mut lane = inlet.lane();
    lane.push_tuple(&[], &tuple(1)).expect("room");
    drop((inlet, lane));
    assert_eq!((in_time(inbox.recv()).await, in_time(inbox.recv()).await), (Some(tuple(1)), None));
    assert_eq!((gauge.fill(), gauge.n_tuples()), (None, None));

    // While it waits.
    let (inlet, mut inbox) = queue(SMALL);
    let (received, ()) = in_time(async {
        tokio::join!(inbox.recv(), async {
            tokio::task::yield_now().await;
            drop(inlet);
        })
    })
    .await;
    assert_eq!(received, None);
}

#[test]
fn closed_inbox_keeps_what_it_has() {
    let (inlet, mut inbox) = queue(SMALL);
    let mut lane = inlet.lane();
    lane.push_tuple(&[], &tuple(1)).expect("room");
    inbox.close();
    assert_eq!(lane.push_tuple(&[], &tuple(2)), Err(Refused::Closed));
    assert_eq!(drained(&mut inbox), [1]);
}

#[test]
fn lanes_that_are_over_are_forgotten() {
    let (inlet, mut inbox) = queue(SMALL);
    for n in 0..1000 {
        inlet.lane().push_tuple(&[], &tuple(n)).expect("room");
        assert_eq!(drained(&mut inbox), [n]);
    }
    assert!(inlet.0.lanes().open.len() <= 2, "{}", inlet.0.lanes().open.len());
}

/// Threads that emit as fast as they can into small lanes: nothing is lost, nothing twice, each in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn emitters_on_other_threads_lose_nothing() {
    const N: i64 = 50_000;
    let (inlet, mut inbox) = queue(SMALL);
    let emitters: Vec<_> = (0..3)
        .map(|of| {
            let mut lane = inlet.lane();
            let emitter = async move {
                let (origin, mut values) = (origin(), ValueWriter::default());
                for n in 0..N {
                    values.clear();
                    values.int(of * N + n);
                    let tuple = Tuple::new(Arc::clone(&origin), Vec::new());
                    let row = Row::of(&tuple, values.encoded());
                    while lane.push(&row) == Err(Refused::Full) {
                        lane.room().await;
                    }
                }
            };
            #[expect(clippy::disallowed_methods, reason = "the test waits for its end")]
            tokio::spawn(emitter)
        })
        .collect();
    drop(inlet);
    let mut next = [0, N, 2 * N];
    in_time(async {
        while inbox.ready().await {
            while let Some(row) = inbox.next_in_batch() {
                let n = number(&row);
                let expected = &mut next[usize::try_from(n / N).expect("positive")];
                assert_eq!(n, *expected);
                *expected += 1;
            }
        }
    })
    .await;
    assert_eq!(next, [N, 2 * N, 3 * N]);
    for emitter in emitters {
        emitter.await.expect("no panic");
    }
}
