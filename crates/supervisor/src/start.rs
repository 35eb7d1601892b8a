//! Assembly of an agent, and adoption of the workers that an earlier supervisor left running.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use crate::{
    Error, LaunchDefaults, Options,
    agent::{Agent, Event, Sources, Timers},
    assignments::{AssignmentsReader, AssignmentsState},
    credentials::{CredentialsReader, KnownCredentials},
    failure_log::FailureLog,
    failures::FailureReporter,
    launch::Launcher,
    ledger::{Contents, Entry, Ledger},
    ledger_recovery,
    localize::Localizer,
    offer::PackageOffers,
    ports::{self, TakenPorts},
    problems::{self, StartProblems},
    process::{ProcessId, Processes},
    registration::{Registration, Reported},
    run_as::{FilesPlace, RunAs},
    slot_runtime::{SlotRuntime, new_worker_id},
    starts::{self, StartLog},
    status::Status,
    worker_dir,
};
use stormkeeper_api_types::blobs::FetchBlob;
use stormkeeper_coordination::{
    cluster::{
        checked_tree::{CheckedTree, OnEmpty},
        failure::ReportedFailure,
        presence::Presence,
        store::Store,
        tree_id::{self, TreeMemory},
    },
    tree::Tree,
};
use stormkeeper_model::{BlobKey, Port, SupervisorId, clock::Clock, restarts::RESTART_WINDOW};
use stormkeeper_runtime::{
    blocking,
    fs::{FailedWrites, FormerDir, LayoutFile, LockedDir, modes},
    tasks::{OnExit, Tasks},
    watch,
};

/// Layout of the data directory of a supervisor, with the ledger, the blobs and the workers.
pub(super) const LAYOUT: LayoutFile = LayoutFile {
    kind: "supervisor",
    traces: &["supervisor-id", "ledger", "blobs", "workers"],
    remedy: "set another storm.local.dir, or stop the supervisor and its workers and move the directory away: a new \
             supervisor then fetches the blobs again",
};

/// The files of a supervisor in `storm.local.dir` itself, where earlier builds kept them. Workers that
/// run since then write to their directories and start components in unpacked blobs by the former
/// paths, so these paths become links.
const FORMER_DIR: FormerDir = FormerDir {
    layout: LayoutFile { traces: &["supervisor-id"], ..LAYOUT },
    // Earlier builds do not have all of these, but an operator who goes back moves them up.
    moved: &["supervisor-id", "ledger", "packages", "starts.json", "tree", "directory"],
    linked: &["blobs", "workers"],
};

/// Returns the data directory of a supervisor in `storm_local_dir`, after files of an earlier build
/// were moved there. Workers that run are not disturbed. Blocks.
///
/// # Errors
/// [`Error::Identity`] if they cannot be moved.
pub fn data_dir(storm_local_dir: &Path) -> Result<PathBuf, Error> {
    let dir = FORMER_DIR.settle(storm_local_dir)?;
    if dir != storm_local_dir {
        // Storm has the workers and their logs there. Without the link nothing but that path is missing.
        let _no_link = modes::create_dir_all(&dir)
            .and_then(|()| std::os::unix::fs::symlink("supervisor/workers", storm_local_dir.join("workers")));
    }
    Ok(dir)
}

/// Length of the agent's event queue; a task that sends one more event waits.
const EVENTS: usize = 64;

