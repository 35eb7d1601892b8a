//! Parts of a nimbus, each opened or started by a function of its own.

use std::sync::Arc;

use super::Error;
use crate::{
    Options,
    blobs::{BlobStore, replicate::Replicator},
    leader::LeaderContext,
    reachable::Reachable,
    role::{Comparison, RoleLoop},
    tree_copy::{CopyFile, keep::CopyKeeper},
};
use stormkeeper_api_types::{
    blobs::BlobPeers,
    leader_clock::{self, NimbusTime},
    proof_check::{self, ShowProof},
};
use stormkeeper_coordination::{
    cluster::{
        observer::Observer,
        presence::Presence,
        record::{self, NimbusRecord},
        store::Store,
        tree_id::{self, TreeMemory},
    },
    election::Candidate,
};
use stormkeeper_metrics_service as metrics_service;
use stormkeeper_metrics_service::MetricsService;
use stormkeeper_model::{NimbusId, Timestamp, clock::Clock};
use stormkeeper_runtime::{
    fs::{FailedWrites, LockedDir},
    tasks::{OnExit, Tasks},
    watch,
};

/// Reads the memory of the tree, whose file is kept in place with the identity.
pub(super) fn load_memory(
    options: &Options,
    identity: &LockedDir<NimbusId>,
    clock: Clock,
) -> Result<TreeMemory, Error> {
    let memory = TreeMemory::load(&options.local_dir, clock).map_err(Error::Tree)?;
    let kept = memory.clone();
    identity.keep_file(tree_id::MEMORY_FILE, move || kept.put_back());
    Ok(memory)
}

/// Starts to keep the local directory in place. Returns it, and the writes in it that fail.
pub(super) fn keep_dir(
    identity: LockedDir<NimbusId>,
    clock: &Clock,
    tasks: &Tasks,
) -> (Arc<LockedDir<NimbusId>>, FailedWrites) {
    let (identity, writes) = (Arc::new(identity), FailedWrites::new(clock.clone()));
    identity.keep(&writes, tasks);
    (identity, writes)
}

pub(super) fn open_blobs(
    options: &Options,
    me: NimbusId,
    (store, presence): (&Store, &Presence),
    (clock, writes): (&Clock, &FailedWrites),
) -> Result<BlobStore, Error> {
    let limits = (options.max_blob_bytes, options.upload_limits);
    let writing = (clock.clone(), writes.clone());
    Ok(BlobStore::open(&options.local_dir, limits, me, store.clone(), presence.clone(), writing)?)
}

/// Starts the replication of blobs. Returns the number of missing blobs of live topologies, once it
/// is known, and the reason if the disk is almost full.
pub(super) fn start_replicator(
    blobs: &BlobStore,
    me: &NimbusId,
    client: Arc<dyn BlobPeers>,
    observer: &Observer,
    options: &Options,
    tasks: &Tasks,
) -> (watch::Receiver<Option<usize>>, watch::Receiver<Option<String>>) {
    let (n_missing, missing) = watch::channel(None);
    let (disk_problem, problem) = watch::channel(None);
    let replicator = Replicator {
        blobs: blobs.clone(),
        me: me.clone(),
        client,
        observations: observer.observe(),
        retention: options.blob_retention,
        n_missing,
        disk_problem,
    };
    tasks.start("blobs", OnExit::StopOwner, replicator.run());
    (missing, problem)
}

/// Starts to follow and to lead in turns. Returns the sender of whether the API can accept connections.
pub(super) fn start_role(
    (me, candidate, context): (&NimbusId, Candidate, LeaderContext),
    role: watch::Sender<record::Role>,
    (n_missing, certificate_expired, is_alone): (
        watch::Receiver<Option<usize>>,
        watch::Receiver<bool>,
        watch::Receiver<bool>,
    ),
    tasks: &Tasks,
) -> watch::Sender<bool> {
    let (api_accepts, accepts) = watch::channel(true);
    let reachable = Reachable { api_accepts: accepts, certificate_expired };
    let (me, tasks_of_role) = (me.clone(), tasks.child());
    let role_loop =
        RoleLoop { me, candidate, context, role, n_missing, reachable, is_alone, tasks: tasks_of_role };
    tasks.start_graceful("role", OnExit::StopOwner, role_loop.run());
    api_accepts
}

