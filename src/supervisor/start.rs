//! Assembling an agent, and finding what an earlier one left running.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use crate::{
    backoff::Backoff,
    clock::Clock,
    cluster::{layout::Ephemeral, presence::Presence, record, store::Store},
    daemon::{
        blocking,
        tasks::{Ending, Tasks},
        watch,
    },
    model::Port,
    rpc::blobs::FetchBlob,
    supervisor::{
        Error, LaunchDefaults, Options,
        agent::{Agent, Sources, Timers},
        failures::Reporter,
        identity::Identity,
        launch::Launcher,
        ledger::{Entry, Ledger},
        localize::Localizer,
        orders::{Ordered, OrdersReader},
        own_slot::{OwnSlot, fresh_worker},
        process::{ProcessId, Processes},
        status::Status,
        worker_dir,
    },
    tree::Tree,
};

/// Events that wait for the loop; a task that has one more waits itself.
const EVENTS: usize = 64;

/// Between two tries to register while the tree cannot be reached.
const REGISTER_RETRY_MIN: Duration = Duration::from_millis(200);
const REGISTER_RETRY_MAX: Duration = Duration::from_secs(10);

impl Agent {
    /// Takes the local directory, adopts the workers that still run, and starts to read the
    /// orders. Nothing is launched or stopped before [`Agent::run`], but for processes of ours
    /// that no slot knows: they are killed.
    ///
    /// # Errors
    /// When the local directory cannot be used or is another supervisor's.
    pub async fn start(
        mut options: Options,
        tree: Arc<dyn Tree>,
        processes: Arc<dyn Processes>,
        blobs: Arc<dyn FetchBlob>,
        mut defaults: LaunchDefaults,
        clock: Clock,
    ) -> Result<Self, Error> {
        // Workers have another working directory.
        options.local_dir = absolute(&options.local_dir)?;
        defaults.config_file = defaults.config_file.as_deref().map(absolute).transpose()?;

        let tasks = Tasks::default();
        let store = Store::new(tree.clone());
        let (identity, ledger, entries) = open(&options).await?;
        let me = identity.id.clone();
        info!(supervisor = %me, local_dir = %options.local_dir.display(), "supervisor starts");

        let from = (store.clone(), blobs);
        let (localizer, arrived) =
            Localizer::open(&options.local_dir, options.unused_blob_retention, from, clock.clone(), &tasks)
                .map_err(|source| local_dir(&options, source))?;
        let (events, from_tasks) = mpsc::channel(EVENTS);
        let local_dir = options.local_dir.clone();
        let launcher =
            Launcher { me: me.clone(), local_dir, defaults: Arc::new(defaults), ledger, processes, events };
        let ports: BTreeSet<Port> = options.ports.iter().copied().collect();
        let mut slots = adopt(&launcher, entries, &clock, &tasks).await;
        kill_strangers(&launcher, &slots).await;
        for port in &ports {
            slots.entry(*port).or_insert_with(|| OwnSlot::new(fresh_worker(*port, &clock)));
        }

        let presence = Presence::start(tree, &tasks);
        register(&options, store.clone(), &identity, &presence, (&clock, &tasks));
        let (ordered, orders) = watch::channel(Ordered::Unknown);
        let doubt = Arc::<Notify>::default();
        let reader =
            OrdersReader::new(store.clone(), me.clone(), options.reconcile_period, Arc::clone(&doubt));
        tasks.start("read orders", Ending::StopsOwner, reader.run(ordered));
        let reporter = Reporter::start(store, clock.clone(), &tasks);
        let status =
            Status { supervisor: me, has_orders: false, slots: BTreeMap::new(), problems: Vec::new() };
        let now = clock.monotonic();
        let agent = Self {
            identity,
            options,
            ports,
            clock,
            slots,
            localizer,
            launcher,
            reporter,
            presence,
            sources: Sources { orders, doubt, arrived, events: from_tasks },
            status: watch::Sender::new(status),
            tasks,
            timers: Timers { look_due: Some(now), looked: now, house_due: now },
        };
        agent.publish();
        Ok(agent)
    }
}

