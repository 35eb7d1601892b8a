//! Session lifecycle: connect, follow the session's state, and open a new session after its end.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zookeeper_client as zk;

use crate::tree::{
    CreateMode, Error, SessionId, SessionState, TreePath,
    options::{OnMissingRoot, Options},
    zookeeper::{
        access::{CurrentAccess, SCHEME},
        errors::general_error,
        tls::{self, CurrentTls},
    },
};
use stormkeeper_model::{
    backoff::{Backoff, Delays},
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{error_chain, outage::Outage, watch};

/// Maximum number of requests in flight; further requests wait for a permit, within their own
/// deadline. 64 already keep a server busy, and a client without a bound fills its memory when the
/// server stalls.
const MAX_REQUESTS: usize = 256;

/// Bounds of the pause between attempts to connect.
const RETRY: Delays = Delays::between(Duration::from_millis(100), Duration::from_secs(5));

/// Minimum interval between two log lines about the same problem.
const LOG_PERIOD: Duration = Duration::from_secs(30);

/// State shared by requests, the session task and the watch task.
#[derive(Debug)]
pub(super) struct Link {
    // Guards the handle of the open session; held while the handle is cloned.
    client: Mutex<Option<zk::Client>>,
    state: watch::Sender<SessionState>,
    permits: Semaphore,
    request_timeout: Duration,
    closed: CancellationToken,
    // Guards the reason why there is no session; held for an exchange.
    problem: Mutex<Option<String>>,
}

impl Link {
    pub(super) fn new(request_timeout: Duration) -> Self {
        Self {
            client: Mutex::new(None),
            state: watch::Sender::new(SessionState::Connecting),
            permits: Semaphore::new(MAX_REQUESTS),
            request_timeout,
            closed: CancellationToken::new(),
            problem: Mutex::new(None),
        }
    }

    /// Returns the reason why the last attempt to open a session failed, while there is none.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().expect("no one panics while holding the reason").clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().expect("no one panics while holding the reason") = problem;
    }

    /// Makes one request by `send`, if there is a connection, and waits for the response.
    ///
    /// # Errors
    /// Connection errors; errors of the server are in the inner result.
    pub(super) async fn request<T, F, Fut>(&self, send: F) -> Result<Result<T, zk::Error>, Error>
    where
        F: FnOnce(zk::Client) -> Fut,
        Fut: Future<Output = Result<T, zk::Error>>,
    {
        self.connected()?;
        let lost = |why: String| Err(Error::ConnectionLost(why));
        // One deadline covers the wait for a permit and the wait for the response.
        let mut deadline = std::pin::pin!(tokio::time::sleep(self.request_timeout));
        let _permit = tokio::select! {
            // A permit that arrives at the deadline is too late: no time is left for the response.
            biased;
            // Leaving the queue has no effect on the tree.
            () = &mut deadline => return Err(Error::Disconnected),
            // The semaphore is never closed; in any case nothing was sent.
            permit = self.permits.acquire() => permit.map_err(|_closed| Error::Closed)?,
        };
        let client = self.connected()?;
        tokio::select! {
            // Dropping the response of a request in flight leaves its outcome unknown, and both
            // errors report that.
            answer = Box::pin(send(client)) => Ok(answer),
            () = self.closed.cancelled() => lost("the connection was closed by this process".to_owned()),
            () = deadline => lost(format!("no response within {:?}", self.request_timeout)),
        }
    }

    /// Returns the state as a value that can be watched.
    pub(super) fn subscribe(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    /// Returns the id of the session if it is connected.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.state.borrow().connected()
    }

    /// Rejects all requests from now on and returns the handle of the session.
    pub(super) fn close(&self) -> Option<zk::Client> {
        self.closed.cancel();
        self.state.send_replace(SessionState::Closed);
        self.client().take()
    }

    fn connected(&self) -> Result<zk::Client, Error> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        // Without a connection the client crate would queue the request without a bound and run it
        // after the reconnect.
        self.session().ok_or(Error::Disconnected)?;
        self.client().clone().ok_or(Error::Disconnected)
    }

    fn client(&self) -> std::sync::MutexGuard<'_, Option<zk::Client>> {
        self.client.lock().expect("no one panics while holding the client")
    }

    fn show(&self, state: SessionState) {
        self.state.send_if_modified(|shown| {
            let changes = *shown != SessionState::Closed && *shown != state;
            if changes {
                *shown = state;
            }
            changes
        });
    }
}

/// Time for which the root may be missing before that is a warning: a misspelt root does not appear.
const ROOT_GRACE: Duration = Duration::from_secs(10);

/// Servers, and how to connect to them.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) options: Options,
    pub(super) access: CurrentAccess,
    pub(super) tls: Option<CurrentTls>,
}

