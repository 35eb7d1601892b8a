//! Connection that may speak TLS: its first byte decides.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::{Accept, TlsAcceptor, rustls, server::TlsStream};
use tracing::warn;

use super::listener::LogLimiter;
use stormkeeper_access::tls::{
    certificate::PeerCertificate,
    server::{ServerTls, reason_of_client},
};

/// First byte of a connection over TLS: a record of the handshake. No method of HTTP begins with it.
const HANDSHAKE: u8 = 0x16;

/// Protection of a connection, known once its first bytes have arrived.
#[derive(Debug, Clone)]
pub(crate) enum Protection {
    /// Nobody is kept from reading.
    Plain,
    /// TLS, with the certificate of the client if it has shown one.
    Tls(Option<Arc<PeerCertificate>>),
}

/// Place for the protection of a connection, shared with its requests.
pub(crate) type SharedProtection = Arc<OnceLock<Protection>>;

/// Port with TLS, and its log of failed handshakes.
#[derive(Debug, Clone)]
pub(crate) struct TlsPort {
    tls: ServerTls,
    failed: Arc<Mutex<LogLimiter>>,
}

impl TlsPort {
    pub(crate) fn new(tls: ServerTls) -> Self {
        Self { tls, failed: Arc::default() }
    }

    /// Logs a failed handshake, unless another one was logged a moment ago.
    fn note_failed(&self, peer: SocketAddr, error: &io::Error) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let reason = cause.map_or_else(|| error.to_string(), reason_of_client);
        let mut failed = self.failed.lock().expect("no one panics while holding the time of the log");
        if let Some(n_failed) = failed.record(Instant::now()) {
            warn!(%peer, reason, n_failed, "a client could not connect over TLS");
        }
    }
}

enum State {
    Undecided(TcpStream, TlsPort),
    Shaking(Box<Accept<TcpStream>>, TlsPort),
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Failed,
}

/// Connection that may speak TLS. The handshake is part of the first read, so that the limits of the
/// first head apply to it.
pub(crate) struct Secured {
    state: State,
    peer: SocketAddr,
    protection: SharedProtection,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Secured {
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr, port: Option<TlsPort>) -> Self {
        let protection = SharedProtection::default();
        let state = match port {
            Some(port) => State::Undecided(stream, port),
            None => {
                let _first = protection.set(Protection::Plain);
                State::Plain(stream)
            }
        };
        Self { state, peer, protection }
    }

    pub(crate) fn protection(&self) -> SharedProtection {
        Arc::clone(&self.protection)
    }

    /// Ready once it is known what the client speaks, and the handshake is complete.
    fn poll_decided(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let state = match &mut self.state {
                State::Undecided(stream, _) => {
                    let mut byte = [0; 1];
                    let n = ready!(stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)))?;
                    let State::Undecided(stream, port) = std::mem::replace(&mut self.state, State::Failed)
                    else {
                        unreachable!("the state was matched above")
                    };
                    if n == 1 && byte[0] == HANDSHAKE {
                        let accept = TlsAcceptor::from(port.tls.config()).accept(stream);
                        State::Shaking(Box::new(accept), port)
                    } else {
                        let _first = self.protection.set(Protection::Plain);
                        State::Plain(stream)
                    }
                }
                State::Shaking(accept, port) => match ready!(Pin::new(accept).poll(cx)) {
                    Ok(stream) => {
                        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                        // The verifier has parsed it.
                        let shown = shown.and_then(|certificate| PeerCertificate::parse(certificate).ok());
                        let _first = self.protection.set(Protection::Tls(shown.map(Arc::new)));
                        State::Tls(Box::new(stream))
                    }
                    Err(error) => {
                        port.note_failed(self.peer, &error);
                        self.state = State::Failed;
                        return Poll::Ready(Err(error));
                    }
                },
                State::Plain(_) | State::Tls(_) => return Poll::Ready(Ok(())),
                State::Failed => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            };
            self.state = state;
        }
    }

    /// Passes a call to the stream, once it is decided which.
    fn poll_stream<T>(
        &mut self,
        cx: &mut Context<'_>,
        plain: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
        tls: impl FnOnce(Pin<&mut TlsStream<TcpStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        ready!(self.poll_decided(cx))?;
        match &mut self.state {
            State::Plain(stream) => plain(Pin::new(stream), cx),
            State::Tls(stream) => tls(Pin::new(&mut **stream), cx),
            State::Undecided(..) | State::Shaking(..) | State::Failed => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_decided(cx))?;
        match &mut self.state {
            State::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            State::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
            State::Undecided(..) | State::Shaking(..) | State::Failed => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_stream(
            cx,
            |stream, cx| stream.poll_write(cx, bytes),
            |stream, cx| stream.poll_write(cx, bytes),
        )
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_stream(
            cx,
            |stream, cx| stream.poll_write_vectored(cx, bytes),
            |stream, cx| stream.poll_write_vectored(cx, bytes),
        )
    }

    fn is_write_vectored(&self) -> bool {
        match &self.state {
            State::Plain(stream) => stream.is_write_vectored(),
            State::Tls(stream) => stream.is_write_vectored(),
            State::Undecided(..) | State::Shaking(..) | State::Failed => true,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Plain(stream) => Pin::new(stream).poll_flush(cx),
            State::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            // Nothing was written yet.
            State::Undecided(..) | State::Shaking(..) | State::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Undecided(stream, _) | State::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            State::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            State::Shaking(..) | State::Failed => Poll::Ready(Ok(())),
        }
    }
}