fn local_dir(options: &Options, source: io::Error) -> Error {
    Error::LocalDir { dir: options.local_dir.clone(), source }
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::LocalDir { dir: path.to_owned(), source })
}

async fn open(options: &Options) -> Result<(Identity, Ledger, BTreeMap<Port, Entry>), Error> {
    let options = options.clone();
    let open = move || {
        let identity = Identity::take(&options.local_dir, &options.host)?;
        let ledger = Ledger::open(&options.local_dir).map_err(|source| local_dir(&options, source))?;
        let entries = ledger.read().map_err(|source| local_dir(&options, source))?;
        Ok((identity, ledger, entries))
    };
    blocking::run(open).await
}

/// Slots for the processes of the ledger that are there.
async fn adopt(
    launcher: &Launcher,
    entries: BTreeMap<Port, Entry>,
    clock: &Clock,
    tasks: &Tasks,
) -> BTreeMap<Port, OwnSlot> {
    let mut slots = BTreeMap::new();
    for (port, entry) in entries {
        let Some(process) = find(launcher, port, &entry).await else {
            launcher.processes.sweep(&entry.worker).await;
            launcher.forget(port, &entry.worker).await;
            info!(%port, worker = %entry.worker, "a worker is gone since the last run");
            continue;
        };
        let Entry { worker, desired, .. } = entry;
        info!(%port, %worker, %process, topology = %desired.topology, "adopting a worker");
        launcher.adopt(tasks, port, worker.clone(), process);
        let slot = OwnSlot::adopted(fresh_worker(port, clock), (worker, process), desired, clock.monotonic());
        slots.insert(port, slot);
    }
    slots
}

/// The process of an entry, if it is there: by its id or, when the supervisor died before it
/// could write that down, by the launch.
async fn find(launcher: &Launcher, port: Port, entry: &Entry) -> Option<ProcessId> {
    let processes = &launcher.processes;
    if entry.process.is_some() {
        return launcher.ledger.process_of(entry).filter(|process| processes.is_alive(*process));
    }
    let process = processes.find(&entry.worker).await?;
    launcher.note(port, &entry.worker, entry.desired.clone(), process).await;
    Some(process)
}

/// Kills the processes of launches of ours that no slot knows: their ledger was damaged.
async fn kill_strangers(launcher: &Launcher, slots: &BTreeMap<Port, OwnSlot>) {
    let local_dir = launcher.local_dir.clone();
    let listed = blocking::run(move || worker_dir::all(&local_dir)).await;
    let workers = listed.unwrap_or_else(|error| {
        warn!(%error, "cannot list the directories of workers");
        Vec::new()
    });
    let known: BTreeSet<_> = slots.values().filter_map(|slot| slot.state.worker()).map(|(w, _)| w).collect();
    for worker in workers.iter().filter(|worker| !known.contains(worker)) {
        let n_processes = launcher.processes.sweep(worker).await;
        if n_processes > 0 {
            warn!(%worker, n_processes, "killed a worker that no slot knows");
        }
    }
}

/// Keeps `/supervisors/{id}` there, from the moment that the tree can be reached.
fn register(
    options: &Options,
    store: Store,
    identity: &Identity,
    presence: &Presence,
    (clock, tasks): (&Clock, &Tasks),
) {
    let supervisor = record::Supervisor {
        host: options.host.clone(),
        ports: options.ports.clone(),
        resources: options.resources,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        start: clock.now(),
    };
    let (ephemeral, presence) = (Ephemeral::Supervisor(identity.id.clone()), presence.clone());
    tasks.start("register", Ending::Normal, async move {
        let mut backoff = Backoff::new(REGISTER_RETRY_MIN, REGISTER_RETRY_MAX, fastrand::Rng::new())
            .expect("constants in order");
        while let Err(error) = store.ensure_layout().await {
            let (error, retry_in) = (error.to_string(), backoff.next_delay());
            warn!(error, ?retry_in, "cannot register; what runs keeps running");
            tokio::time::sleep(retry_in).await;
        }
        presence.keep(&ephemeral, record::encode(&supervisor));
    });
}
