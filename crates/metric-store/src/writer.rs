//! Writer, the only one that writes: on a thread of its own, or on the callers' (`handle::jobs`).
//! Waiting jobs are written as one group and synced once; then all of them are answered.

mod fetched;
mod load;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::{
    Error, Options,
    apply::{self, Applied, Applier, Change, setting},
    buffered_minutes::BufferedMinutes,
    catalog::Catalog,
    entry::Entry,
    export_queue::Queue,
    history,
    key::{self, Setting, Table},
    log::{self, LogExtent},
    record,
    relaunch::LastLaunches,
    retention_clock::RetentionClock,
    store::{Store, View},
};
use load::{load_catalog, load_queue};
use stormkeeper_metrics::{Minute, Window, protocol::MetricMeta};
use stormkeeper_model::{LogPosition, Term, TopologyId, clock::Monotonic};
use stormkeeper_runtime::watch;

/// Maximum number of jobs in one group: a larger group would delay its first job.
const GROUP_MAX: usize = 64;

/// Pause between a failed write and the attempt to reopen the database.
const WRITE_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Interval of the search for expired topologies, in minutes.
const SWEEP_MINUTES: u32 = 60;

/// State that the writer and the readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) options: Options,
    // Read by every task, written by the writer for the duration of one change.
    pub(super) catalog: RwLock<Catalog>,
    // Lease for one step of the queue.
    pub(super) queue: Mutex<Queue>,
    // The log as it is on disk: its extent and its last entry.
    pub(super) log: Mutex<(LogExtent, LogPosition)>,
    // Reason of the last failed write; `None` after a write succeeds.
    pub(super) failure: Mutex<Option<String>>,
    pub(super) queue_changed: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log(&self) -> (LogExtent, LogPosition) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify_exporters(&self) {
        self.queue_changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Sends the response of a job, once the result of the group's sync is known.
pub(super) type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Job of the writer.
pub(super) type Job = Box<dyn FnOnce(&mut Writer) -> Finish + Send>;

pub(super) enum Command {
    Write(Job),
    /// Closes the store.
    Stop,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    /// Last written entry, which may not be synced yet.
    pub(super) last: LogPosition,
    next_meta: u64,
    extent: LogExtent,
    is_dirty: bool,
    queue_moved: bool,
    failed: Option<(String, Monotonic)>,
    swept: Minute,
    buffered: BufferedMinutes,
    retention_clock: RetentionClock,
    pub(super) launches: LastLaunches,
    #[cfg(feature = "injected-bugs")]
    pub(super) stored_in_term: super::leader_ops::StoredInTerm,
}

impl Writer {
    /// Loads the state in memory from disk.
    pub(super) fn load(shared: &Arc<Shared>) -> Result<Self, Error> {
        let clock = &shared.options.clock;
        let mut writer = Self {
            shared: Arc::clone(shared),
            last: LogPosition::default(),
            next_meta: 1,
            extent: LogExtent::default(),
            is_dirty: false,
            queue_moved: true,
            failed: None,
            swept: Minute(0),
            buffered: BufferedMinutes::default(),
            retention_clock: RetentionClock::new(None, Minute::of(clock.now()), clock.monotonic()),
            launches: LastLaunches::new(),
            #[cfg(feature = "injected-bugs")]
            stored_in_term: Default::default(),
        };
        writer.reload()?;
        Ok(writer)
    }

    fn reload(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let (now, monotonic) = (shared.options.clock.now(), shared.options.clock.monotonic());
        let (catalog, mut queue, before) = shared.store.with(|view| {
            self.last = setting(view, Setting::Last)?.unwrap_or_default();
            self.next_meta = setting(view, Setting::NextMeta)?.unwrap_or(1);
            self.extent = LogExtent::load(view, self.last, now)?;
            Ok((load_catalog(view)?, load_queue(view)?, setting(view, Setting::RetentionClock)?))
        })?;
        // A database of an earlier version has no such record: its latest points are not expired.
        let before = before.or_else(|| catalog.topologies().filter_map(|of| of.last).max());
        self.retention_clock = RetentionClock::new(before, Minute::of(now), monotonic);
        shared.store.set_now(self.retention_clock.at());
        *shared.catalog.write().unwrap_or_else(PoisonError::into_inner) = catalog;
        let mut held = shared.queue();
        queue.carry_over_leases(&mut held);
        *held = queue;
        drop(held);
        (self.is_dirty, self.queue_moved) = (false, true);
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        *self.shared.log.lock().unwrap_or_else(PoisonError::into_inner) = (self.extent.clone(), self.last);
        if std::mem::take(&mut self.queue_moved) {
            self.shared.notify_exporters();
        }
    }

    /// Runs jobs until it receives `Stop`, and closes the store.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut stop = false;
        while !stop && let Some(Command::Write(job)) = commands.blocking_recv() {
            self.run_group(job, || match commands.try_recv() {
                Ok(Command::Write(job)) => Some(job),
                Ok(Command::Stop) => {
                    stop = true;
                    None
                }
                Err(_) => None,
            });
        }
        self.shared.store.close_for_good();
        // Jobs that still wait fail, as their channel is closed.
    }

    /// Runs `first` and the jobs that `next` returns as one group: syncs once, then answers all.
    pub(super) fn run_group(&mut self, first: Job, mut next: impl FnMut() -> Option<Job>) {
        self.recover_after_write_failure();
        self.advance_clock();
        let mut finishes = vec![first(self)];
        while finishes.len() < GROUP_MAX
            && self.failed.is_none()
            && let Some(job) = next()
        {
            finishes.push(job(self));
        }
        self.finish_group(finishes);
    }

    fn advance_clock(&mut self) {
        let clock = &self.shared.options.clock;
        self.retention_clock.advance(Minute::of(clock.now()), clock.monotonic());
        self.shared.store.set_now(self.retention_clock.at());
    }

    fn finish_group(&mut self, finishes: Vec<Finish>) {
        if self.is_dirty && self.failed.is_none() {
            let synced = self.shared.store.with(|view| view.sync());
            self.record_failure(&synced);
        }
        if self.failed.is_none() {
            self.is_dirty = false;
            self.publish();
        }
        for finish in finishes {
            finish(self.check());
        }
    }

    /// Returns the error of the last failed write, if writes still fail.
    fn check(&self) -> Result<(), Error> {
        match &self.failed {
            None => Ok(()),
            Some((detail, _)) => {
                Err(Error::Write { path: self.shared.store.dir().to_owned(), detail: detail.clone() })
            }
        }
    }

    fn record_failure<T>(&mut self, done: &Result<T, Error>) {
        if let Err(Error::Write { detail, .. }) = done {
            error!(detail, "cannot write to the metric store: ingest pauses until a write succeeds");
            *self.shared.failure() = Some(detail.clone());
            self.failed = Some((detail.clone(), self.shared.options.clock.monotonic()));
        }
    }

    /// Reopens the database after a failed write and reloads the state in memory, which may be ahead
    /// of the disk. RocksDB accepts no write after a failed one.
    fn recover_after_write_failure(&mut self) {
        let now = self.shared.options.clock.monotonic();
        let Some((_, at)) = self.failed.as_ref().filter(|(_, at)| now.since(*at) >= WRITE_RETRY_PAUSE) else {
            return;
        };
        let at = *at;
        let recovered = match self.shared.store.probe_write() {
            Ok(()) => self.shared.store.reopen().and_then(|()| self.reload()),
            Err(error) => {
                let path = self.shared.store.dir().to_owned();
                Err(Error::Write { path, detail: error.to_string() })
            }
        };
        match recovered {
            Ok(()) => {
                info!(seconds = now.since(at).as_secs(), "the metric store accepts writes again");
                self.failed = None;
                *self.shared.failure() = None;
            }
            Err(error) => {
                warn!(%error, "still cannot write to the metric store; retrying");
                self.failed = Some((error.to_string(), now));
                *self.shared.failure() = Some(error.to_string());
            }
        }
    }

    /// Appends an entry as the leader of `term`.
    pub(super) fn append(&mut self, term: Term, entry: &Entry) -> Result<Applied, Error> {
        self.check_term_and_exporters(term)?;
        self.write(LogPosition { term: term.0, index: self.last.index + 1 }, entry, &entry.encode())
    }

    /// Checks that `term` is not over, and that the exporters are those of this leader.
    pub(super) fn check_term_and_exporters(&mut self, term: Term) -> Result<(), Error> {
        if term.0 < self.last.term {
            return Err(Error::StaleTerm { term, last: Term(self.last.term) });
        }
        self.check()?;
        let wanted: BTreeSet<&str> = self.shared.options.exporters.iter().map(String::as_str).collect();
        if self.shared.queue().exporters().collect::<BTreeSet<_>>() != wanted {
            let entry = Entry::Exporters(wanted.into_iter().map(str::to_owned).collect());
            self.write(LogPosition { term: term.0, index: self.last.index + 1 }, &entry, &entry.encode())?;
        }
        Ok(())
    }

    /// Appends an entry received from a leader.
    pub(super) fn append_replicated(&mut self, at: LogPosition, bytes: &[u8]) -> Result<(), Error> {
        if at.index != self.last.index + 1 || at.term < self.last.term {
            return Err(Error::NotNext { found: at, last: self.last });
        }
        let entry = Entry::decode(at, bytes)?;
        self.write(at, &entry, bytes).map(|_| ())
    }

    fn write(&mut self, at: LogPosition, entry: &Entry, bytes: &[u8]) -> Result<Applied, Error> {
        self.check()?;
        let shared = Arc::clone(&self.shared);
        let max = (shared.options.log_bytes_max, shared.options.log_age_max);
        let (extent, truncation) = self.extent.with(at, bytes.len() as u64, shared.options.clock.now(), max);
        let written = shared.store.with(|view| {
            let mut batch = view.batch();
            let applied = self.applier(view).apply(entry, &mut batch)?;
            batch.put(Table::Log, &key::log(at.index), &log::stored(at.term, bytes));
            batch.put(Table::State, &key::setting(Setting::Last), &record::encode(&at));
            batch.put(
                Table::State,
                &key::setting(Setting::RetentionClock),
                &record::encode(&self.retention_clock.at()),
            );
            extent.write(&truncation, &mut batch);
            view.write(batch)?;
            Ok(applied)
        });
        self.record_failure(&written);
        let mut applied = written?;
        (self.last, self.extent, self.is_dirty) = (at, extent, true);
        self.commit(std::mem::take(&mut applied.changes));
        if let Entry::Batch { minute, .. } = entry
            && self.buffered.add(*minute)
        {
            // The entry is written: a failure shows at the next write.
            if let Err(error) = self.shared.store.with(|view| view.start_flush(Table::Points)) {
                debug!(%error, "cannot write the buffer of points to a file");
            }
        }
        Ok(applied)
    }

    fn applier<'a>(&'a self, view: &'a View<'a>) -> Applier<'a> {
        let Shared { catalog, queue, .. } = &*self.shared;
        Applier { view, catalog, queue, next_meta: self.next_meta }
    }

    fn commit(&mut self, changes: Vec<Change>) {
        for change in &changes {
            match change {
                Change::NextMeta(next) => self.next_meta = *next,
                Change::Queue(_) => self.queue_moved = true,
                Change::MetaAdded(_)
                | Change::MetaRemoved(_)
                | Change::TopologyRemoved(_)
                | Change::Last(..)
                | Change::Drops(..) => {}
            }
        }
        apply::commit(changes, &self.shared.catalog, &self.shared.queue);
    }

    /// Closes minutes, and removes expired topologies.
    pub(super) fn close_minutes(&mut self, term: Term, through: Minute) -> Result<usize, Error> {
        let options = &self.shared.options;
        let now = self.retention_clock.at();
        let sweeps = now.0 / SWEEP_MINUTES != self.swept.0 / SWEEP_MINUTES;
        let (reports_kept, kept) =
            (options.retention.minutes(Window::M1), options.retention.longest_minutes());
        let entry = Entry::Close {
            through,
            per_topology_max: options.pending_per_topology_max as u64,
            bytes_max: options.pending_bytes_max,
            reports_before: sweeps.then(|| now.minus(reports_kept)),
        };
        let n_readied = self.append(term, &entry)?.n_readied;
        if sweeps {
            self.swept = now;
            for topology in self.expired(now.minus(kept))? {
                info!(%topology, "all metrics of the topology have expired; removing its metrics and history");
                self.append(term, &Entry::Forget { topology, ids: None })?;
            }
        }
        Ok(n_readied)
    }

    /// Returns topologies whose last points are of a minute before `oldest`, and topologies without
    /// points that were killed before it.
    fn expired(&self, oldest: Minute) -> Result<BTreeSet<TopologyId>, Error> {
        let killed = self.shared.store.with(|view| history::killed_before(view, oldest))?;
        let catalog = self.shared.catalog();
        let had_points = |id: &TopologyId| catalog.topology(id).is_some_and(|of| of.last.is_some());
        let silent = killed.into_iter().filter(|id| !had_points(id));
        let over = catalog.topologies().filter(|of| of.last.is_some_and(|last| last < oldest));
        Ok(over.map(|of| of.id.clone()).chain(silent).collect())
    }

    /// Returns the registration number of an exporter's last meta.
    pub(super) fn registered_through(&self, metas: &[MetricMeta]) -> Result<u64, Error> {
        self.shared.store.with(|view| history::registered_through(view, metas))
    }
}
