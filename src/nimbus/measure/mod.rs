//! Metrics on a nimbus: taken in by the leader, followed by the others, sent on.
//!
//! ```text
//!  masters, supervisors ─ HTTP ─▶ intake ─▶ Archive ◀─ close, flush, tell, upload (leading)
//!                                             ▲
//!                     other nimbuses ─ HTTP ──┴─ follow, agree (following), succeed (between)
//! ```
//!
//! - Nothing here holds up the rest of nimbus: its tasks are a set of their own, one that
//!   panics starts again, and an archive that cannot be opened is tried again while nimbus runs
//!   without metrics.
//! - What is safe is marked in the tree before anyone is told (`mark`). Whoever leads first takes
//!   what other nimbuses have beyond its own (`succeed`), and waits for those that have safe
//!   entries which it lacks (`takeover`). So what was called safe is there under the next leader.
//! - While it leads nothing but its own entries goes into its archive, and while it follows
//!   nothing but its leader's: `Shared::hand` is held by whoever writes others' entries.
//!
//! Start reading at `lead`, which starts what a leader does.

mod agree;
mod asked;
mod checkpoint;
mod close;
mod flush;
mod follow;
mod intake;
mod lead;
mod mark;
mod open;
mod options;
mod own;
mod past;
mod process;
mod safe;
mod status;
mod succeed;
mod takeover;
mod tell;
#[cfg(test)]
mod tests;
mod track;
mod upload;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    archive::Archive,
    clock::Clock,
    cluster::{
        archive::ArchiveRecord, observer::Observation, record::Leader, store::Store, view::ClusterView,
    },
    daemon::{
        tasks::{Ending, Tasks},
        watch,
    },
    metrics::name::{CLUSTER, NIMBUS, SUPERVISOR},
    model::{NimbusId, Position, Term, TopologyId},
    nimbus::refusal::Refusal,
    plugin::{self, MetricQueryClient, MetricUploader, WhoLeads},
    rpc::{
        metrics_client::{MetricsClient, MetricsError},
        metrics_sync::{MetricsSync, SyncError},
    },
};
use safe::Acks;
use status::Counts;

pub use checkpoint::Checkpoint;
pub use options::{MetricOptions, Pace};
pub use status::{CountsNow, Doing, Lag, MeasureStatus, Stage, UploaderState};

/// How long the tasks may take to end: uploaders clean up, RocksDB closes.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long a part that panicked is left alone.
const RESTART: Duration = Duration::from_secs(30);

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A plugin cannot be made.
    #[error(transparent)]
    Plugin(#[from] plugin::Error),
    /// Other nimbuses cannot be asked.
    #[error("other nimbuses cannot be asked for metrics")]
    Sync(#[from] SyncError),
    /// The leader cannot be told of this nimbus' own metrics.
    #[error("nimbus cannot bring its own metrics to a leader")]
    Client(#[from] MetricsError),
}

/// The metrics of one nimbus. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Measure {
    shared: Arc<Shared>,
}

/// Who it is, and what it sees.
pub(super) struct Setup {
    pub(super) me: NimbusId,
    pub(super) host: String,
    /// Where others reach its API.
    pub(super) api: String,
    pub(super) local_dir: PathBuf,
    pub(super) clock: Clock,
    pub(super) observations: watch::Receiver<Observation>,
    pub(super) store: Store,
}

struct Shared {
    setup: Setup,
    options: Arc<MetricOptions>,
    door: watch::Sender<Door>,
    /// Why the archive cannot be opened; none while it is open, and before it was tried.
    closed: watch::Sender<Option<String>>,
    stage: watch::Sender<(Stage, Option<Term>)>,
    /// Held while another nimbus' entries are written into the archive.
    hand: tokio::sync::Mutex<()>,
    /// Held for as long as the tasks of one leadership run.
    baton: tokio::sync::Mutex<()>,
    sync: MetricsSync,
    uploaders: Vec<Arc<dyn MetricUploader>>,
    query: Arc<dyn MetricQueryClient>,
    gate: intake::Gate,
    checkpoints: Arc<Semaphore>,
    counts: Counts,
    own: own::Own,
    client: MetricsClient,
    /// Wakes the leader when there may be more that is safe.
    stored: Notify,
    // Each of the four guards a few values, held for a few instructions.
    acks: Mutex<Acks>,
    mark: Mutex<ArchiveRecord>,
    progress: Mutex<Progress>,
    states: Mutex<BTreeMap<String, UploaderState>>,
    tasks: Tasks,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measure").field("nimbus", &self.setup.me).finish_non_exhaustive()
    }
}

