//! Messages between a worker and its topology master, on the port for tuples.
//!
//! ```text
//! worker   "SKTM" version:u16  frame(Hello)                    frame(WorkerMessage) …
//! master                                    frame(HelloReply)  frame(MasterReply) …
//! ```
//!
//! The magic number differs from that of tuples, so a worker of an older version refuses the
//! connection, and the reports stay in the spool. After the handshake, the worker sends a report,
//! waits for the master's reply, and sends the next report. The master may report
//! commits at any time.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

use crate::transport::{
    FrameBudget,
    wire::{self, ReadError},
};
use stormkeeper_metric_shipping::spool::SpooledReport;
use stormkeeper_metrics::{MetricId, MetricName};
use stormkeeper_model::WorkerId;

/// First bytes of a connection for metric reports.
pub(crate) const MAGIC: [u8; 4] = *b"SKTM";

/// Version of the protocol after the magic number.
pub(crate) const VERSION: u16 = 1;

/// Longest frame: a report of as many metrics as a worker may have, all of them histograms.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Limit of queued messages on either side of a connection. A worker waits for the reply to each
/// report, so there are never more than a few.
const QUEUED: usize = 16;

/// Time limit for writing a frame; after it the connection is closed.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Message from a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum WorkerMessage {
    /// Names of metrics.
    Names {
        /// Worker id of the launch.
        worker: WorkerId,
        /// Metric ids and names.
        names: Vec<(MetricId, MetricName)>,
    },
    /// Metric report.
    Report(SpooledReport),
}

/// Message from the topology master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MasterReply {
    /// The report with this last sequence number is queued for the leader.
    Queued(u64),
    /// These metrics of the last report have no names: send the names, then the report again.
    Nameless(Vec<MetricId>),
    /// Too many reports are queued: send this report again later.
    Full,
    /// Reports up to this sequence number are committed, or were dropped.
    Committed(u64),
}

/// One end of a message connection.
#[derive(Debug)]
pub(crate) struct Duplex<S, H> {
    pub(crate) send: mpsc::Sender<S>,
    pub(crate) receive: mpsc::Receiver<H>,
}

/// Creates two connected ends: the worker's and the master's.
pub(crate) fn pair() -> (Duplex<WorkerMessage, MasterReply>, Duplex<MasterReply, WorkerMessage>) {
    let (send_report, reports) = mpsc::channel(QUEUED);
    let (send_reply, replies) = mpsc::channel(QUEUED);
    (Duplex { send: send_report, receive: replies }, Duplex { send: send_reply, receive: reports })
}

/// Forwards messages over a TCP connection after the handshake, until either side closes it. With a
/// `budget`, the peer's frames are limited by it.
pub(crate) async fn run_connection<S, H>(
    stream: impl AsyncRead + AsyncWrite + Send,
    end: Duplex<H, S>,
    budget: Option<FrameBudget>,
) -> ReadError
where
    S: Serialize + Send + Sync,
    H: for<'de> Deserialize<'de> + Send,
{
    let Duplex { send, receive } = end;
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        // The connection ends with either direction: an incomplete frame is lost with it.
        error = read_all::<H>(reader, send, budget) => error,
        error = write_all::<S>(writer, receive) => ReadError::Io(error),
    }
}

async fn read_all<H: for<'de> Deserialize<'de>>(
    mut reader: impl AsyncRead + Unpin,
    received: mpsc::Sender<H>,
    budget: Option<FrameBudget>,
) -> ReadError {
    let mut content = Vec::new();
    loop {
        let read = match &budget {
            Some(budget) => budget.read_frame(&mut reader, FRAME_BYTES_MAX, &mut content).await,
            None => wire::read_frame(&mut reader, FRAME_BYTES_MAX, &mut content).await,
        };
        if let Err(error) = read {
            return error;
        }
        let message = match wire::read_message(&content) {
            Ok(message) => message,
            Err(error) => return ReadError::Io(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        if received.send(message).await.is_err() {
            return ReadError::Io(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

async fn write_all<S: Serialize>(
    mut writer: impl AsyncWrite + Unpin,
    mut messages: mpsc::Receiver<S>,
) -> io::Error {
    while let Some(message) = messages.recv().await {
        let frame = wire::frame_of(&message);
        let write = async {
            writer.write_all(&frame).await?;
            writer.flush().await
        };
        match tokio::time::timeout(WRITE_DEADLINE, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(_elapsed) => return io::ErrorKind::TimedOut.into(),
        }
    }
    io::ErrorKind::ConnectionAborted.into()
}
