//! The archive as the rest of nimbus sees it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    Error, Event, Fingerprint, HistoryEntry, LatestPage, LatestQuery, Options, PayloadPage, QueueStatus,
    Status, Taken, TrackEntry, Upload, UploadKey,
    catalog::Catalog,
    entry::Entry,
    history,
    key::Table,
    leading,
    log::{self, Shape},
    queue::{Flow, Queue},
    store::{Store, View},
    told,
    writer::{Command, Finish, Shared, Writer},
};
use crate::{
    daemon::{
        blocking,
        tasks::{Ending, Tasks},
        watch,
    },
    metrics::{Contribution, MetaType, MetricId, Minute, Point, Window},
    model::{TaskId, Term, TopologyId, TopologyName},
    rpc::metrics::{
        LogPage, LogQuery, Meta, MetaPage, MetaQuery, NAMES_MAX, Position, RegisterAnswer, RegisterRequest,
    },
};

/// The most jobs that wait for the writer. A group of them takes some tens of milliseconds.
const JOBS_MAX: usize = 256;

/// How long the archive waits to be told to close while too many jobs wait for the writer.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The most points that wait for the writer, all contributions together: some 400 MiB.
const POINTS_MAX: usize = 4_000_000;

/// The most readers at once: they are on threads that block.
const READERS_MAX: usize = 8;

/// The most events or ids of one entry.
const AT_ONCE_MAX: usize = 10_000;

/// The metric memory of one nimbus. Clones are the same archive; the last one closes it, if it is
/// not closed yet, and blocks for as long as that takes.
#[derive(Debug, Clone)]
pub struct Archive {
    pub(super) shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    readers: Arc<Semaphore>,
    points: Arc<Semaphore>,
    // Behind `commands`: fields are dropped in this order, and the thread ends with the last of
    // those.
    _writer: Arc<WriterThread>,
}

/// The writer's thread, waited for: a process that ends while RocksDB is being closed crashes.
#[derive(Debug)]
struct WriterThread(Option<JoinHandle<()>>);

impl Drop for WriterThread {
    fn drop(&mut self) {
        // Should it have panicked, it has said so.
        let _ended = self.0.take().map(JoinHandle::join);
    }
}

