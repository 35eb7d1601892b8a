//! A connection that ends when its peer keeps it waiting.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    Limits,
    listener::ApiListener,
    pace::{Pace, poll_at},
    raw,
    secured::SharedProtection,
};
use stormkeeper_runtime::places::Place;

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

/// Begin of a connection.
#[derive(Debug, Clone, Copy)]
enum Begin {
    /// Nothing was received yet.
    Unknown,
    /// It is not that of HTTP/2.
    Served,
    /// The peer speaks HTTP/2, and was answered. What it still sends is discarded, up to this many bytes.
    Refused(usize),
}

/// Bytes of a peer that is refused that are read: they would cost it the response if they were not.
const DISCARDED_MAX: usize = 64 << 10;

/// End of a connection.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It is in use.
    None,
    /// Nothing more is sent. What the peer still sends is discarded, up to so many bytes and until then.
    Lingers { left: usize, until: Instant },
    /// It may be closed.
    Over,
}

/// Phase of a connection, shared with the request that it serves.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    wait: Arc<Mutex<Wait>>,
    /// True if the body of a request was not read to its end.
    has_unread: Arc<AtomicBool>,
}

impl Phase {
    fn new() -> Self {
        Self { wait: Arc::new(Mutex::new(Wait::Head(Instant::now()))), has_unread: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Wait> {
        self.wait.lock().expect("no one panics while holding the phase")
    }

    /// Records that a response was made and the body of its request not read to its end.
    pub(crate) fn note_unread_body(&self) {
        self.has_unread.store(true, Ordering::Relaxed);
    }

    /// True if the peer may still be sending what nobody reads: a body, or a head that is refused.
    fn may_have_unread(&self) -> bool {
        self.has_unread.load(Ordering::Relaxed) || matches!(*self.lock(), Wait::Head(_))
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
    peer: SocketAddr,
    limits: Limits,
    phase: Phase,
    begin: Begin,
    end: End,
    timer: Option<Pin<Box<Sleep>>>,
    answers: Pace,
    _place: Option<Place>,
}

impl<S> Connection<S> {
    pub(crate) fn new(stream: S, peer: SocketAddr, limits: Limits, place: Option<Place>) -> Self {
        let (phase, answers) = (Phase::new(), Pace::new(limits));
        let (begin, end) = (Begin::Unknown, End::None);
        Self { stream, peer, limits, phase, begin, end, timer: None, answers, _place: place }
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

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Answers a peer that speaks HTTP/2, as far as that is possible at once, and sends nothing more.
    fn refuse_http_2(&mut self, cx: &mut Context<'_>) {
        tracing::debug!(peer = %self.peer, "refused a connection: the peer speaks HTTP/2, which is not served");
        // Nothing was written before, so the response fits. A peer that is gone needs none.
        let _sent = Pin::new(&mut self.stream).poll_write(cx, raw::NO_HTTP_2.as_bytes());
        let _flushed = Pin::new(&mut self.stream).poll_flush(cx);
        let _ended = Pin::new(&mut self.stream).poll_shutdown(cx);
    }

    /// Ready once a peer that is refused has closed the connection, or has kept it open for too long.
    fn poll_gone(&mut self, mut left: usize, cx: &mut Context<'_>) -> Poll<()> {
        let gone = self.poll_discard(&mut left, cx);
        self.begin = Begin::Refused(left);
        match gone {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.poll_deadline(cx).map(drop),
        }
    }

    /// Ready once a peer has closed the connection after its response, or has sent too much or for too long.
    fn poll_linger(&mut self, mut left: usize, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let gone = self.poll_discard(&mut left, cx);
        self.end = End::Lingers { left, until };
        match gone {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => poll_at(&mut self.timer, until, cx),
        }
    }

    /// Discards what a peer sends. Ready once it has closed the connection, or has sent `left` bytes.
    fn poll_discard(&mut self, left: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 16 << 10];
        while *left > 0 {
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len()),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Begin::Refused(left) = self.begin {
            // The server takes this for the end of the connection, and closes it.
            return self.poll_gone(left, cx).map(Ok);
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            return self.poll_deadline(cx).map(Err);
        };
        if buffer.filled().len() > before {
            self.phase.record_bytes();
            // A preface that comes in parts ends the connection without a response.
            if let Begin::Unknown = self.begin {
                self.begin = Begin::Served;
                if buffer.filled()[before..].starts_with(raw::HTTP_2_PREFACE) {
                    self.begin = Begin::Refused(DISCARDED_MAX);
                    buffer.set_filled(before);
                    self.refuse_http_2(cx);
                    return self.poll_gone(DISCARDED_MAX, cx).map(Ok);
                }
            }
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
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
        if let End::None = self.end {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.end = match self.phase.may_have_unread() && matches!(self.begin, Begin::Served) {
                true => {
                    let Limits { linger, linger_bytes, .. } = self.limits;
                    End::Lingers { left: linger_bytes, until: Instant::now() + linger }
                }
                false => End::Over,
            };
        }
        if let End::Lingers { left, until } = self.end {
            ready!(self.poll_linger(left, until, cx));
            self.end = End::Over;
        }
        Poll::Ready(Ok(()))
    }
}
