//! Connection between workers, plain or over TLS.
//!
//! The end that connects chooses: TLS once its supervisor requires it. The end that accepts knows TLS by its
//! first byte, and takes it whatever its supervisor says, so that the supervisors of a running cluster change
//! one after the other.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::greeting::PeerKeys;
use stormkeeper_access::tls::ephemeral::{BINDING, EphemeralTls};

/// First byte of a connection over TLS; the magic numbers of greetings begin with another.
const HANDSHAKE: u8 = 0x16;

/// Size of one read from the kernel below TLS, which itself reads four kilobytes at a time.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Size of one read from a plain connection.
const PLAIN_READ_BYTES: usize = 64 << 10;

/// Size of the buffer above TLS, for lengths of frames: a longer read passes it by, and so is copied
/// once less.
const TLS_READ_BYTES: usize = 256;

/// Bytes that TLS holds until the kernel takes them: a whole frame of tuples, so that it is one write.
const TLS_WRITE_BYTES: usize = 256 << 10;

/// Connection between workers.
#[derive(Debug)]
pub(crate) enum PeerStream {
    /// Everybody in between can read it.
    Plain(TcpStream),
    /// Nobody in between can read it.
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

impl PeerStream {
    /// Accepts the TLS of a peer that begins with it.
    ///
    /// # Errors
    /// I/O error of the handshake.
    pub(super) async fn accept(stream: TcpStream, keys: &PeerKeys) -> io::Result<Self> {
        let mut first = [0];
        let n = stream.peek(&mut first).await?;
        match keys.tls() {
            Some(tls) if n == 1 && first[0] == HANDSHAKE => {
                let accepted = TlsAcceptor::from(tls.server).accept(buffered(stream)).await?;
                Ok(Self::Tls(Box::new(accepted.into())))
            }
            _ => Ok(Self::Plain(stream)),
        }
    }

    /// Begins TLS on a new connection if the supervisor of this worker requires it.
    ///
    /// # Errors
    /// I/O error of the handshake.
    pub(crate) async fn connect(stream: TcpStream, keys: &PeerKeys) -> io::Result<Self> {
        if !keys.requires_tls() {
            return Ok(Self::Plain(stream));
        }
        let tls = keys.tls().ok_or_else(|| io::Error::other("this worker has no certificate for TLS"))?;
        let connected = TlsConnector::from(tls.client).connect(EphemeralTls::server_name(), buffered(stream));
        let mut connected = connected.await?;
        connected.get_mut().1.set_buffer_limit(Some(TLS_WRITE_BYTES));
        Ok(Self::Tls(Box::new(connected.into())))
    }

    /// Returns a reader that collects small reads.
    pub(super) fn into_reader(self) -> BufReader<Self> {
        let bytes = match self {
            Self::Plain(_) => PLAIN_READ_BYTES,
            Self::Tls(_) => TLS_READ_BYTES,
        };
        BufReader::with_capacity(bytes, self)
    }

    /// Returns what a proof on this connection also covers: bytes that differ between the two connections of
    /// somebody in between; `None` for a plain connection.
    ///
    /// # Errors
    /// If TLS cannot say.
    pub(super) fn binding(&self) -> io::Result<Option<[u8; 32]>> {
        let Self::Tls(stream) = self else { return Ok(None) };
        let exported = match &**stream {
            TlsStream::Client(end) => end.get_ref().1.export_keying_material([0; 32], BINDING, None),
            TlsStream::Server(end) => end.get_ref().1.export_keying_material([0; 32], BINDING, None),
        };
        exported.map(Some).map_err(io::Error::other)
    }
}

fn buffered(stream: TcpStream) -> BufReader<TcpStream> {
    BufReader::with_capacity(READ_BUFFER_BYTES, stream)
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => match Pin::new(&mut **stream).poll_read(cx, buffer) {
                // A worker that ends does not say so in TLS. Frames have lengths, so that nobody in between
                // can shorten one.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                read => read,
            },
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