/// Whether there is an archive.
#[derive(Debug, Clone)]
enum Door {
    /// Not now, and why.
    Closed(String),
    Open(Archive),
}

/// How following goes.
#[derive(Debug, Default)]
struct Progress {
    leader: Option<Position>,
    level_at: Option<crate::model::Timestamp>,
    trouble: Option<String>,
}

/// Whether `id` is one that daemons' own metrics stand under, and no topology.
pub(super) fn is_of_daemons(id: &TopologyId) -> bool {
    [CLUSTER, NIMBUS, SUPERVISOR].contains(&id.as_str())
}

impl Measure {
    /// Starts what every nimbus does about metrics; it ends with `owner`.
    pub(super) fn start(setup: Setup, options: &MetricOptions, owner: &Tasks) -> Result<Self, Error> {
        let leader = Arc::new(Leads(setup.observations.clone()));
        let sync = MetricsSync::new()?;
        let mut uploaders = plugin::uploaders(&options.plugins)?;
        uploaders.extend(options.more_uploaders.iter().cloned());
        let shared = Shared {
            query: plugin::query_client(&options.plugins, leader)?,
            options: Arc::new(options.clone()),
            door: watch::Sender::new(Door::Closed("the metrics archive is being opened".to_owned())),
            closed: watch::Sender::new(None),
            stage: watch::Sender::new((Stage::Following, None)),
            hand: tokio::sync::Mutex::new(()),
            baton: tokio::sync::Mutex::new(()),
            sync,
            uploaders,
            gate: intake::Gate::new(),
            checkpoints: Arc::new(Semaphore::new(checkpoint::AT_ONCE)),
            counts: Counts::default(),
            own: own::Own::new(&setup.host, &setup.api, setup.clock.monotonic()),
            client: MetricsClient::new(setup.store.clone())?,
            stored: Notify::new(),
            acks: Mutex::default(),
            mark: Mutex::default(),
            progress: Mutex::default(),
            states: Mutex::default(),
            tasks: owner.child(),
            setup,
        };
        let measure = Self { shared: Arc::new(shared) };
        let tasks = &measure.shared.tasks;
        let cancelled = tasks.cancelled();
        let opening = measure.clone();
        tasks.start_graceful("metric-archive", Ending::Normal, open::keep_open(opening, cancelled));
        let parts = measure.clone();
        tasks.start(
            "metric-following",
            Ending::Normal,
            kept("following", move || follow::follow(parts.clone())),
        );
        let parts = measure.clone();
        tasks.start(
            "metric-metas",
            Ending::Normal,
            kept("the check of metas", move || agree::agree(parts.clone())),
        );
        let parts = measure.clone();
        tasks.start(
            "metric-own",
            Ending::Normal,
            kept("nimbus' own metrics", move || own::measure(parts.clone())),
        );
        Ok(measure)
    }

    /// Ends everything, and closes the archive.
    pub(super) async fn stop(&self) {
        if !self.shared.tasks.stop(STOP_PATIENCE).await {
            error!("metrics did not end in time; what was acknowledged is on the disk");
        }
    }

    /// Its tasks.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    /// The archive, when it is open.
    pub(super) fn archive(&self) -> Result<Archive, Refusal> {
        match &*self.shared.door.borrow() {
            Door::Open(archive) => Ok(archive.clone()),
            Door::Closed(reason) => Err(Refusal::NoMetrics { reason: reason.clone() }),
        }
    }