/// Starts to compare this nimbus with the leader, as far as there are clients for that.
pub(super) fn compare_with_leader(
    time: Option<Arc<dyn NimbusTime>>,
    proof: Option<Arc<dyn ShowProof>>,
    me: &NimbusId,
    (observer, clock): (&Observer, &Clock),
    tasks: &Tasks,
) -> Comparison {
    let leader = || {
        let (me, observations) = (me.clone(), observer.observe());
        move || {
            let reference = match &observations.borrow().view.leader {
                Some(leader) if leader.nimbus == me => leader_clock::Reference::Own,
                Some(leader) => leader_clock::Reference::Leader(leader.api.clone()),
                None => leader_clock::Reference::Unknown,
            };
            std::future::ready(reference)
        }
    };
    let (announce, clock_ahead_ms) = watch::channel(None);
    if let Some(client) = time {
        let comparison = leader_clock::compare(client, leader(), clock.clone(), move |ahead_ms| {
            announce.send_replace(ahead_ms);
        });
        tasks.start("clock", OnExit::Ignore, comparison);
    }
    let (announce, proof_problem) = watch::channel(None);
    if let Some(client) = proof {
        let showing = proof_check::keep_showing(client, leader(), format!("nimbus {me}"), move |problem| {
            announce.send_replace(problem);
        });
        tasks.start("proof", OnExit::Ignore, showing);
    }
    Comparison { clock_ahead_ms, proof_problem }
}

/// Starts to keep the copy of the tree. Returns its file.
pub(super) fn start_tree_copy(
    options: &Options,
    (memory, writes): (&TreeMemory, &FailedWrites),
    store: &Store,
    observer: &Observer,
    clock: &Clock,
    tasks: &Tasks,
) -> CopyFile {
    let file = CopyFile::of_dir(&options.local_dir);
    let keeper = CopyKeeper {
        file: file.clone(),
        writes: writes.clone(),
        memory: memory.clone(),
        store: store.clone(),
        observations: observer.observe(),
        clock: clock.clone(),
        metric_log: None,
    };
    tasks.start("tree copy", OnExit::StopOwner, keeper.run());
    file
}

/// Starts the metrics service, unless this nimbus keeps no metrics.
pub(super) fn start_metrics(
    (me, api): (&NimbusId, &str),
    (store, observer, clock): (&Store, &Observer, &Clock),
    options: &Options,
    clients: Option<metrics_service::MetricsClients>,
    tasks: &Tasks,
) -> Option<MetricsService> {
    let (metrics, clients) = options.metrics.as_ref().zip(clients)?;
    let setup = metrics_service::Setup {
        me: me.clone(),
        host: options.host.clone(),
        api: api.to_owned(),
        local_dir: options.local_dir.clone(),
        clock: clock.clone(),
        observations: observer.observe(),
        store: store.clone(),
    };
    let clients = clients.with_leader_of(&setup.store);
    Some(MetricsService::start(setup, metrics, clients, tasks))
}

/// Initial record of a nimbus that has just started.
pub(super) fn registration(options: &Options, api: &str, start: Timestamp) -> NimbusRecord {
    NimbusRecord {
        host: options.host.clone(),
        api: api.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        start,
        blobs_missing: 0,
        role: record::Role::Follower,
        metric_store_error: None,
        disk_problem: None,
        access_problem: None,
        clock_ahead_ms: None,
        exposed: options.exposed.clone(),
        zookeeper_users: None,
        certificate_expired: false,
        unknown_fields: record::UnknownFields::new(),
    }
}