impl Archive {
    /// Opens the archive in `dir`, and makes it when there is none. Blocks while RocksDB opens.
    /// It is closed when `tasks` end.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corrupt`], [`Error::Version`] and [`Error::Open`], which say
    /// what to do. Nothing is changed then.
    pub fn open(dir: &Path, options: Options, tasks: &Tasks) -> Result<Self, Error> {
        let store = Store::open(dir, &options)?;
        let shared = Arc::new(Shared {
            store,
            options,
            catalog: RwLock::new(Catalog::default()),
            queue: Mutex::new(Queue::default()),
            log: Mutex::new((Shape::default(), Position::default())),
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
        tasks.start_graceful("archive", Ending::Normal, async move {
            cancel.cancelled().await;
            // A sender must not be held while this waits: the writer ends with the last of them.
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

    /// Has the writer do something, and answers when it is on disk.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (job, answer) = job(work);
        self.commands.send(job).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// The same, unless too much waits.
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

    // ------------------------------------------------------------------ as the leader of a term

    /// Makes names known. Registering one again changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`NAMES_MAX`] names, [`Error::Busy`],
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn register(&self, term: Term, request: RegisterRequest) -> Result<RegisterAnswer, Error> {
        if request.claims.len() > NAMES_MAX {
            let n = request.claims.len();
            return Err(Error::Invalid(format!(
                "{n} names in one registration; at most {NAMES_MAX} are taken"
            )));
        }
        self.write_or_refuse(move |writer| leading::register(writer, term, &request)).await
    }

    /// Takes in a contribution, as a whole or not at all; one that was taken before is not
    /// taken again.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one without sense, [`Error::Busy`], [`Error::StaleTerm`],
    /// [`Error::Write`].
    pub async fn contribute(&self, term: Term, contribution: Contribution) -> Result<Taken, Error> {
        let n_points = u32::try_from(contribution.points.len()).unwrap_or(u32::MAX);
        let permit =
            Arc::clone(&self.points).try_acquire_many_owned(n_points.max(1)).map_err(|_| Error::Busy)?;
        self.write_or_refuse(move |writer| {
            let taken = leading::contribute(writer, term, contribution);
            drop(permit);
            taken
        })
        .await
    }

    /// Makes all minutes up to `through` ready to be uploaded, and lets go what is expired.
    /// Answers how many entries the upload queue has more. To be called once a minute.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn close_minutes(&self, term: Term, through: Minute) -> Result<usize, Error> {
        self.write(move |writer| writer.close_minutes(term, through)).await
    }

    /// Takes events into the track of tasks and the history of topologies. What was told before
    /// changes nothing.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn tell(&self, term: Term, events: Vec<Event>) -> Result<(), Error> {
        self.write(move |writer| {
            for events in events.chunks(AT_ONCE_MAX) {
                writer.append(term, &Entry::Events(events.to_vec()))?;
            }
            Ok(())
        })
        .await
    }

    /// Lets go metas of a topology. Their history goes with its time; a contribution to one of
    /// them is answered by [`Taken::Unregistered`].
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn forget(&self, term: Term, ids: (TopologyId, Vec<MetricId>)) -> Result<(), Error> {
        let (topology, ids) = ids;
        self.write(move |writer| {
            for ids in ids.chunks(AT_ONCE_MAX) {
                writer
                    .append(term, &Entry::Forget { topology: topology.clone(), ids: Some(ids.to_vec()) })?;
            }
            Ok(())
        })
        .await
    }

    // ---------------------------------------------------------------- the queue, as the leader

    fn flow(&self) -> Flow {
        let options = &self.shared.options;
        Flow {
            uploading_max: options.uploading_max,
            timeout: options.upload_timeout,
            pause: options.upload_pause,
        }
    }

    /// The oldest ready entry that the uploader has not acknowledged; none when there is none,
    /// when it has as many as it may, or when it is to rest after it refused one. What becomes
    /// ready by time alone wakes nobody: ask again every now and then.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn next_upload(&self, uploader: &str) -> Result<Option<Upload>, Error> {
        let now = self.shared.options.clock.monotonic();
        Ok(self.shared.queue().next(uploader, now, self.flow()))
    }

    /// The uploader has uploaded it. Saying so again changes nothing.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`]: it will be uploaded again.
    pub async fn ack(&self, term: Term, uploader: &str, upload: UploadKey) -> Result<(), Error> {
        let (uploader, seq) = (uploader.to_owned(), upload.seq);
        self.write(move |writer| {
            if !writer.shared.queue().ack(&uploader, seq).is_empty() {
                writer.append(term, &Entry::Ack { uploader: uploader.clone(), seq })?;
            }
            writer.shared.queue().let_go(&uploader, seq);
            Ok(())
        })
        .await
    }

    /// The uploader could not upload it: it gets it again after a pause.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn nack(&self, uploader: &str, upload: UploadKey, reason: &str) -> Result<(), Error> {
        let now = self.shared.options.clock.monotonic();
        self.shared.queue().nack(uploader, upload.seq, now, self.flow(), reason);
        self.shared.tell_uploaders();
        Ok(())
    }

    /// What an upload holds, of the levels in `filter`, or of all when it is empty.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn payload(
        &self,
        key: &UploadKey,
        filter: &[MetaType],
        after: Option<MetricId>,
        limit: usize,
    ) -> Result<PayloadPage, Error> {
        let (key, filter) = (key.clone(), filter.to_vec());
        self.read(move |_, view| history::payload(view, &key, &filter, after, limit)).await
    }

