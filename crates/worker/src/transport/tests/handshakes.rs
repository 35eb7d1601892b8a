//! Peers that connect and do not complete their handshake.

use tokio::net::TcpSocket;

use super::*;
use stormkeeper_runtime::places::Places;

/// Opens a connection from an address of the loopback on which nothing is sent.
async fn connect_from(address: [u8; 4], to: &Worker) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("an address of this host");
    let to = (Ipv4Addr::LOCALHOST, to.me.slot.port.0).into();
    socket.connect(to).await.expect("it listens")
}

/// Waits until the worker has closed the connection.
async fn until_closed(mut stream: TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(WAIT_MAX, stream.read(&mut byte)).await.expect("it is closed");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn address_that_holds_handshakes_open_does_not_keep_out_workers_of_others() {
    let mut worker = Worker::start_with(0, at, |listener| listener.with_handshakes(Places::new(4, 2)));
    let _silent = [connect_from([127, 0, 0, 2], &worker).await, connect_from([127, 0, 0, 2], &worker).await];
    until_closed(connect_from([127, 0, 0, 2], &worker).await).await;
    assert_eq!(worker.counters.read().refused_connections, 1, "the third one, and no other");
    let emitter = Emitter::to(&[(&worker.me, &[7])]);
    assert_eq!(emitter.peers.outbox().send(TaskId(7), &tuple(1)).await, Sent::Queued);
    assert_eq!(worker.next().await, 1, "a worker at another address");
    // Its connection is open, and its place is free: of the other two, one address has one.
    let _silent = connect_from([127, 0, 0, 1], &worker).await;
    until_closed(connect_from([127, 0, 0, 1], &worker).await).await;
    assert_eq!(worker.counters.read().refused_connections, 2);
}
