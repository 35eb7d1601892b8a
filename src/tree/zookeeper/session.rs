//! One session after another: connect, follow its state, and start over when it has ended.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zookeeper_client as zk;

use crate::{
    backoff::Backoff,
    clock::{Clock, Monotonic},
    daemon::watch,
    tree::{Error, SessionId, SessionState, TreePath, options::Options, zookeeper::errors::general_error},
};

/// How many requests may be under way at once; the next ones wait their turn, within their
/// own deadline. 64 already keep a server busy, and a client without a bound fills its memory
/// when the server stalls.
const MAX_REQUESTS: usize = 256;

/// The pauses between tries to reach any server.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A complaint about the same trouble is not repeated before this has passed.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(30);

/// What requests, the session's keeper and the watches' keeper have in common.
#[derive(Debug)]
pub(super) struct Link {
    // Guards the handle of the session that is open; held for a clone.
    client: Mutex<Option<zk::Client>>,
    state: watch::Sender<SessionState>,
    permits: Semaphore,
    request_timeout: Duration,
    closed: CancellationToken,
}

impl Link {
    pub(super) fn new(request_timeout: Duration) -> Self {
        Self {
            client: Mutex::new(None),
            state: watch::Sender::new(SessionState::Connecting),
            permits: Semaphore::new(MAX_REQUESTS),
            request_timeout,
            closed: CancellationToken::new(),
        }
    }

    /// Makes one request by `send`, when there is a connection, and waits for its answer.
    ///
    /// # Errors
    /// Those of a connection; what the server answers is in the inner result.
    pub(super) async fn request<T, F, Fut>(&self, send: F) -> Result<Result<T, zk::Error>, Error>
    where
        F: FnOnce(zk::Client) -> Fut,
        Fut: Future<Output = Result<T, zk::Error>>,
    {
        self.connected()?;
        let lost = |why: String| Err(Error::ConnectionLost(why));
        // One deadline for the turn and the answer together.
        let mut deadline = std::pin::pin!(tokio::time::sleep(self.request_timeout));
        let _permit = tokio::select! {
            // A turn that comes with the deadline comes too late: nobody would wait for the answer.
            biased;
            // Giving up a place in the queue has no effect on the tree.
            () = &mut deadline => return Err(Error::Disconnected),
            // Never closed; in any case nothing was sent.
            permit = self.permits.acquire() => permit.map_err(|_closed| Error::Closed)?,
        };
        let client = self.connected()?;
        tokio::select! {
            // Dropping the answer of a request that is under way leaves its outcome unknown,
            // and both errors say so.
            answer = Box::pin(send(client)) => Ok(answer),
            () = self.closed.cancelled() => lost("it was closed".to_owned()),
            () = deadline => lost(format!("no answer within {:?}", self.request_timeout)),
        }
    }

    /// The state, to be followed.
    pub(super) fn subscribe(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    /// The session that is connected now.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.state.borrow().connected()
    }

    /// Refuses everything from now on and gives up the session's handle.
    pub(super) fn close(&self) -> Option<zk::Client> {
        self.closed.cancel();
        self.state.send_replace(SessionState::Closed);
        self.client().take()
    }

    fn connected(&self) -> Result<zk::Client, Error> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        // While there is no connection the client crate would queue the request without a
        // bound and run it whenever the connection is back.
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

/// Keeps a session open until it is cancelled; wakes `changed` at each change of its state.
pub(super) async fn keep(link: Arc<Link>, options: Options, mut backoff: Backoff, changed: Arc<Notify>) {
    let mut complaints = Complaints::new(Clock::new());
    loop {
        let client = match open(&options).await {
            Ok(client) => client,
            Err(error) => {
                if complaints.is_due() {
                    let servers = options.servers.join(",");
                    warn!(%servers, root = %options.root, %error, "cannot reach ZooKeeper; trying on");
                }
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
        };
        backoff.reset();
        complaints = Complaints::new(Clock::new());
        let session = SessionId(client.session_id().0);
        info!(%session, timeout = ?client.session_timeout(), root = %options.root, "session opened");
        let states = client.state_watcher();
        *link.client() = Some(client);
        let last = follow(&link, session, states, &changed).await;
        *link.client() = None;
        link.show(SessionState::Connecting);
        warn!(%session, state = %last, "session ended; opening another");
        changed.notify_one();
        // A server that ends every session at once is not to be asked without a pause.
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// The pauses between tries to connect.
pub(super) fn retries(random: fastrand::Rng) -> Backoff {
    Backoff::new(RETRY_MIN, RETRY_MAX, random).expect("the bounds are constants in their order")
}

/// Shows the states of one session until it has ended.
async fn follow(
    link: &Link,
    session: SessionId,
    mut states: zk::StateWatcher,
    changed: &Notify,
) -> zk::SessionState {
    let mut state = states.state();
    loop {
        match state {
            zk::SessionState::SyncConnected | zk::SessionState::ConnectedReadOnly => {
                link.show(SessionState::Connected(session));
            }
            zk::SessionState::Disconnected => {
                warn!(%session, "connection lost; the session lives on for now");
                link.show(SessionState::Disconnected(session));
            }
            // Expired, refused or closed: there is no way back, and the list may grow.
            last => return last,
        }
        changed.notify_one();
        state = states.changed().await;
    }
}

/// One try to open a session and to make sure of our root.
async fn open(options: &Options) -> Result<zk::Client, Error> {
    let connector = zk::Client::connector().with_session_timeout(options.session_timeout).with_fail_eagerly();
    let client = connector.connect(&options.servers.join(",")).await.map_err(unreachable_because)?;
    if options.root == TreePath::root() {
        return Ok(client);
    }
    let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    let made = client.mkdir(options.root.as_str(), &persistent);
    match tokio::time::timeout(options.request_timeout, made).await {
        Err(_) => {
            return Err(Error::ConnectionLost(format!("no answer within {:?}", options.request_timeout)));
        }
        Ok(made) => made.map_err(general_error)?,
    }
    let refuse = |_| Error::Refused(format!("{} cannot be a root", options.root));
    client.chroot(options.root.as_str()).map_err(refuse)
}

/// Why there is no session; of the crate's errors here only the text helps.
fn unreachable_because(error: zk::Error) -> Error {
    match error {
        zk::Error::NoHosts => Error::ConnectionLost("no server accepts a connection".to_owned()),
        other => Error::ConnectionLost(other.to_string()),
    }
}

/// Says when the same trouble may be logged again.
#[derive(Debug)]
pub(super) struct Complaints {
    clock: Clock,
    last: Option<Monotonic>,
}

impl Complaints {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, last: None }
    }

    pub(super) fn is_due(&mut self) -> bool {
        let now = self.clock.monotonic();
        let due = self.last.is_none_or(|last| now.since(last) >= COMPLAINT_PERIOD);
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
    fn the_same_complaint_is_not_repeated_at_once() {
        let clock = Clock::manual(crate::model::Timestamp::from_millis(0));
        let mut complaints = Complaints::new(clock.clone());
        assert!(complaints.is_due() && !complaints.is_due());
        clock.turn(COMPLAINT_PERIOD);
        assert!(complaints.is_due() && !complaints.is_due());
    }

    #[tokio::test]
    async fn nothing_is_sent_without_a_connection() {
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