    /// Why the archive cannot be opened, while that is so.
    pub(super) fn closed(&self) -> watch::Receiver<Option<String>> {
        self.shared.closed.subscribe()
    }

    /// Waits until the archive is open.
    async fn opened(&self) -> Archive {
        let mut door = self.shared.door.subscribe();
        loop {
            if let Door::Open(archive) = &*door.borrow_and_update() {
                return archive.clone();
            }
            if door.changed().await.is_err() {
                // The sender lives as long as we do.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The cluster as it was last seen, and whether that is of now.
    fn view(&self) -> (Arc<ClusterView>, bool) {
        let observation = self.shared.setup.observations.borrow();
        (Arc::clone(&observation.view), observation.fresh)
    }

    fn acks(&self) -> MutexGuard<'_, Acks> {
        self.shared.acks.lock().expect("no one panics while holding acknowledgements")
    }

    /// The mark, as this nimbus read and wrote it while it led.
    fn mark(&self) -> MutexGuard<'_, ArchiveRecord> {
        self.shared.mark.lock().expect("no one panics while holding the mark")
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.shared.progress.lock().expect("no one panics while holding progress")
    }

    /// The leader, when it is another nimbus.
    fn leader(&self) -> Option<Leader> {
        let (view, _) = self.view();
        view.leader.clone().filter(|leader| leader.nimbus != self.shared.setup.me)
    }

    /// Up to where the log would survive the loss of this leader with its disk: as it is marked,
    /// which stays true for ever.
    fn safe(&self) -> Position {
        self.mark().safe
    }

    /// What each live nimbus has of this leader's log.
    fn followers(&self) -> BTreeMap<NimbusId, Position> {
        let (view, _) = self.view();
        let live = view.nimbuses.keys().filter(|id| **id != self.shared.setup.me);
        self.acks().of(live)
    }

    /// What went wrong last with following or taking over.
    fn trouble(&self) -> Option<String> {
        // One that takes metrics in follows no one.
        let follows = self.shared.stage.borrow().0 != Stage::Leading;
        self.progress().trouble.clone().filter(|_| follows)
    }

    /// How metrics stand.
    pub(super) async fn status(&self) -> MeasureStatus {
        let (stage, _) = *self.shared.stage.borrow();
        let mut status =
            MeasureStatus { stage, counts: self.shared.counts.now(), ..MeasureStatus::default() };
        {
            let progress = self.progress();
            status.leader = progress.leader;
            status.level_at = progress.level_at;
        }
        status.trouble = self.trouble();
        let archive = match self.archive() {
            Ok(archive) => archive,
            Err(refusal) => {
                status.closed = Some(refusal.to_string());
                return status;
            }
        };
        status.position = archive.position();
        status.archive = archive.status().await.ok();
        status.queue = archive.queue_status().await.ok();
        if stage == Stage::Leading {
            status.leader = Some(status.position);
            (status.safe, status.followers) = (self.safe(), self.followers());
            status.uploaders = self.shared.states.lock().expect("no one panics while holding states").clone();
        }
        status
    }
}

/// The query client asks whom the view names.
#[derive(Debug)]
struct Leads(watch::Receiver<Observation>);

impl WhoLeads for Leads {
    fn leader(&self) -> Option<String> {
        self.0.borrow().view.leader.as_ref().map(|leader| leader.api.clone())
    }
}

/// Runs a part of metrics, again after a pause should it panic: a fault in one must not end
/// the others.
async fn kept<F: Future<Output = ()>>(what: &'static str, mut part: impl FnMut() -> F) {
    while AssertUnwindSafe(part()).catch_unwind().await.is_err() {
        error!("{what} panicked; it starts again after {RESTART:?}");
        tokio::time::sleep(RESTART).await;
    }
}

/// Ends what was started under it when it is dropped.
#[derive(Debug)]
pub(super) struct Leading(CancellationToken);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