    /// The oldest metas that the uploader does not know; none for one that is not an uploader.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn metas_since(&self, uploader: &str, limit: usize) -> Result<Vec<Meta>, Error> {
        let Some(n) = self.shared.queue().metas_known_by(uploader) else { return Ok(Vec::new()) };
        self.read(move |_, view| history::registered_after(view, n, limit)).await
    }

    /// The uploader knows these, and all that were registered before them.
    ///
    /// # Errors
    /// [`Error::StaleTerm`], [`Error::Write`].
    pub async fn ack_metas(&self, term: Term, uploader: &str, metas: &[Meta]) -> Result<(), Error> {
        let (uploader, metas) = (uploader.to_owned(), metas.to_vec());
        self.write(move |writer| {
            let through = writer.registered_through(&metas)?;
            let known = writer.shared.queue().metas_known_by(&uploader);
            if known.is_some_and(|known| known < through) {
                writer.append(term, &Entry::AckMetas { uploader, through })?;
            }
            Ok(())
        })
        .await
    }

    /// Changes whenever there may be something to upload.
    pub fn queue_changed(&self) -> watch::Receiver<u64> {
        self.shared.queue_changed.subscribe()
    }

    /// How the queue stands.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn queue_status(&self) -> Result<QueueStatus, Error> {
        Ok(self.shared.queue().status())
    }

    // -------------------------------------------------------------------- reads, on any nimbus

    /// Metas of a topology, page by page.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn metas(&self, query: MetaQuery) -> Result<MetaPage, Error> {
        self.read(move |_, view| history::metas(view, &query)).await
    }

    /// The meta of one metric.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn meta(&self, id: MetricId) -> Result<Option<Meta>, Error> {
        self.read(move |shared, view| Ok(leading::name_of(shared, view, id)?.map(|name| Meta { id, name })))
            .await
    }

    /// Count and digest of a topology's metas; of none when it is not known.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn fingerprint(&self, topology: &TopologyId) -> Result<Fingerprint, Error> {
        Ok(self.shared.catalog().fingerprint(topology))
    }

    /// The history of one metric: the buckets of `window` that begin in `from..=to`, the oldest
    /// `limit` of them. Ask again from after the last one for more.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn points(
        &self,
        id: MetricId,
        window: Window,
        from: Minute,
        to: Minute,
        limit: usize,
    ) -> Result<Vec<(Minute, Point)>, Error> {
        self.read(move |shared, view| {
            let Options { clock, retention, .. } = &shared.options;
            let from = history::kept(from, window, clock.now(), retention.minutes(window));
            history::points(view, id, window, (from, to), limit)
        })
        .await
    }

    /// One metric over the `window` that ends with the minute `end`, to the minute.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn window(&self, id: MetricId, window: Window, end: Minute) -> Result<Option<Point>, Error> {
        self.read(move |_, view| history::window(&mut view.cursor(Table::Points), id, window, end)).await
    }

    /// Metrics of a topology as they were last, page by page.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn latest(&self, query: LatestQuery) -> Result<LatestPage, Error> {
        self.read(move |_, view| history::latest(view, &query)).await
    }

    /// Where the tasks of a topology ran, or one of them; by task, the first place first. With
    /// more than `limit` entries the first are left out.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn track(
        &self,
        topology: &TopologyId,
        task: Option<TaskId>,
        limit: usize,
    ) -> Result<Vec<TrackEntry>, Error> {
        let topology = topology.clone();
        self.read(move |_, view| history::track(view, &topology, task, limit)).await
    }

    /// The last topologies, those of `name` or all; the last first.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn history(
        &self,
        name: Option<&TopologyName>,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, Error> {
        let name = name.cloned();
        self.read(move |_, view| history::history(view, name.as_ref(), limit)).await
    }

    /// One topology, from its submission on; none that is not known, or is forgotten.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn topology(&self, id: &TopologyId) -> Result<Option<HistoryEntry>, Error> {
        let id = id.clone();
        self.read(move |_, view| told::history_of(view, &id)).await
    }

    /// Every topology that has metas, dead ones too.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn topologies(&self) -> Result<Vec<TopologyId>, Error> {
        let catalog = self.shared.catalog();
        let with_metas = catalog.topologies().filter(|of| of.fingerprint.count > 0);
        Ok(with_metas.map(|of| of.id.clone()).collect())
    }

    /// How the archive stands.
    ///
    /// # Errors
    /// None so far; the archive may be closed.
    pub async fn status(&self) -> Result<Status, Error> {
        // Also while nothing can be read: then it says why.
        let bytes = self.read(|_, view| Ok(view.bytes())).await.unwrap_or_default();
        let (shape, position) = self.shared.log();
        let catalog = self.shared.catalog();
        let with_drops = catalog.topologies().filter(|of| !of.drops.is_empty());
        Ok(Status {
            bytes,
            position,
            log_from: shape.base.seq + 1,
            log_bytes: shape.bytes(),
            metas: catalog.len() as u64,
            drops: with_drops.map(|of| (of.id.clone(), of.drops.clone())).collect(),
            failure: self.shared.failure().clone(),
        })
    }

    // ------------------------------------------------------------------------------- following

    /// The last entry of the log that is on disk.
    pub fn position(&self) -> Position {
        self.shared.log().1
    }

    /// The entries after those that a follower has.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn log_after(&self, query: &LogQuery) -> Result<LogPage, Error> {
        let query = query.clone();
        self.read(move |shared, view| {
            let (shape, last) = shared.log();
            log::after(view, shape.base, last, &query)
        })
        .await
    }

    /// Takes over entries of the leader, in order from the end of the log on. Answers the last
    /// one that is on disk.
    ///
    /// # Errors
    /// [`Error::NotNext`], [`Error::Unreadable`]: those before the bad one are taken.
    /// [`Error::Write`].
    pub async fn apply(&self, entries: Vec<(Position, Vec<u8>)>) -> Result<Position, Error> {
        self.write(move |writer| {
            for (at, bytes) in &entries {
                writer.follow(*at, bytes)?;
            }
            Ok(writer.last)
        })
        .await
    }

    /// Makes a copy of the whole archive in `dir`, which must not exist. What it holds on the
    /// same file system costs no room.
    ///
    /// # Errors
    /// [`Error::Write`], with the directory.
    pub async fn checkpoint(&self, dir: PathBuf) -> Result<(), Error> {
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| Error::Stopped)?;
        let shared = Arc::clone(&self.shared);
        blocking::run(move || {
            let _permit = permit;
            shared.store.checkpoint(&dir)
        })
        .await
    }

    /// Goes on with the copy in `dir`, which is moved away from there; it must be on the file
    /// system of the archive. What this nimbus had is gone.
    ///
    /// # Errors
    /// Those of [`Archive::open`]; then the archive is as it was.
    pub async fn replace_with(&self, dir: PathBuf) -> Result<(), Error> {
        self.write(move |writer| writer.replace_with(&dir)).await
    }

    /// Makes the metas of a topology equal to `metas`, which a follower has from the leader.
    ///
    /// # Errors
    /// [`Error::Invalid`] for metas of another topology, [`Error::Write`].
    pub async fn replace_metas(&self, topology: &TopologyId, metas: Vec<Meta>) -> Result<(), Error> {
        let topology = topology.clone();
        self.write(move |writer| writer.replace_metas(&topology, &metas)).await
    }

    /// Lets go what is expired at once, instead of when RocksDB comes to it. It takes long, and
    /// is there for operators and tests.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub async fn tidy_up(&self) -> Result<(), Error> {
        self.read(|_, view| {
            // Twice: what is merged in the first is looked at in the second.
            view.compact(Table::Points);
            view.compact(Table::Points);
            Ok(())
        })
        .await
    }
}

/// Work for the writer, and where its answer comes.
fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Writer) -> Result<T, Error> + Send + 'static,
) -> (Command, oneshot::Receiver<Result<T, Error>>) {
    let (reply, answer) = oneshot::channel();
    let job = move |writer: &mut Writer| -> Finish {
        let done = work(writer);
        Box::new(move |synced: Result<(), Error>| {
            // Whoever asked may have gone.
            let _heard = reply.send(done.and_then(|done| synced.map(|()| done)));
        })
    };
    (Command::Write(Box::new(job)), answer)
}