impl Agent {
    /// Locks the local directory, adopts the workers that still run, and starts to read the
    /// supervisor assignments. Nothing is launched or stopped before [`Agent::run`], except that
    /// worker processes of this supervisor that belong to no slot are killed.
    ///
    /// # Errors
    /// If the local directory cannot be used or belongs to another supervisor.
    pub async fn start(
        mut options: Options,
        tree: Arc<dyn Tree>,
        processes: Arc<dyn Processes>,
        blobs: Arc<dyn FetchBlob>,
        mut defaults: LaunchDefaults,
        clock: Clock,
    ) -> Result<Self, Error> {
        // Workers run in another working directory.
        options.local_dir = absolute(&options.local_dir)?;
        defaults.config_file = defaults.config_file.as_deref().map(absolute).transpose()?;

        let tasks = Tasks::default();
        let Opened { identity, memory, ledger, contents, writes } =
            open(&options, defaults.run_as, &clock).await?;
        // No part of the agent uses the tree before its layout and its identity are checked.
        let (tree, refusal) = CheckedTree::start(tree, OnEmpty::Wait, memory.clone(), &tasks);
        let tree: Arc<dyn Tree> = tree;
        let store = Store::new(tree.clone());
        let identity = Arc::new(identity);
        identity.keep(&writes, &tasks);
        let me = identity.id.clone();
        info!(supervisor = %me, local_dir = %options.local_dir.display(), "supervisor starting");

        let packages = start_offers(&options, &store, &blobs, &tasks);
        let from = (store.clone(), blobs);
        let (localizer, localized) =
            Localizer::open(&options.local_dir, options.unused_blob_retention, from, clock.clone(), &tasks)
                .map_err(|source| local_dir(&options, source))?;
        let (events, from_tasks) = mpsc::channel(EVENTS);
        let launcher = launcher(&me, &options, defaults, &store, (ledger, processes, events));
        let ports: BTreeSet<Port> = options.ports.iter().copied().collect();
        let (slots, at_start) =
            start_slots(&launcher, contents, (&options.host, &ports), &clock, &tasks).await;

        let presence = Presence::start(tree, &tasks);
        // Known before the first registration, so that no slot is offered whose port is taken.
        let (taken_ports, to_check) = start_ports(&launcher, &slots, &tasks).await;
        let (starts, failures, recent) = open_failures(&options, &identity, &clock, &writes).await;
        let now = clock.monotonic();
        let problems =
            problems::of((&writes.texts(), None), (&at_start, now), &taken_ports, &slots, &options.host);
        let known = Reported::at_start(problems, recent);
        let registration =
            Registration::start(&options, store.clone(), &me, &presence, known, (&clock, &tasks));
        // The reader needs to know what runs here from the beginning.
        let status = watch::Sender::new(Status {
            supervisor: me.clone(),
            has_assignments: false,
            slots: slots.iter().map(|(port, slot)| (*port, slot.status())).collect(),
            problems: Vec::new(),
        });
        let (assignments, recheck) = start_reader(&options, &store, me, &status, &tasks);
        start_credentials(&launcher, &status, &tasks);
        let reporter = FailureReporter::start(store.clone(), clock.clone(), &tasks);
        let failed_writes = writes.watch();
        let agent = Self {
            identity,
            store,
            refusal,
            foreign: memory.foreign(),
            options,
            ports,
            clock,
            slots,
            localizer,
            packages,
            launcher,
            reporter,
            failures,
            starts,
            start_problems: at_start,
            registration,
            presence,
            sources: Sources { assignments, recheck, localized, events: from_tasks, failed_writes },
            status,
            tasks,
            taken_ports,
            to_check,
            timers: Timers { heartbeats_due: Some(now), heartbeats_read_at: now, housekeeping_due: now },
        };
        agent.publish();
        Ok(agent)
    }
}

fn launcher(
    me: &SupervisorId,
    options: &Options,
    defaults: LaunchDefaults,
    store: &Store,
    (ledger, processes, events): (Ledger, Arc<dyn Processes>, mpsc::Sender<Event>),
) -> Launcher {
    Launcher {
        me: me.clone(),
        local_dir: options.local_dir.clone(),
        defaults: Arc::new(defaults),
        ledger,
        store: store.clone(),
        credentials: KnownCredentials::default(),
        processes,
        events,
    }
}

/// Starts to offer packages that no nimbus has. The result sets those that are used here.
fn start_offers(
    options: &Options,
    store: &Store,
    client: &Arc<dyn FetchBlob>,
    tasks: &Tasks,
) -> watch::Sender<BTreeSet<BlobKey>> {
    let (packages, used) = watch::channel(BTreeSet::new());
    let (local_dir, store, client) = (options.local_dir.clone(), store.clone(), Arc::clone(client));
    tasks.start("offer packages", OnExit::StopOwner, PackageOffers { local_dir, store, client, used }.run());
    packages
}

