//! A TCP proxy between one daemon (with its workers) and the ZooKeeper servers.
//!
//! ```text
//!  daemon ──▶ listener, one per server ──▶ pump of requests ──▶ server
//!         ◀── pump of replies: delayed, held, or dropped ◀──
//! ```
//!
//! The proxy uses four facts of ZooKeeper's protocol: a message has a length prefix, a request
//! begins with its number and its type, and a reply begins with the number of its request. So it
//! can drop the reply to a transaction that the server has applied: the client cannot determine
//! whether the transaction took effect.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use stormkeeper_runtime::tasks::{OnExit, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// ZooKeeper's code of a transaction.
const MULTI: i32 = 14;

/// Largest message that passes: well above the limits of a server.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Treatment of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Messages pass.
    Pass,
    /// Each message is delayed for this time, one after the other, in both directions.
    Delay(Duration),
    /// The client's next transaction waits, and all requests behind it.
    HoldTransactions,
    /// Connections are closed and new ones are refused.
    Refuse,
}

/// Proxy of one daemon. Its connections end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    addresses: Vec<String>,
    faults: Arc<Faults>,
    _tasks: Tasks,
}

#[derive(Debug)]
struct Faults {
    mode: watch::Sender<Mode>,
    /// Number of times that all connections were closed.
    disconnects: watch::Sender<u64>,
    /// Number of replies to transactions that pass before one is dropped.
    // Guards a number; held for single accesses.
    drop_after: Mutex<Option<u32>>,
    dropped_replies: watch::Sender<u64>,
    /// Number of transactions that are held at the moment.
    held: AtomicUsize,
}

impl Proxy {
    /// Starts one listener for each of `servers`.
    pub(crate) async fn start(servers: &[String]) -> Self {
        let faults = Arc::new(Faults {
            mode: watch::Sender::new(Mode::Pass),
            disconnects: watch::Sender::new(0),
            drop_after: Mutex::new(None),
            dropped_replies: watch::Sender::new(0),
            held: AtomicUsize::new(0),
        });
        let tasks = Tasks::default();
        let mut addresses = Vec::new();
        for server in servers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addresses.push(listener.local_addr().expect("it listens").to_string());
            let accepting = accept(listener, server.clone(), Arc::clone(&faults), tasks.child());
            tasks.start("proxy", OnExit::Ignore, accepting);
        }
        Self { addresses, faults, _tasks: tasks }
    }

    /// Addresses for the daemon's configuration, one per server.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Changes the treatment of messages.
    pub(crate) fn set(&self, mode: Mode) {
        self.faults.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.disconnect();
        }
    }

    /// Closes every connection; new connections are possible.
    pub(crate) fn disconnect(&self) {
        self.faults.disconnects.send_modify(|n| *n += 1);
    }

    /// Drops the reply to a transaction after `n` further replies, and closes its connection.
    pub(crate) fn drop_reply_after(&self, n: u32) {
        *self.faults.drop_after.lock().expect("no one panics here") = Some(n);
    }

    /// Number of replies dropped so far.
    pub(crate) fn n_dropped_replies(&self) -> u64 {
        *self.faults.dropped_replies.borrow()
    }

    /// Number of transactions that are held at the moment.
    pub(crate) fn n_held(&self) -> usize {
        self.faults.held.load(Ordering::Relaxed)
    }

    /// Ends all faults: all messages pass.
    pub(crate) fn heal(&self) {
        *self.faults.drop_after.lock().expect("no one panics here") = None;
        self.set(Mode::Pass);
    }
}

impl Faults {
    /// Returns whether the reply to a transaction must be dropped, and counts the reply.
    fn should_drop_reply(&self) -> bool {
        let mut drop_after = self.drop_after.lock().expect("no one panics here");
        let is_dropped = *drop_after == Some(0);
        *drop_after = if is_dropped { None } else { drop_after.map(|n| n - 1) };
        if is_dropped {
            self.dropped_replies.send_modify(|n| *n += 1);
        }
        is_dropped
    }

