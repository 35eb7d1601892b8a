//! Entry for the fuzz bodies: messages between workers as bytes.

use super::wire::{self, BatchFrame, Hello, HelloReply, ReceivedBatch};
use crate::{
    metrics::messages::{MasterReply, WorkerMessage},
    queue::inbox_with,
};
use serde::{Serialize, de::DeserializeOwned};
use stormkeeper_model::TaskId;
use stormkeeper_stream::Tuple;

/// Limit of tuples in a batch.
pub const MAX_BATCH_TUPLES: usize = crate::limits::BATCH_TUPLES_MAX;

/// Reads a batch. Also returns the tuples if the batch is rejected: there must be none.
pub fn read_batch(content: &[u8]) -> (Vec<(TaskId, Tuple)>, Result<(), String>) {
    let mut batch = ReceivedBatch::default();
    let read = batch.read(content);
    let tuples = batch.rows(content).flat_map(|row| {
        let tuple = row.to_tuple();
        row.tasks.iter().map(move |task| (task, tuple.clone()))
    });
    (tuples.collect(), read.map(drop).map_err(|error| error.to_string()))
}

/// Writes tuples as batches, as many as are needed.
pub fn write_batches(tuples: Vec<(TaskId, Tuple)>) -> Vec<Vec<u8>> {
    let tuples = tuples.iter().map(|(task, tuple)| (std::slice::from_ref(task), tuple));
    let mut inbox = inbox_with(tuples);
    let (mut contents, mut frame) = (Vec::new(), BatchFrame::numbered());
    while !inbox.is_empty() {
        frame.fill(&mut inbox, None);
        contents.extend(frame.bytes().get(size_of::<u32>()..).map(<[u8]>::to_vec));
    }
    contents
}

/// Splits a stream into the contents of its frames, and returns the error that ends it.
pub async fn read_frames(mut stream: &[u8], limit: usize) -> (Vec<Vec<u8>>, String) {
    let (mut contents, mut content) = (Vec::new(), Vec::new());
    loop {
        match wire::read_frame(&mut stream, limit, &mut content).await {
            Ok(()) => contents.push(content.clone()),
            Err(error) => return (contents, error.to_string()),
        }
    }
}

/// Reads `content` as each message that a worker reads; returns those that it is, written again.
pub fn reread_messages(content: &[u8]) -> Vec<Vec<u8>> {
    fn reread<T: DeserializeOwned + Serialize>(content: &[u8]) -> Option<Vec<u8>> {
        let message: T = wire::read_message(content).ok()?;
        Some(wire::frame_of(&message).split_off(size_of::<u32>()))
    }
    let messages = [
        reread::<Hello>(content),
        reread::<HelloReply>(content),
        reread::<WorkerMessage>(content),
        reread::<MasterReply>(content),
    ];
    messages.into_iter().flatten().collect()
}