/// Keeps a session open until it is cancelled; notifies `changed` of each change of its state.
pub(super) async fn keep(link: Arc<Link>, target: Target, mut backoff: Backoff, changed: Arc<Notify>) {
    let options = &target.options;
    let mut log_throttle = LogThrottle::new(Clock::new());
    let mut was_rootless = false;
    let mut warn_at: Option<tokio::time::Instant> = None;
    loop {
        let client = match open(&target).await {
            Ok(client) => client,
            Err(error) => {
                link.set_problem(Some(error_chain(&error)));
                let is_rootless = warn_at.take_if(|at| tokio::time::Instant::now() >= *at).is_some();
                if log_throttle.is_due() || is_rootless {
                    let servers = options.servers.join(",");
                    let problem = match &error {
                        OpenError::NoServer
                        | OpenError::Tls(_)
                        | OpenError::Sasl(_)
                        | OpenError::Connect(_) => "cannot connect to ZooKeeper; retrying",
                        // The first daemons of a new cluster start in any order.
                        OpenError::NoRoot if !std::mem::replace(&mut was_rootless, true) => {
                            info!(%servers, root = %options.root, "the root does not exist yet; waiting for a nimbus to create it");
                            warn_at = Some(tokio::time::Instant::now() + ROOT_GRACE);
                            tokio::time::sleep(backoff.next_delay()).await;
                            continue;
                        }
                        OpenError::NoRoot | OpenError::InsideCluster(_) | OpenError::Root(_) => {
                            "cannot use storm.zookeeper.root; retrying"
                        }
                    };
                    let error = error_chain(&error);
                    warn!(%servers, root = %options.root, error, "{problem}");
                }
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
        };
        link.set_problem(None);
        backoff.reset();
        log_throttle = LogThrottle::new(Clock::new());
        let session = SessionId(client.session_id().0);
        info!(%session, timeout = ?client.session_timeout(), root = %options.root, "session opened");
        let states = client.state_watcher();
        *link.client() = Some(client);
        let last = follow(&link, session, states, &changed).await;
        *link.client() = None;
        link.show(SessionState::Connecting);
        match last {
            zk::SessionState::AuthFailed => {
                let reason = target.access.sasl_refusal();
                warn!(%session, reason, "a server ended the session; opening a new session");
                link.set_problem(Some(reason));
            }
            last => warn!(%session, state = %last, "session ended; opening a new session"),
        }
        changed.notify_one();
        // Avoids a busy loop if a server ends every session at once.
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Returns the backoff between attempts to connect.
pub(super) fn retries(random: fastrand::Rng) -> Backoff {
    RETRY.backoff_with(random)
}

/// Publishes the states of one session until the session has ended.
async fn follow(
    link: &Link,
    session: SessionId,
    mut states: zk::StateWatcher,
    changed: &Notify,
) -> zk::SessionState {
    let mut state = states.state();
    let mut outage = Outage::default();
    loop {
        match state {
            zk::SessionState::SyncConnected | zk::SessionState::ConnectedReadOnly => {
                if let Some(lasted) = outage.ends() {
                    info!(%session, ?lasted, "connected to ZooKeeper again; the session goes on");
                }
                link.show(SessionState::Connected(session));
            }
            zk::SessionState::Disconnected => {
                if outage.begins() {
                    warn!(%session, "connection to ZooKeeper lost; reconnecting before the session expires");
                }
                link.show(SessionState::Disconnected(session));
            }
            // Expired, rejected or closed: these states are final, and the enum may grow.
            last => return last,
        }
        changed.notify_one();
        state = states.changed().await;
    }
}

/// Reason why no session could be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(
        "no server accepted a connection: check that the names resolve and that the ports are ZooKeeper's"
    )]
    NoServer,
    #[error(
        "no server accepted a connection over TLS: {0}; check the certificates of both ends, and that the port is that for TLS (secureClientPort)"
    )]
    Tls(String),
    #[error("{0}")]
    Sasl(String),
    #[error("{0}")]
    Connect(zk::Error),
    #[error(
        "the root does not exist; no nimbus has created it: check storm.zookeeper.root, or start a nimbus"
    )]
    NoRoot,
    #[error(
        "the root lies inside the tree of another cluster, whose root is {0}: correct storm.zookeeper.root"
    )]
    InsideCluster(TreePath),
    #[error("cannot use the root")]
    Root(#[source] Error),
}