    /// Waits until a transaction may pass.
    async fn pass_transaction(&self) {
        let _held = Held::new(&self.held);
        let mut mode = self.mode.subscribe();
        // The sender lives as long as `self`.
        let _passes = mode.wait_for(|mode| *mode != Mode::HoldTransactions).await;
    }

    async fn delay(&self) {
        let mode = *self.mode.borrow();
        if let Mode::Delay(delay) = mode {
            tokio::time::sleep(delay).await;
        }
    }
}

/// Counts a transaction that is held, until it passes or its connection breaks.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, server: String, faults: Arc<Faults>, tasks: Tasks) {
    // The proxy accepts a connection before it connects to the server, as a network would.
    while let Ok((client, _)) = listener.accept().await {
        if *faults.mode.borrow() == Mode::Refuse {
            continue;
        }
        let (server, faults) = (server.clone(), Arc::clone(&faults));
        tasks.start("proxied connection", OnExit::Ignore, async move {
            let mut disconnects = faults.disconnects.subscribe();
            let disconnected = disconnects.changed();
            tokio::select! {
                // Dropping the loser half-way has the effect of a broken connection.
                _broken = carry(client, &server, &faults) => {}
                _disconnected = disconnected => {}
            }
        });
    }
}

/// Forwards messages in both directions until either side ends or a reply is dropped.
async fn carry(client: TcpStream, server: &str, faults: &Faults) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Guards the numbers of transactions in flight; a client has a bounded number of them.
    let transactions = Mutex::new(BTreeSet::new());
    tokio::select! {
        // The first to end ends the connection.
        ended = requests(from_client, to_server, &transactions, faults) => ended,
        ended = replies(from_server, to_client, &transactions, faults) => ended,
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    transactions: &Mutex<BTreeSet<i32>>,
    faults: &Faults,
) -> io::Result<()> {
    let mut is_greeting = true;
    loop {
        let message = read_message(&mut from).await?;
        // The first message opens the session and has no number.
        if !std::mem::take(&mut is_greeting) && number_at(&message, 4) == Some(MULTI) {
            transactions.lock().expect("no one panics here").extend(number_at(&message, 0));
            faults.pass_transaction().await;
        }
        faults.delay().await;
        write_message(&mut to, &message).await?;
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    transactions: &Mutex<BTreeSet<i32>>,
    faults: &Faults,
) -> io::Result<()> {
    let mut is_greeting = true;
    loop {
        let message = read_message(&mut from).await?;
        let number = number_at(&message, 0).filter(|_| !std::mem::take(&mut is_greeting));
        let ends_transaction =
            number.is_some_and(|number| transactions.lock().expect("no one panics here").remove(&number));
        if ends_transaction && faults.should_drop_reply() {
            return Ok(());
        }
        faults.delay().await;
        write_message(&mut to, &message).await?;
    }
}

/// Reads the four bytes at `at` as a number of ZooKeeper's protocol.
fn number_at(message: &[u8], at: usize) -> Option<i32> {
    message.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes)
}

async fn read_message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let n_bytes = usize::try_from(from.read_u32().await?).unwrap_or(usize::MAX);
    if n_bytes > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {n_bytes} bytes")));
    }
    let mut message = vec![0; n_bytes];
    from.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(to: &mut OwnedWriteHalf, message: &[u8]) -> io::Result<()> {
    // In one write, so that a closed connection never leaves a complete length with half a message.
    let n_bytes = u32::try_from(message.len()).expect("no longer than MAX_MESSAGE_BYTES");
    let framed = [&n_bytes.to_be_bytes(), message].concat();
    to.write_all(&framed).await
}

