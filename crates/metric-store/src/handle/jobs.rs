//! Way of jobs to the writer: through a channel to its thread, or by a call on the caller's thread.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    Error,
    writer::{Command, Job, Writer},
};
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
};

/// Maximum number of jobs that wait for the writer. A group of jobs takes some tens of milliseconds.
const JOBS_MAX: usize = 256;

/// Pause between attempts to send `Stop` while the writer's channel is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Way of jobs to the writer. Clones share the writer; the last one closes the store.
#[derive(Debug, Clone)]
pub(super) enum Jobs {
    Thread {
        commands: mpsc::Sender<Command>,
        // After `commands`: fields are dropped in this order, and the thread ends when the last
        // sender of commands is dropped.
        _thread: Arc<WriterThread>,
    },
    /// For the simulation: threads run at moments of real time, so no simulated run would be
    /// reproducible.
    Inline(Arc<InlineWriter>),
}

impl Jobs {
    /// Starts the writer, on a thread unless blocking work is done inline. It ends with `tasks`.
    pub(super) fn start(writer: Writer, dir: &Path, tasks: &Tasks) -> Result<Self, Error> {
        if blocking::is_inline() {
            Ok(Self::start_inline(writer, tasks))
        } else {
            Self::start_thread(writer, dir, tasks)
        }
    }

    fn start_thread(writer: Writer, dir: &Path, tasks: &Tasks) -> Result<Self, Error> {
        let (commands, receiver) = mpsc::channel(JOBS_MAX);
        let (ended, has_ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("metric-store".to_owned())
            .spawn(move || {
                let _ended: oneshot::Sender<()> = ended;
                writer.run(receiver);
            })
            .map_err(|error| Error::Open { path: dir.to_owned(), detail: error.to_string() })?;
        let (cancel, stop) = (tasks.cancelled(), commands.downgrade());
        tasks.start_graceful("metric-store", OnExit::Ignore, async move {
            cancel.cancelled().await;
            // No sender is held during the pause: the writer ends with the last sender.
            while let Some(stop) = stop.upgrade() {
                match stop.try_send(Command::Stop) {
                    Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => break,
                    Err(mpsc::error::TrySendError::Full(_)) => {}
                }
                drop(stop);
                tokio::time::sleep(FULL_PAUSE).await;
            }
            let _closed = has_ended.await;
        });
        Ok(Self::Thread { commands, _thread: Arc::new(WriterThread(Some(thread))) })
    }

    fn start_inline(writer: Writer, tasks: &Tasks) -> Self {
        let writer = Arc::new(InlineWriter(Mutex::new(Some(writer))));
        let (cancel, weak) = (tasks.cancelled(), Arc::downgrade(&writer));
        tasks.start_graceful("metric-store", OnExit::Ignore, async move {
            cancel.cancelled().await;
            if let Some(writer) = weak.upgrade() {
                writer.close();
            }
        });
        Self::Inline(writer)
    }

    /// Brings a job to the writer, and waits while too many jobs are waiting.
    pub(super) async fn send(&self, job: Job) -> Result<(), Error> {
        match self {
            Self::Thread { commands, .. } => {
                commands.send(Command::Write(job)).await.map_err(|_| Error::Stopped)
            }
            Self::Inline(writer) => writer.run(job),
        }
    }

    /// Same as [`Jobs::send`], but returns [`Error::Busy`] if too many jobs are waiting.
    pub(super) fn try_send(&self, job: Job) -> Result<(), Error> {
        match self {
            Self::Thread { commands, .. } => {
                commands.try_send(Command::Write(job)).map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => Error::Busy,
                    mpsc::error::TrySendError::Closed(_) => Error::Stopped,
                })
            }
            Self::Inline(writer) => writer.run(job),
        }
    }
}

/// Writer thread, joined on drop: a process that exits while RocksDB is being closed crashes.
#[derive(Debug)]
pub(super) struct WriterThread(Option<JoinHandle<()>>);

impl Drop for WriterThread {
    fn drop(&mut self) {
        // A panic of the thread has been printed already.
        let _ended = self.0.take().map(JoinHandle::join);
    }
}

/// Writer that runs each job at once, as a group of one. `None` after the end of the store.
// Locked for the duration of one job.
#[derive(Debug)]
pub(super) struct InlineWriter(Mutex<Option<Writer>>);

impl InlineWriter {
    fn run(&self, job: Job) -> Result<(), Error> {
        let mut place = self.lock();
        // The writer of a job that panics does not come back, as a thread ends with a panic.
        let mut writer = place.take().ok_or(Error::Stopped)?;
        writer.run_group(job, || None);
        *place = Some(writer);
        Ok(())
    }

    fn close(&self) {
        if let Some(writer) = self.lock().take() {
            writer.shared.store.close_for_good();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Writer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InlineWriter {
    fn drop(&mut self) {
        self.close();
    }
}
