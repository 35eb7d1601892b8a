//! A TCP proxy between one daemon (with its workers) and the ZooKeeper servers.
//!
//! ```text
//!  daemon ──▶ listener, one per server ──▶ pump of requests ──▶ server
//!         ◀── pump of replies: delayed, held, or swallowed ◀──
//! ```
//!
//! It knows of ZooKeeper's protocol that messages have their length in front, that a request
//! begins with its number and its kind, and a reply with the number of its request. So it can
//! swallow the answer to a transaction that the server has carried out: the client cannot
//! know whether it took effect.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use stormkeeper_runtime::tasks::{Ending, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// ZooKeeper's number for a transaction.
const MULTI: i32 = 14;

/// The largest message that passes: well over what a server sends or takes.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What happens to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// Each waits for so long, one after the other, in both directions.
    Delay(Duration),
    /// The next transaction of the client waits, and all requests behind it.
    HoldTransactions,
    /// There is no connection, and none can be made.
    Refuse,
}

/// The proxy of one daemon. Its connections end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    addresses: Vec<String>,
    faults: Arc<Faults>,
    _tasks: Tasks,
}

#[derive(Debug)]
struct Faults {
    mode: watch::Sender<Mode>,
    /// How often all connections were cut.
    cuts: watch::Sender<u64>,
    /// How many more answers to transactions pass before one is swallowed.
    // Guards a number; held for a look at it.
    trap: Mutex<Option<u32>>,
    swallowed: watch::Sender<u64>,
    /// How many transactions are held now.
    held: AtomicUsize,
}

impl Proxy {
    /// One listener before each of `servers`.
    pub(crate) async fn start(servers: &[String]) -> Self {
        let faults = Arc::new(Faults {
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            trap: Mutex::new(None),
            swallowed: watch::Sender::new(0),
            held: AtomicUsize::new(0),
        });
        let tasks = Tasks::default();
        let mut addresses = Vec::new();
        for server in servers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addresses.push(listener.local_addr().expect("it listens").to_string());
            let accepting = accept(listener, server.clone(), Arc::clone(&faults), tasks.child());
            tasks.start("proxy", Ending::Normal, accepting);
        }
        Self { addresses, faults, _tasks: tasks }
    }

    /// Where the daemon is to connect to, each for one server.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Treats messages in another way from now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.faults.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Breaks every connection; new ones can be made.
    pub(crate) fn cut(&self) {
        self.faults.cuts.send_modify(|n| *n += 1);
    }

    /// Swallows the answer to a transaction after `n` more of them, and breaks its connection.
    pub(crate) fn swallow_after(&self, n: u32) {
        *self.faults.trap.lock().expect("no one panics here") = Some(n);
    }

    /// How many answers were swallowed so far.
    pub(crate) fn n_swallowed(&self) -> u64 {
        *self.faults.swallowed.borrow()
    }

    /// How many transactions are held now.
    pub(crate) fn n_held(&self) -> usize {
        self.faults.held.load(Ordering::Relaxed)
    }

    /// As at the start: everything passes.
    pub(crate) fn heal(&self) {
        *self.faults.trap.lock().expect("no one panics here") = None;
        self.set(Mode::Pass);
    }
}

impl Faults {
    /// Whether the answer to a transaction is to be swallowed.
    fn springs(&self) -> bool {
        let mut trap = self.trap.lock().expect("no one panics here");
        let springs = *trap == Some(0);
        *trap = if springs { None } else { trap.map(|n| n - 1) };
        if springs {
            self.swallowed.send_modify(|n| *n += 1);
        }
        springs
    }

    /// Waits until a transaction may pass.
    async fn pass_transaction(&self) {
        let _held = Held::new(&self.held);
        let mut mode = self.mode.subscribe();
        // The sender lives as long as we do.
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
    // The proxy takes a connection before it asks the server for one, as a network would.
    while let Ok((client, _)) = listener.accept().await {
        if *faults.mode.borrow() == Mode::Refuse {
            continue;
        }
        let (server, faults) = (server.clone(), Arc::clone(&faults));
        tasks.start("proxied connection", Ending::Normal, async move {
            let mut cuts = faults.cuts.subscribe();
            let cut = cuts.changed();
            tokio::select! {
                // All of them may be dropped half-way: that is a broken connection.
                _broken = carry(client, &server, &faults) => {}
                _cut = cut => {}
            }
        });
    }
}

/// Carries messages in both directions until either side ends or an answer is swallowed.
async fn carry(client: TcpStream, server: &str, faults: &Faults) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Guards the numbers of transactions under way; a client has a bounded number of them.
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
        if ends_transaction && faults.springs() {
            return Ok(());
        }
        faults.delay().await;
        write_message(&mut to, &message).await?;
    }
}

/// The four bytes at `at` as ZooKeeper writes numbers.
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
    // In one piece, so that a cut never leaves half a message behind a whole length.
    let n_bytes = u32::try_from(message.len()).expect("no longer than MAX_MESSAGE_BYTES");
    let framed = [&n_bytes.to_be_bytes(), message].concat();
    to.write_all(&framed).await
}

mod tests {
    use stormkeeper_coordination::{
        test_support::zookeeper::{fresh_root, shared},
        tree::{self, CreateMode, Op, Outcome, SessionState, Tree, zookeeper::ZooKeeperTree},
    };
    use stormkeeper_runtime::test_support::wait_until;

    use super::*;
    use crate::cluster::PATIENCE;

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
            wait_until(what, PATIENCE, async || {
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
            wait_until("it is read", PATIENCE, async || {
                self.tree.get(&path).await.map(|node| node.is_some()).map_err(|error| error.to_string())
            })
            .await
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_swallowed_answer_is_of_a_transaction_that_took_effect() {
        let proxied = connect().await;
        proxied.proxy.swallow_after(1);
        proxied.create("/first").await.expect("its answer passes");
        let error = proxied.create("/second").await.expect_err("its answer is swallowed");
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert_eq!(proxied.proxy.n_swallowed(), 1);
        assert!(proxied.has("/second").await, "it was swallowed before the server did it");
        proxied.create("/third").await.expect("only one answer is swallowed");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_held_transaction_never_happens_when_its_connection_breaks() {
        let proxied = connect().await;
        proxied.proxy.set(Mode::HoldTransactions);
        let cut_when_held = async {
            wait_until("it is held", PATIENCE, async || match proxied.proxy.n_held() {
                1 => Ok(()),
                n => Err(format!("{n} are held")),
            })
            .await;
            proxied.proxy.cut();
        };
        let (created, ()) = tokio::join!(proxied.create("/held"), cut_when_held);
        assert_eq!(created.expect_err("cut").outcome(), Outcome::Unknown);
        proxied.proxy.heal();
        assert!(!proxied.has("/held").await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_delayed_comes_late_and_what_is_refused_not_at_all() {
        let proxied = connect().await;
        let delay = Duration::from_millis(100);
        proxied.proxy.set(Mode::Delay(delay));
        let start = tokio::time::Instant::now();
        proxied.create("/late").await.expect("it comes late");
        assert!(start.elapsed() >= 2 * delay, "the request and its answer were delayed");
        proxied.proxy.set(Mode::Refuse);
        proxied.wait_for("no connection", |state| !matches!(state, SessionState::Connected(_))).await;
        proxied.create("/never").await.expect_err("there is no connection");
        proxied.proxy.heal();
        proxied.wait_for("a connection", |state| matches!(state, SessionState::Connected(_))).await;
        assert!(proxied.has("/late").await && !proxied.has("/never").await);
    }
}
