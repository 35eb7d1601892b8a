//! Handle of the metric store, for the other modules of nimbus: opening, jobs and readers.

mod export;
mod follow;
mod jobs;
mod lead;
mod queries;

use std::{
    path::Path,
    sync::{Arc, Mutex, RwLock},
};

use tokio::sync::{Semaphore, oneshot};

use super::{
    Error, Options,
    catalog::Catalog,
    export_queue::Queue,
    log::LogExtent,
    store::{Store, View},
    writer::{Finish, Job, Shared, Writer},
};
use jobs::Jobs;
use stormkeeper_model::LogPosition;
use stormkeeper_runtime::{blocking, tasks::Tasks, watch};

/// Maximum number of points that wait for the writer, all batches together: some 400 MiB.
const POINTS_MAX: usize = 4_000_000;

/// Maximum number of concurrent readers: each one blocks a thread.
const READERS_MAX: usize = 8;

/// Metric store of one nimbus. Clones share the store; the last one closes it, unless it is closed
/// already, and blocks for that time.
#[derive(Debug, Clone)]
pub struct MetricStore {
    pub(super) shared: Arc<Shared>,
    jobs: Jobs,
    readers: Arc<Semaphore>,
    points: Arc<Semaphore>,
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
        let jobs = Jobs::start(writer, dir, tasks)?;
        let [readers, points] = [READERS_MAX, POINTS_MAX].map(|max| Arc::new(Semaphore::new(max)));
        Ok(Self { shared, jobs, readers, points })
    }

    /// Runs a job on the writer, and returns its result once it is on disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (job, answer) = job(work);
        self.jobs.send(job).await?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// Same as `write`, but returns [`Error::Busy`] if too many jobs are waiting.
    async fn write_or_refuse<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (job, answer) = job(work);
        self.jobs.try_send(job)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    pub(super) async fn read<T: Send + 'static>(
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
) -> (Job, oneshot::Receiver<Result<T, Error>>) {
    let (reply, answer) = oneshot::channel();
    let job = move |writer: &mut Writer| -> Finish {
        let done = work(writer);
        Box::new(move |synced: Result<(), Error>| {
            // The caller may have been dropped.
            let _heard = reply.send(done.and_then(|done| synced.map(|()| done)));
        })
    };
    (Box::new(job), answer)
}