/// Checks the ports of slots without a process, and starts to check them again. The result sets the
/// ports to check.
async fn start_ports(
    launcher: &Launcher,
    slots: &BTreeMap<Port, SlotRuntime>,
    tasks: &Tasks,
) -> (TakenPorts, tokio::sync::watch::Sender<ports::ToCheck>) {
    let mut taken_ports = TakenPorts::default();
    let idle = slots.iter().filter(|(_, slot)| slot.occupied_by().is_none()).map(|(port, _)| *port);
    taken_ports.update(ports::check(&*launcher.processes, idle.collect()).await, |_| false);
    let (to_check, ports_to_check) = tokio::sync::watch::channel(ports::ToCheck::default());
    let checker = ports::run(Arc::clone(&launcher.processes), ports_to_check, launcher.events.clone());
    tasks.start("check ports", OnExit::StopOwner, checker);
    (taken_ports, to_check)
}

/// Records this start. Returns the records of starts and failures, and the recent failures.
async fn open_failures(
    options: &Options,
    identity: &LockedDir<SupervisorId>,
    clock: &Clock,
    writes: &FailedWrites,
) -> (StartLog, FailureLog, Vec<ReportedFailure>) {
    let (dir, started) = (options.local_dir.clone(), (clock.now(), clock.monotonic()));
    let writes = writes.clone();
    let starts = blocking::run(move || StartLog::open(&dir, started, writes)).await;
    let kept = starts.clone();
    identity.keep_file(starts::FILE, move || kept.put_back());
    let mut failures = FailureLog::default();
    let recent = failures.report(starts.n_restarts(clock.monotonic()), clock.monotonic());
    let recent = recent.unwrap_or_default().to_vec();
    (starts, failures, recent)
}

/// Starts to read the assignments. Returns them, and a handle that causes another look.
fn start_reader(
    options: &Options,
    store: &Store,
    me: SupervisorId,
    status: &watch::Sender<Status>,
    tasks: &Tasks,
) -> (watch::Receiver<AssignmentsState>, Arc<Notify>) {
    let (published, assignments) = watch::channel(AssignmentsState::Unknown);
    let recheck = Arc::<Notify>::default();
    let period = options.reconcile_period;
    let reader = AssignmentsReader::new(store.clone(), me, period, Arc::clone(&recheck), status.subscribe());
    tasks.start("read assignments", OnExit::StopOwner, reader.run(published));
    (assignments, recheck)
}

/// Starts to read the credentials of the topologies that run here, if there is a secret that opens them.
fn start_credentials(launcher: &Launcher, status: &watch::Sender<Status>, tasks: &Tasks) {
    let locks = launcher.defaults.locks.clone();
    if locks.secrets().is_none() {
        return;
    }
    let reader = CredentialsReader {
        store: launcher.store.clone(),
        known: launcher.credentials.clone(),
        locks,
        local_dir: launcher.local_dir.clone(),
        status: status.subscribe(),
    };
    tasks.start("read credentials", OnExit::StopOwner, reader.run());
}

fn local_dir(options: &Options, source: io::Error) -> Error {
    Error::LocalDir { dir: options.local_dir.clone(), source }
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::LocalDir { dir: path.to_owned(), source })
}

/// Contents of the local directory.
struct Opened {
    identity: LockedDir<SupervisorId>,
    memory: TreeMemory,
    ledger: Ledger,
    contents: Contents,
    writes: FailedWrites,
}

async fn open(options: &Options, run_as: Option<RunAs>, clock: &Clock) -> Result<Opened, Error> {
    let (options, clock) = (options.clone(), clock.clone());
    let open = move || {
        let identity = LockedDir::acquire(&options.local_dir, &LAYOUT, &options.host)?;
        run_as.map_or(Ok(()), |run_as| run_as.prepare(&options.local_dir))?;
        let writes = FailedWrites::new(clock.clone());
        let memory =
            TreeMemory::load(&options.local_dir, clock).map_err(|source| local_dir(&options, source))?;
        let kept = memory.clone();
        identity.keep_file(tree_id::MEMORY_FILE, move || kept.put_back());
        let ledger =
            Ledger::open(&options.local_dir, writes.clone()).map_err(|source| local_dir(&options, source))?;
        let contents = ledger.read().map_err(|source| local_dir(&options, source))?;
        Ok(Opened { identity, memory, ledger, contents, writes })
    };
    blocking::run(open).await
}

