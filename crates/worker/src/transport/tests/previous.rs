//! A worker of the previous build that goes on sending while this one is new: its bytes are written down
//! here, and not made by this code. In a rolling upgrade, workers of both builds run for as long as the
//! old ones live.

use super::*;

/// Greeting of the first version of the protocol, from the worker at port 1 to that at `port`.
fn greeting(port: u16) -> Vec<u8> {
    let mut hello = b"\x93\xa5t-1-1\x92\xa3sup\xcd".to_vec();
    hello.extend(port.to_be_bytes());
    hello.extend(b"\x92\xa3sup\x01");
    [b"SKTP\x00\x01".to_vec(), framed(&hello)].concat()
}

fn framed(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short");
    [&length.to_be_bytes(), content].concat()
}

/// Tuples (4, "word") and (5, "word") of task 1 for task 7, without the marks of later builds.
const BATCH: &[u8] = b"\x92\x91\x93\x01\xa6source\xa7default\x92\
                       \x93\x00\x92\x04\xa4word\x91\x07\
                       \x93\x00\x92\x05\xa4word\x91\x07";

/// Tuple (6, "word"), in the tree with root 9 and edge 8 of the acker of task 1.
const TRACKED: &[u8] =
    b"\x92\x91\x93\x01\xa6source\xa7default\x91\x94\x00\x92\x06\xa4word\x91\x07\x93\x01\x09\x08";

#[tokio::test]
async fn worker_of_the_previous_build_is_welcome_and_its_tuples_arrive() {
    let mut worker = Worker::start();
    let mut stream = worker.connect().await;
    let greeting = greeting(worker.me.slot.port.0);
    stream.write_all(&greeting).await.expect("it reads");
    let mut reply = [0; 12];
    let read = tokio::time::timeout(WAIT_MAX, stream.read_exact(&mut reply)).await;
    read.expect("in time").expect("a reply");
    assert_eq!(reply, *b"\x00\x00\x00\x08\xa7Welcome");
    stream.write_all(&framed(BATCH)).await.expect("it reads");
    assert_eq!((worker.next().await, worker.next().await), (4, 5));
    stream.write_all(&framed(TRACKED)).await.expect("it reads");
    let tracked = tokio::time::timeout(WAIT_MAX, worker.inbox.recv()).await.expect("in time");
    let tracked = tracked.expect("the inbox stays open");
    assert_eq!(number(&tracked), 6);
    let [anchor] = tracked.anchors() else { panic!("one tree: {tracked:?}") };
    assert_eq!((anchor.acker, anchor.root, anchor.edge), (TaskId(1), 9, 8));
    assert_eq!(worker.counters.read().refused_connections, 0);
}
