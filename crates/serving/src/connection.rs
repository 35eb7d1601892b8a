//! A connection that ends when its peer keeps it waiting.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    Limits,
    listener::{ApiListener, Place},
    pace::{Pace, poll_at},
    secured::SharedProtection,
};

/// Event that a connection waits for.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// The head of a request, since then.
    Head(Instant),
    /// The first byte of the next request, since then.
    Request(Instant),
    /// This daemon, or the body of the request or answer; bodies have their own pace.
    Answer,
}

/// Phase of a connection, shared with the request that it serves.
#[derive(Debug, Clone)]
pub(crate) struct Phase(Arc<Mutex<Wait>>);

impl Phase {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Wait::Head(Instant::now()))))
    }

    fn lock(&self) -> MutexGuard<'_, Wait> {
        self.0.lock().expect("no one panics while holding the phase")
    }

    /// Marks the connection as busy until the result is dropped.
    pub(crate) fn begin_request(&self) -> Busy {
        *self.lock() = Wait::Answer;
        Busy(self.clone())
    }

    fn record_bytes(&self) {
        let mut wait = self.lock();
        if let Wait::Request(_) = *wait {
            *wait = Wait::Head(Instant::now());
        }
    }

    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        match *self.lock() {
            Wait::Head(since) => Some(since + limits.head),
            Wait::Request(since) => Some(since + limits.idle),
            Wait::Answer => None,
        }
    }
}

/// A request in service.
#[derive(Debug)]
pub(crate) struct Busy(Phase);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.lock() = Wait::Request(Instant::now());
    }
}

/// Peer of a connection, for the requests on it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) phase: Phase,
    pub(crate) protection: SharedProtection,
}

impl Connected<IncomingStream<'_, ApiListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, ApiListener>) -> Self {
        let connection = stream.io();
        Self {
            address: *stream.remote_addr(),
            phase: connection.phase.clone(),
            protection: connection.stream.protection(),
        }
    }
}

/// A connection. Reads and writes fail once the peer has kept them waiting for too long.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    limits: Limits,
    phase: Phase,
    timer: Option<Pin<Box<Sleep>>>,
    answers: Pace,
    _place: Option<Place>,
}

impl<S> Connection<S> {
    pub(crate) fn new(stream: S, limits: Limits, place: Option<Place>) -> Self {
        let answers = Pace::new(limits);
        Self { stream, limits, phase: Phase::new(), timer: None, answers, _place: place }
    }

    /// Waits on the peer. Ready with an error when the deadline of the phase has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.phase.deadline(&self.limits) {
            Some(deadline) => poll_at(&mut self.timer, deadline, cx).map(|()| io::ErrorKind::TimedOut.into()),
            None => Poll::Pending,
        }
    }

    fn after_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(written) => {
                self.answers.record(written.as_ref().copied().unwrap_or_default());
                Poll::Ready(written)
            }
            Poll::Pending => self.answers.poll_late(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            return self.poll_deadline(cx).map(Err);
        };
        if buffer.filled().len() > before {
            self.phase.record_bytes();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // The server flushes at the end of a response, and may wait for the next request without
        // another read: the timer must be set now.
        match self.poll_deadline(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
