//! Connections of processes that are no workers of the assignment.

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::*;
use crate::transport::wire::{self, Hello, HelloReply};

#[tokio::test(flavor = "multi_thread")]
async fn worker_accepts_connections_of_its_assignment_only() {
    let components = json!({ "source": spout(&["python3", "source.py"], &["n"]) });
    let stage = Stage::new(json!({}), components, 1).await;
    stage.write_resource("source.py", "from stormkeeper import Spout\nSpout().run()\n");
    let mut workers = stage.start();
    stage.status_becomes(TaskId(1), TaskStatus::Running).await;
    let slot = stage.assignment.workers.keys().next().expect("one").clone();
    let greet = |from: Slot| {
        let (to, topology) = (slot.clone(), stage.options.spec.topology.clone());
        async move {
            let mut stream = TcpStream::connect(("127.0.0.1", to.port.0)).await.expect("it listens");
            let opening = [&b"SKTP\x00\x01"[..], &wire::frame_of(&Hello { topology, to, from })].concat();
            stream.write_all(&opening).await.expect("written");
            let mut content = Vec::new();
            wire::read_frame(&mut stream, wire::MAX_HANDSHAKE_BYTES, &mut content).await.expect("answered");
            wire::read_message::<HelloReply>(&content).expect("readable")
        }
    };
    let stranger = Slot { port: Port(1), ..slot.clone() };
    assert!(matches!(greet(stranger.clone()).await, HelloReply::Refused(_)));
    assert_eq!(greet(slot.clone()).await, HelloReply::Welcome);
    // Placed by now: the worker has read that before it answers.
    let mut assignment = stage.assignment.clone();
    let elsewhere = AssignedWorker { tasks: TaskSet::default(), ..assignment.workers[&slot].clone() };
    assignment.workers.insert(stranger.clone(), elsewhere);
    let path = layout::assignment(&stage.options.spec.topology);
    stage.set(&path, record::encode_assignment(&assignment)).await;
    assert_eq!(greet(stranger).await, HelloReply::Welcome);
    workers.remove(0).stop().await;
}
