//! Connection to the socket of a worker.
//!
//! With `supervisor.run.worker.as.user` the directory belongs to the user of the worker, who can put
//! anything in the place of the socket, also a link to the socket of another program. What is connected to
//! is a socket of that user in that directory, and nothing is sent to it.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use serde_json::value::RawValue;
use tokio::net::UnixStream;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

use stormkeeper_metrics::live::{LINE_BYTES_MAX, SOCKET};
use stormkeeper_runtime::blocking;

/// Time in which a worker must send the next sample, of which it sends one each second.
const SILENCE: Duration = Duration::from_secs(5);

const NO_LINK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Lines of a worker.
pub(super) type Lines = FramedRead<UnixStream, LinesCodec>;

/// Connects to the worker in the directory `dir`.
///
/// # Errors
/// If there is no socket of the owner of the directory, or nobody listens.
pub(super) async fn connect(dir: PathBuf) -> io::Result<Lines> {
    let (socket, owner) = blocking::run(move || find(&dir)).await?;
    // The descriptor names what was checked, whatever is in its place by now, and its path is short enough.
    let stream = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await?;
    match stream.peer_cred()?.uid() == owner {
        true => Ok(FramedRead::new(stream, LinesCodec::new_with_max_length(LINE_BYTES_MAX))),
        false => Err(of_another_user()),
    }
}

/// Finds the socket, and the user of the directory. Blocks.
fn find(dir: &Path) -> io::Result<(OwnedFd, u32)> {
    let dir = openat(CWD, dir, NO_LINK | OFlags::DIRECTORY, Mode::empty())?;
    let owner = fstat(&dir)?.st_uid;
    let socket = openat(&dir, SOCKET, NO_LINK, Mode::empty())?;
    let found = fstat(&socket)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("its {SOCKET} is no socket")));
    }
    match found.st_uid == owner {
        true => Ok((socket, owner)),
        false => Err(of_another_user()),
    }
}

fn of_another_user() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("its {SOCKET} is of another user"))
}

/// Reads the next line, which is a text of JSON.
///
/// # Errors
/// If the worker is gone, is silent for too long, or sends something else.
pub(super) async fn next(lines: &mut Lines) -> io::Result<Box<RawValue>> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, format!("it sent nothing for {SILENCE:?}"));
    let line = tokio::time::timeout(SILENCE, lines.next()).await.map_err(silent)?;
    let line = line.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(|error| match error {
        LinesCodecError::MaxLineLengthExceeded => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("its line is longer than {LINE_BYTES_MAX} bytes"),
        ),
        LinesCodecError::Io(error) => error,
    })?;
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "its line is no sample");
    RawValue::from_string(line).map_err(invalid)
}

/// Returns the reason why a worker sends no live numbers, for people.
pub(super) fn problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "it does not send live numbers: it is starting, or is of a build without them".to_owned()
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionRefused => "it has ended".to_owned(),
        _ => format!("its live numbers cannot be read: {error}"),
    }
}
