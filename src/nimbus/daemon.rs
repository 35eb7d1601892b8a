//! Putting a nimbus together.

use std::{io, net::Ipv6Addr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    clock::Clock,
    cluster::{
        observer::Observer,
        presence::Presence,
        record::{self, Nimbus as Registration},
        store::Store,
    },
    daemon::{
        tasks::{Ending, Tasks},
        watch,
    },
    election::Candidate,
    model::Timestamp,
    nimbus::{
        Options,
        blobs::{self, BlobStore, replicate::Replicator},
        handle::Handle,
        identity::{self, Identity},
        leader::{LeaderStatus, Setting},
        measure::{self, Measure},
        onlooker::look_on,
        role::{Player, Shown, register},
    },
    rpc::blobs::{BlobClient, BlobPeers, FetchError},
    tree::Tree,
};

/// How long the tasks of a nimbus may take to end once it is told to stop: a leader finishes
/// the write it is in and resigns.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Why a nimbus could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its local directory gives it no identity.
    #[error("the local directory cannot be used")]
    Identity(#[from] identity::Error),
    /// Its blobs cannot be kept.
    #[error("blobs cannot be kept")]
    Blobs(#[from] blobs::Error),
    /// Blobs of others cannot be fetched.
    #[error("blobs of other nimbuses cannot be fetched")]
    BlobClient(#[from] FetchError),
    /// Its API cannot listen.
    #[error("the API cannot listen at {address}")]
    Bind {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its metrics cannot be set up.
    #[error("metrics cannot be set up")]
    Metrics(#[from] measure::Error),
    /// A task that it cannot do without has ended.
    #[error("a part of the nimbus has ended by itself; the log says which")]
    Broken,
}

/// A running nimbus, without the doors of its API: whoever starts it serves
/// [`Nimbus::handle`] at the listener that comes with it.
#[derive(Debug)]
pub struct Nimbus {
    handle: Handle,
    tasks: Tasks,
    stop: CancellationToken,
    _identity: Identity,
}

/// Starts a nimbus on `tree` that runs until `stop`, and binds the address of its API.
///
/// It does not wait for the tree: without a connection it waits in the background.
///
/// # Errors
/// See [`Error`]; nothing is started then.
pub async fn start(
    options: Options,
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(Nimbus, TcpListener), Error> {
    let identity = Identity::take(&options.local_dir, &options.host)?;
    let bind = |source| Error::Bind { address: options.api, source };
    let listener = TcpListener::bind(options.api).await.map_err(bind)?;
    let api = reached_at(&options.host, listener.local_addr().map_err(bind)?.port());
    let others = Arc::new(BlobClient::new()?);
    Ok((assemble(options, identity, (api, others), tree, clock, stop)?, listener))
}

/// An IPv6 address stands in brackets before a port.
fn reached_at(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Starts a nimbus that others reach at `api`, without its doors, and which fetches blobs by
/// `client`. It is for the one who puts it on another network than this machine's.
///
/// # Errors
/// See [`Error`]; nothing is started then.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn start_at(
    options: Options,
    (api, client): (String, Arc<dyn BlobPeers>),
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Nimbus, Error> {
    let identity = Identity::take(&options.local_dir, &options.host)?;
    assemble(options, identity, (api, client), tree, clock, stop)
}

fn assemble(
    options: Options,
    identity: Identity,
    (api, client): (String, Arc<dyn BlobPeers>),
    tree: Arc<dyn Tree>,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Nimbus, Error> {
    let me = identity.id.clone();
    let tasks = Tasks::new(stop.child_token());
    let store = Store::new(Arc::clone(&tree));
    let presence = Presence::start(Arc::clone(&tree), &tasks);
    let observer = Observer::start(store.tree(), clock.clone(), &tasks);
    let blobs = BlobStore::open(
        &options.local_dir,
        options.max_blob_bytes,
        me.clone(),
        store.clone(),
        presence.clone(),
        clock.clone(),
    )?;
    let (n_missing, missing) = watch::channel(None);
    let replicator = Replicator {
        blobs: blobs.clone(),
        me: me.clone(),
        client: Arc::<dyn BlobPeers>::clone(&client),
        observations: observer.observe(),
        retention: options.blob_retention,
        n_missing,
    };
    tasks.start("blobs", Ending::StopsOwner, replicator.run());

    let setup = || measure::Setup {
        me: me.clone(),
        host: options.host.clone(),
        api: api.clone(),
        local_dir: options.local_dir.clone(),
        clock: clock.clone(),
        observations: observer.observe(),
        store: store.clone(),
    };
    let measure = options.metrics.as_ref().map(|metrics| Measure::start(setup(), metrics, &tasks));
    let measure = measure.transpose()?;
    let (role, plays) = watch::channel(record::Role::Follower);
    let registration = registration(&options.host, &api, clock.now());
    let shown = Shown { plays, n_missing: missing.clone(), closed: measure.as_ref().map(Measure::closed) };
    tasks.start("registration", Ending::Normal, register(me.clone(), registration, shown, presence));
    let options = Arc::new(options);
    let (commands, takes) = watch::channel(None);
    let (status, shown) = watch::channel(LeaderStatus::default());
    let setting = Setting {
        options: Arc::clone(&options),
        observer: observer.clone(),
        store: store.clone(),
        clock: clock.clone(),
        commands,
        status,
        measure: measure.clone().map(|measure| (measure, blobs.clone())),
    };
    tasks.start("onlooker", Ending::StopsOwner, look_on(setting.clone()));
    let candidate = Candidate::new(tree, me.clone(), api.clone(), clock.clone());
    let player =
        Player { me: me.clone(), candidate, setting, role, n_missing: missing, tasks: tasks.child() };
    tasks.start_graceful("role", Ending::StopsOwner, player.run());
    info!(nimbus = %me, api, "started");
    let handle = Handle {
        me,
        api,
        options,
        clock,
        observer,
        store,
        blobs,
        client,
        status: shown,
        commands: takes,
        measure,
    };
    Ok(Nimbus { handle, tasks, stop, _identity: identity })
}

/// What a nimbus that just started shows of itself.
fn registration(host: &str, api: &str, start: Timestamp) -> Registration {
    Registration {
        host: host.to_owned(),
        api: api.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        start,
        blobs_missing: 0,
        role: record::Role::Follower,
        metrics_closed: None,
    }
}

impl Nimbus {
    /// What others ask of it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Its tasks: what serves its doors is one of them, ends with them, and ends them when
    /// it breaks.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Waits until it is told to stop, or a part of it ends by itself; then ends the rest. A
    /// leader has resigned when this returns.
    ///
    /// # Errors
    /// [`Error::Broken`] when it was not told to stop.
    pub async fn stopped(self) -> Result<(), Error> {
        self.tasks.cancelled().cancelled().await;
        let was_told = self.stop.is_cancelled();
        self.tasks.stop(STOP_PATIENCE).await;
        if let Some(measure) = &self.handle.measure {
            measure.stop().await;
        }
        info!(nimbus = %self.handle.me, "stopped");
        if was_told { Ok(()) } else { Err(Error::Broken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_reached_as_a_name_is() {
        let cases = [("node-3", "node-3:8080"), ("10.0.0.3", "10.0.0.3:8080"), ("fd00::3", "[fd00::3]:8080")];
        for (host, expected) in cases {
            assert_eq!(reached_at(host, 8080), expected);
        }
    }
}
