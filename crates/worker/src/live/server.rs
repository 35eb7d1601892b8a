//! Socket at which a worker serves its samples.

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, net::UnixListener as StdListener},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::MissedTickBehavior,
};
use tracing::{debug, warn};

use super::Sampler;
use stormkeeper_metrics::live::{LINE_BYTES_MAX, LiveSample, SOCKET};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// Time between two samples.
const PERIOD: Duration = Duration::from_secs(1);

/// Maximum number of readers: the supervisor is one, and the one before it may not be gone yet. Further
/// connections are closed.
const READERS_MAX: usize = 4;

/// Time in which a reader must take a sample.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a connection could not be accepted: the cause, mostly too few descriptors, does not pass
/// at once.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Opens the socket in a worker's directory, for its own user and root. Blocks.
///
/// The address of a socket has at most 108 bytes and a path may have more, so the directory is named by
/// its descriptor.
pub(super) fn bind(dir: &Path) -> io::Result<StdListener> {
    let dir = openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Of a process before in the same directory, as in tests.
    let _none = unlinkat(&dir, SOCKET, AtFlags::empty());
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    let listener = StdListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The socket.
pub(super) struct Server {
    listener: UnixListener,
    readers: Arc<Semaphore>,
}

impl Server {
    pub(super) fn new(listener: StdListener) -> io::Result<Self> {
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        Ok(Self { listener: UnixListener::from_std(listener)?, readers })
    }

    /// Serves readers, each in a task of `tasks`.
    pub(super) async fn run(self, sampler: Sampler, tasks: &Tasks) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "cannot accept a reader of live numbers");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.readers).try_acquire_owned() else {
                warn!(max = READERS_MAX, "closed a reader of live numbers: there are too many");
                continue;
            };
            if !may_read(&stream) {
                warn!("closed a reader of live numbers that is of another user");
                continue;
            }
            let sampler = sampler.clone();
            tasks.start("reader of live numbers", OnExit::Ignore, async move {
                let Err(error) = serve(stream, sampler).await;
                debug!(%error, "a reader of live numbers is gone");
                drop(place);
            });
        }
    }
}

/// Returns whether the peer is of this user, or root. Its own check beside the mode of the file: in some
/// systems the mode of a socket is ignored, and the directory may be open to others.
fn may_read(stream: &UnixStream) -> bool {
    let me = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == me || peer.uid() == 0)
}

/// Writes a sample at once and then each second, until the reader is gone or does not read.
async fn serve(mut stream: UnixStream, sampler: Sampler) -> Result<std::convert::Infallible, io::Error> {
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let sampler = sampler.clone();
        let line = blocking::run(move || line(sampler.sample())).await?;
        tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(&line)).await??;
    }
}

/// Returns a sample as a line. One that is too long has no streams, or else no tasks.
fn line(mut sample: LiveSample) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&sample)?;
    if line.len() >= LINE_BYTES_MAX {
        sample.tasks.iter_mut().for_each(|task| task.streams.clear());
        line = serde_json::to_vec(&sample)?;
    }
    if line.len() >= LINE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "this worker has too many tasks for a sample",
        ));
    }
    line.push(b'\n');
    Ok(line)
}
