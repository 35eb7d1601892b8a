//! Handle of the metric store, for the other modules of nimbus: opening, jobs and readers.

mod follow;
mod lead;
mod queries;
mod uploads;

use std::{
    path::Path,
    sync::{Arc, Mutex, RwLock},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    Error, Options,
    catalog::Catalog,
    log::LogExtent,
    queue::Queue,
    store::{Store, View},
    writer::{Command, Finish, Shared, Writer},
};
use stormkeeper_model::LogPosition;
use stormkeeper_runtime::{
    blocking,
    tasks::{OnExit, Tasks},
    watch,
};

/// Maximum number of jobs that wait for the writer. A group of jobs takes some tens of milliseconds.
const JOBS_MAX: usize = 256;

/// Pause between attempts to send `Stop` while the writer's channel is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Maximum number of points that wait for the writer, all batches together: some 400 MiB.
const POINTS_MAX: usize = 4_000_000;

/// Maximum number of concurrent readers: each one blocks a thread.
const READERS_MAX: usize = 8;

/// Metric store of one nimbus. Clones share the store; the last one closes it, unless it is closed
/// already, and blocks for that time.
#[derive(Debug, Clone)]
pub struct MetricStore {
    pub(super) shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    readers: Arc<Semaphore>,
    points: Arc<Semaphore>,
    // After `commands`: fields are dropped in this order, and the thread ends when the last sender
    // of commands is dropped.
    _writer: Arc<WriterThread>,
}

/// Writer thread, joined on drop: a process that exits while RocksDB is being closed crashes.
#[derive(Debug)]
struct WriterThread(Option<JoinHandle<()>>);

impl Drop for WriterThread {
    fn drop(&mut self) {
        // A panic of the thread has been printed already.
        let _ended = self.0.take().map(JoinHandle::join);
    }
}

impl MetricStore {
    /// Opens the store in `dir`, and creates it if there is none. Blocks while RocksDB opens. The
    /// store is closed when `tasks` end.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corrupt`], [`Error::Version`] and [`Error::Open`], whose texts say
    /// what to do. The data is unchanged then.
    pub fn open(dir: &Path, options: Options, tasks: &Tasks) -> Result<Self, Error> {
        let store = Store::open(dir, &options)?;
        let shared = Arc::new(Shared {
            store,
            options,
            catalog: RwLock::new(Catalog::default()),
            queue: Mutex::new(Queue::default()),
            log: Mutex::new((LogExtent::default(), LogPosition::default())),
            failure: Mutex::new(None),
            queue_changed: watch::Sender::new(0),
        });
        let writer = Writer::load(&shared)?;
        let (commands, receiver) = mpsc::channel(JOBS_MAX);
        let (ended, has_ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || {
                let _ended: oneshot::Sender<()> = ended;
                writer.run(receiver);
            })
            .map_err(|error| Error::Open { path: dir.to_owned(), detail: error.to_string() })?;
        let (cancel, stop) = (tasks.cancelled(), commands.downgrade());
        tasks.start_graceful("archive", OnExit::Ignore, async move {
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
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        let (points, writer) = (Arc::new(Semaphore::new(POINTS_MAX)), Arc::new(WriterThread(Some(thread))));
        Ok(Self { shared, commands, readers, points, _writer: writer })
    }

    /// Runs a job on the writer, and returns its result once it is on disk.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (job, answer) = job(work);
        self.commands.send(job).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// Same as `write`, but returns [`Error::Busy`] if the writer's channel is full.
    async fn write_or_refuse<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (job, answer) = job(work);
        self.commands.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &View<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| Error::Stopped)?;
        let shared = Arc::clone(&self.shared);
        blocking::run(move || {
            let _permit = permit;
            shared.store.with(|view| work(&shared, view))
        })
        .await
    }
}

/// Makes a job for the writer, and the receiver of its result.
fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
) -> (Command, oneshot::Receiver<Result<T, Error>>) {
    let (reply, answer) = oneshot::channel();
    let job = move |writer: &mut Writer| -> Finish {
        let done = work(writer);
        Box::new(move |synced: Result<(), Error>| {
            // The caller may have been dropped.
            let _heard = reply.send(done.and_then(|done| synced.map(|()| done)));
        })
    };
    (Command::Write(Box::new(job)), answer)
}
