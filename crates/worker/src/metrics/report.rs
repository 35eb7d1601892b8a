//! What a worker and its topology master say to each other, on the port for tuples.
//!
//! ```text
//! worker   "SKTM" version:u16  frame(Hello)                 frame(Report) …
//! master                                     frame(Answer)  frame(Reply) …
//! ```
//!
//! The greeting is not that of tuples, so a worker of an older version refuses it, and the reports
//! wait. After it, the worker sends a cut and waits for what the master says to it, then the next.
//! That reports are safe the master says at any time.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

use crate::transport::wire::{self, ReadError};
use stormkeeper_metric_shipping::spool::SpooledReport;
use stormkeeper_metrics::{MetricId, MetricName};
use stormkeeper_model::WorkerId;

/// What a connection for reports begins with.
pub(crate) const MAGIC: [u8; 4] = *b"SKTM";

/// The version of all that follows.
pub(crate) const VERSION: u16 = 1;

/// The longest frame: a cut of as many metrics as a worker may have, all of them histograms.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// How many messages wait on either side of a connection. A worker waits for an answer to each
/// cut, so there are never more than a few.
const QUEUED: usize = 16;

/// How long writing a frame may take before the connection is given up.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// What its metrics are called.
    Names {
        /// The launch.
        worker: WorkerId,
        /// Ids and names.
        names: Vec<(MetricId, MetricName)>,
    },
    /// A cut.
    Spooled(SpooledReport),
}

/// What the master says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The cut with this last number is on its way.
    SpoolLock(u64),
    /// These metrics of the last cut have no names: send them, and it again.
    Nameless(Vec<MetricId>),
    /// Too much is on its way: send it again later.
    Full,
    /// Cuts up to this number are safe, or were given up.
    Safe(u64),
}

/// One end of a conversation: what is to be sent, and what was heard.
#[derive(Debug)]
pub(crate) struct End<S, H> {
    pub(crate) send: mpsc::Sender<S>,
    pub(crate) heard: mpsc::Receiver<H>,
}

/// Two ends that hear each other: a worker's and a master's.
pub(crate) fn pair() -> (End<Report, Reply>, End<Reply, Report>) {
    let (send_report, reports) = mpsc::channel(QUEUED);
    let (send_reply, replies) = mpsc::channel(QUEUED);
    (End { send: send_report, heard: replies }, End { send: send_reply, heard: reports })
}

/// Carries a conversation over a connection that was greeted, until either side ends it.
pub(crate) async fn carry<S, H>(stream: TcpStream, end: End<H, S>) -> ReadError
where
    S: Serialize + Send + Sync,
    H: for<'de> Deserialize<'de> + Send,
{
    let End { send, heard } = end;
    let (reader, writer) = stream.into_split();
    tokio::select! {
        // The conversation ends with either: a frame that was begun is lost with the connection.
        error = read_all::<H>(reader, send) => error,
        error = write_all::<S>(writer, heard) => ReadError::Io(error),
    }
}

async fn read_all<H: for<'de> Deserialize<'de>>(
    mut reader: impl AsyncRead + Unpin,
    heard: mpsc::Sender<H>,
) -> ReadError {
    let mut content = Vec::new();
    loop {
        if let Err(error) = wire::read_frame(&mut reader, FRAME_BYTES_MAX, &mut content).await {
            return error;
        }
        let message = match wire::read_message(&content) {
            Ok(message) => message,
            Err(error) => return ReadError::Io(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        if heard.send(message).await.is_err() {
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
        let written = tokio::time::timeout(WRITE_DEADLINE, writer.write_all(&frame)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(_elapsed) => return io::ErrorKind::TimedOut.into(),
        }
    }
    io::ErrorKind::ConnectionAborted.into()
}