/// Returns the slots of `ports` and of the workers that are alive, which are adopted, and the problems
/// of doing so.
async fn start_slots(
    launcher: &Launcher,
    contents: Contents,
    (host, ports): (&str, &BTreeSet<Port>),
    clock: &Clock,
    tasks: &Tasks,
) -> (BTreeMap<Port, SlotRuntime>, StartProblems) {
    let (entries, problems) = ledger_recovery::recover(launcher, contents, host).await;
    let mut slots = adopt(launcher, entries, clock, tasks).await;
    kill_unknown_workers(launcher, &slots).await;
    for port in ports {
        slots.entry(*port).or_insert_with(|| SlotRuntime::new(new_worker_id(*port, clock)));
    }
    (slots, StartProblems { problems, until: clock.monotonic().plus(RESTART_WINDOW) })
}

/// Returns slots for the processes of the ledger that are alive.
async fn adopt(
    launcher: &Launcher,
    entries: BTreeMap<Port, Entry>,
    clock: &Clock,
    tasks: &Tasks,
) -> BTreeMap<Port, SlotRuntime> {
    let mut slots = BTreeMap::new();
    for (port, entry) in entries {
        let Some(process) = find(launcher, port, &entry).await else {
            launcher.processes.sweep(&entry.worker).await;
            launcher.remove_entry(port, &entry.worker).await;
            info!(%port, worker = %entry.worker, "a worker has ended since the supervisor last ran");
            continue;
        };
        let Entry { worker, desired, .. } = entry;
        info!(%port, %worker, %process, topology = %desired.topology, "adopting a worker");
        launcher.processes.adopt(&worker, process);
        launcher.adopt(tasks, port, worker.clone(), process);
        let slot =
            SlotRuntime::adopted(new_worker_id(port, clock), (worker, process), desired, clock.monotonic());
        slots.insert(port, slot);
    }
    slots
}

/// Returns the process of an entry, if it is alive: by its id or, if the supervisor died before it
/// recorded the id, by the worker id.
async fn find(launcher: &Launcher, port: Port, entry: &Entry) -> Option<ProcessId> {
    let processes = &launcher.processes;
    if entry.process.is_some() {
        return launcher.ledger.process_of(entry).filter(|process| processes.is_alive(*process));
    }
    let (local_dir, worker) = (launcher.local_dir.clone(), entry.worker.clone());
    let place = blocking::run(move || FilesPlace::of_worker(&local_dir, &worker)).await;
    let place = place.inspect_err(
        |error| warn!(%port, worker = %entry.worker, %error, "cannot tell the user of a worker"),
    );
    let process = processes.find(&entry.worker, place.ok()?.uid()).await?;
    launcher.record_process(port, &entry.worker, entry.desired.clone(), process).await;
    Some(process)
}

/// Kills launches of this supervisor that belong to no slot, because their ledger was damaged.
async fn kill_unknown_workers(launcher: &Launcher, slots: &BTreeMap<Port, SlotRuntime>) {
    let local_dir = launcher.local_dir.clone();
    let listed = blocking::run(move || worker_dir::all(&local_dir)).await;
    let mut workers: BTreeSet<_> = launcher.processes.remains().await.into_iter().collect();
    workers.extend(listed.unwrap_or_else(|error| {
        warn!(%error, "cannot list the directories of workers; unknown workers are not killed");
        Vec::new()
    }));
    let known: BTreeSet<_> = slots.values().filter_map(|slot| slot.state.worker()).map(|(w, _)| w).collect();
    for worker in workers.iter().filter(|worker| !known.contains(worker)) {
        let n_processes = launcher.processes.sweep(worker).await;
        if n_processes > 0 {
            warn!(%worker, n_processes, "killed an unknown worker: no slot in the ledger has it");
        }
    }
}