/// Makes one attempt to open a session and to find our root, or to create it.
async fn open(Target { options, access, tls }: &Target) -> Result<zk::Client, OpenError> {
    let mut connector =
        zk::Client::connector().with_session_timeout(options.session_timeout).with_fail_eagerly();
    for payload in access.payloads() {
        connector = connector.with_auth(SCHEME, &payload);
    }
    if let Some(user) = access.sasl() {
        connector = connector.with_sasl(user);
    }
    let servers = match tls {
        Some(tls) => {
            connector = connector.with_tls(tls.options());
            options.servers.iter().map(|server| tls::address(server)).collect()
        }
        None => options.servers.clone(),
    };
    let client = match connector.connect(&servers.join(",")).await {
        Ok(client) => client,
        Err(zk::Error::NoHosts) => return Err(no_server(&options.servers, tls.as_ref()).await),
        // The only proof that a server refuses: it takes any user of the lists.
        Err(zk::Error::AuthFailed) => return Err(OpenError::Sasl(access.sasl_refusal())),
        Err(error) => return Err(OpenError::Connect(error)),
    };
    if options.root == TreePath::root() {
        return Ok(client);
    }
    match tokio::time::timeout(options.request_timeout, find_root(&client, options, access)).await {
        Err(_) => {
            let text = format!("no response within {:?}", options.request_timeout);
            return Err(OpenError::Root(Error::ConnectionLost(text)));
        }
        Ok(found) => found?,
    }
    let refuse = |_| OpenError::Root(Error::Refused(format!("{} is not a valid root path", options.root)));
    client.chroot(options.root.as_str()).map_err(refuse)
}

/// Returns why no server accepted a connection: the first problem with TLS, if there is one.
async fn no_server(servers: &[String], tls: Option<&CurrentTls>) -> OpenError {
    if let Some(tls) = tls {
        for server in servers {
            if let Some(problem) = tls.problem(server).await {
                return OpenError::Tls(problem);
            }
        }
    }
    OpenError::NoServer
}

/// Finds or creates our root, which must not lie inside the tree of another cluster.
async fn find_root(client: &zk::Client, options: &Options, access: &CurrentAccess) -> Result<(), OpenError> {
    let failed = |error| OpenError::Root(general_error(error));
    let mut above = options.root.parent();
    while let Some(parent) = above.filter(|_| !options.cluster_znodes.is_empty()) {
        let children = match client.list_children(parent.as_str()).await {
            Ok(children) => children,
            Err(zk::Error::NoNode) => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        if options.cluster_znodes.iter().all(|name| children.iter().any(|child| child == name)) {
            return Err(OpenError::InsideCluster(parent));
        }
        above = parent.parent();
    }
    match options.on_missing_root {
        OnMissingRoot::Create => {
            // Znodes above the root belong to others too, and are left open.
            if let Some(parent) = options.root.parent().filter(|parent| !parent.is_root()) {
                let open = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
                client.mkdir(parent.as_str(), &open).await.map_err(failed)?;
            }
            let acls = access.acls(&TreePath::root());
            let persistent = super::access::options(CreateMode::Persistent, &acls);
            match client.create(options.root.as_str(), b"", &persistent).await {
                Ok(_) | Err(zk::Error::NodeExists) => Ok(()),
                Err(error) => Err(failed(error)),
            }
        }
        OnMissingRoot::Wait => match client.check_stat(options.root.as_str()).await.map_err(failed)? {
            Some(_) => Ok(()),
            None => Err(OpenError::NoRoot),
        },
    }
}

/// Limits how often the same problem is logged.
#[derive(Debug)]
pub(super) struct LogThrottle {
    clock: Clock,
    last: Option<Monotonic>,
}

impl LogThrottle {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, last: None }
    }

    pub(super) fn is_due(&mut self) -> bool {
        let now = self.clock.monotonic();
        let due = self.last.is_none_or(|last| now.since(last) >= LOG_PERIOD);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_problem_is_logged_at_most_once_per_period() {
        let clock = Clock::manual(stormkeeper_model::Timestamp::from_millis(0));
        let mut log_throttle = LogThrottle::new(clock.clone());
        assert!(log_throttle.is_due() && !log_throttle.is_due());
        clock.advance(LOG_PERIOD);
        assert!(log_throttle.is_due() && !log_throttle.is_due());
    }

    #[tokio::test]
    async fn no_request_is_sent_without_a_connection() {
        let link = Link::new(Duration::from_secs(1));
        let sent = link.request(async |_| -> Result<(), zk::Error> { panic!("it was sent") }).await;
        assert_eq!(sent, Err(Error::Disconnected));
        link.close();
        link.show(SessionState::Connecting);
        assert_eq!(*link.subscribe().borrow(), SessionState::Closed, "closed is final");
        let sent = link.request(async |_| -> Result<(), zk::Error> { panic!("it was sent") }).await;
        assert_eq!(sent, Err(Error::Closed));
    }
}