mod tests {
    use stormkeeper_coordination::{
        test_support::zookeeper::{fresh_root, shared},
        tree::{self, CreateMode, Op, SessionState, Tree, WriteOutcome, zookeeper::ZooKeeperTree},
    };
    use stormkeeper_runtime::test_support::wait_until;

    use super::*;
    use crate::cluster::WAIT_MAX;

    struct Proxied {
        proxy: Proxy,
        tree: Arc<dyn Tree>,
        _tasks: Tasks,
    }

    async fn connect() -> Proxied {
        let server = shared().await;
        let proxy = Proxy::start(&[server.address()]).await;
        let mut options = server.options(fresh_root("proxied"));
        options.servers = proxy.addresses().to_vec();
        let tasks = Tasks::default();
        let tree = ZooKeeperTree::connect(options, fastrand::Rng::new(), &tasks);
        let proxied = Proxied { proxy, tree, _tasks: tasks };
        proxied.wait_for("a session", |state| matches!(state, SessionState::Connected(_))).await;
        proxied
    }

    impl Proxied {
        async fn wait_for(&self, what: &str, is_it: impl Fn(SessionState) -> bool) {
            wait_until(what, WAIT_MAX, async || {
                let state = *self.tree.session().borrow();
                if is_it(state) { Ok(()) } else { Err(format!("{state:?}")) }
            })
            .await;
        }

        /// Creates a znode in a transaction.
        async fn create(&self, name: &str) -> Result<(), tree::Error> {
            let path = name.parse().expect("valid path");
            let create = Op::Create { path, data: Vec::new(), mode: CreateMode::Persistent };
            self.tree.multi(vec![create]).await.map(drop)
        }

        async fn has(&self, name: &str) -> bool {
            let path = name.parse().expect("valid path");
            wait_until("it is read", WAIT_MAX, async || {
                self.tree.get(&path).await.map(|node| node.is_some()).map_err(|error| error.to_string())
            })
            .await
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dropped_reply_belongs_to_a_transaction_that_took_effect() {
        let proxied = connect().await;
        proxied.proxy.drop_reply_after(1);
        proxied.create("/first").await.expect("its reply passes");
        let error = proxied.create("/second").await.expect_err("its reply is dropped");
        assert_eq!(error.outcome(), WriteOutcome::Unknown, "{error}");
        assert_eq!(proxied.proxy.n_dropped_replies(), 1);
        assert!(
            proxied.has("/second").await,
            "the reply was dropped before the server applied the transaction"
        );
        proxied.create("/third").await.expect("only one reply is dropped");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn held_transaction_is_lost_with_its_connection() {
        let proxied = connect().await;
        proxied.proxy.set(Mode::HoldTransactions);
        let disconnect_when_held = async {
            wait_until("it is held", WAIT_MAX, async || match proxied.proxy.n_held() {
                1 => Ok(()),
                n => Err(format!("{n} are held")),
            })
            .await;
            proxied.proxy.disconnect();
        };
        let (created, ()) = tokio::join!(proxied.create("/held"), disconnect_when_held);
        assert_eq!(created.expect_err("disconnected").outcome(), WriteOutcome::Unknown);
        proxied.proxy.heal();
        assert!(!proxied.has("/held").await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn delayed_messages_arrive_late_and_refused_ones_never() {
        let proxied = connect().await;
        let delay = Duration::from_millis(100);
        proxied.proxy.set(Mode::Delay(delay));
        let start = tokio::time::Instant::now();
        proxied.create("/late").await.expect("a late reply");
        assert!(start.elapsed() >= 2 * delay, "the request and its reply must be delayed");
        proxied.proxy.set(Mode::Refuse);
        proxied.wait_for("no connection", |state| !matches!(state, SessionState::Connected(_))).await;
        proxied.create("/never").await.expect_err("there is no connection");
        proxied.proxy.heal();
        proxied.wait_for("a connection", |state| matches!(state, SessionState::Connected(_))).await;
        assert!(proxied.has("/late").await && !proxied.has("/never").await);
    }
}
