//! Real ZooKeeper servers for tests: own processes on free loopback ports, with their own
//! data, gone when the test is.

use std::{
    fs, io,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Mutex, MutexGuard, OnceCell},
};

use crate::{
    test_support::wait_until,
    tree::{TreePath, options::Options},
};

/// Where Debian puts the server and a logger that works with it.
const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];

/// How a server is set up.
#[derive(Debug, Clone, Copy)]
struct Setup {
    /// ZooKeeper's unit of time. Sessions last two ticks at least, and end with a tick.
    tick: Duration,
    /// What else Java is told.
    java: &'static [&'static str],
}

/// A short tick, so that sessions may be short and expire soon; started quickly; nothing is
/// synced to the disk.
const FOR_TESTS: Setup = Setup {
    tick: Duration::from_millis(250),
    java: &[
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-Dzookeeper.forceSync=no",
        "-Dzookeeper.preAllocSize=1024",
    ],
};

/// What an operator gets: ZooKeeper's own tick, every transaction synced, and a heap that
/// holds a few hundred thousand znodes.
const AS_DEPLOYED: Setup = Setup { tick: Duration::from_secs(2), java: &["-Xmx1g", "-XX:-UsePerfData"] };

/// A server answers within a second on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long one question may take; it is asked again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Below the range that the system gives to outgoing connections: a client that reconnects to
/// a dead server's port in that range can meet itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Runs Java under a shell that kills it when our end of the shell's input closes, so that no
/// server outlives the tests, however they end, and takes its folder along then: a server
/// that all tests share is never dropped. Prints Java's pid.
const SCRIPT: &str = r#"
exec 3<&0
command -v java >/dev/null || exit 127
java "$@" >>"$LOG" 2>&1 </dev/null &
server=$!
echo "$server"
{ read -r _ <&3; kill -9 "$server" 2>/dev/null; rm -rf "$FOLDER"; } &
guard=$!
wait "$server" 2>/dev/null
status=$?
kill "$guard" 2>/dev/null
exit "$status"
"#;

/// A server that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is not installed.
    #[error(
        "{0} is missing: these tests need ZooKeeper 3.8 and Java; as root, run `apt-get install -y --no-install-recommends zookeeper` (scripts/test does)"
    )]
    Missing(&'static str),
    /// A file or process operation failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("the server ended with {status} before it answered; its log:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
}

/// One server process with its data; killed and deleted when dropped.
#[derive(Debug)]
pub struct ZooKeeperServer {
    setup: Setup,
    folder: Folder,
    port: u16,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    shell: Child,
    /// Open for as long as the server is to live; waiting for the shell would close it.
    _input: Option<ChildStdin>,
    server: Pid,
}

/// Servers that are one ZooKeeper: one alone, or three or more that elect a leader among
/// themselves.
#[derive(Debug)]
pub struct Ensemble {
    /// Its servers.
    pub servers: Vec<ZooKeeperServer>,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Held by the one test that has several servers: on two cores, two ensembles at once only
/// slow each other down.
static ENSEMBLE_TURN: Mutex<()> = Mutex::const_new(());

impl ZooKeeperServer {
    /// Starts a server of its own and waits until it answers.
    ///
    /// # Errors
    /// See [`Error`]; when it does not answer in a minute, it panics with its log.
    pub async fn start() -> Result<Self, Error> {
        let mut server = Self::lay_out(FOR_TESTS, 1, free_ports(1)?[0], "")?;
        server.restart().await?;
        Ok(server)
    }

    /// Writes the folder of server `id` that is to listen on `port`.
    fn lay_out(setup: Setup, id: usize, port: u16, ensemble: &str) -> Result<Self, Error> {
        for jar in JARS {
            if !Path::new(jar).exists() {
                return Err(Error::Missing(jar));
            }
        }
        let folder = Folder::create()?;
        let data = folder.0.join("data");
        fs::create_dir_all(&data).map_err(|source| io_error(&data, source))?;
        let myid = data.join("myid");
        fs::write(&myid, id.to_string()).map_err(|source| io_error(&myid, source))?;
        let tick_ms = setup.tick.as_millis();
        let config = format!(
            "tickTime={tick_ms}\nminSessionTimeout={}\nmaxSessionTimeout=120000\ninitLimit=40\nsyncLimit=20\n\
             dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             4lw.commands.whitelist=*\nmaxClientCnxns=0\n{ensemble}",
            2 * tick_ms,
            data.display(),
        );
        let file = folder.0.join("zoo.cfg");
        fs::write(&file, config).map_err(|source| io_error(&file, source))?;
        Ok(Self { setup, folder, port, process: None })
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.server)
    }

    /// Where its transaction logs are.
    pub fn transactions_dir(&self) -> PathBuf {
        self.folder.0.join("data").join("version-2")
    }

    /// The file that it logs to.
    pub fn log_file(&self) -> PathBuf {
        self.folder.0.join("log")
    }

    /// How to connect to it, at `root`.
    pub fn options(&self, root: TreePath) -> Options {
        options(vec![self.address()], root)
    }

    /// Starts it again, on the same port and data, and waits until it answers.
    ///
    /// # Errors
    /// As [`ZooKeeperServer::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill9();
        self.launch()?;
        self.answering().await
    }

    /// Kills it, as `kill -9` does. Its data stays.
    pub fn kill9(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // It may have ended by itself.
        let _killed_or_gone = kill_process(process.server, Signal::KILL);
        let _reaped = process.shell.wait();
    }

    /// Stops the process where it is (SIGSTOP), as a long pause would.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("only a running server is paused");
        kill_process(process.server, signal).expect("a running server takes signals");
    }

    fn launch(&mut self) -> Result<(), Error> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "zookeeper"])
            .args(self.setup.java)
            .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &JARS.join(":")])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.folder.0.join("zoo.cfg"))
            .env("LOG", self.log_file())
            .env("FOLDER", &self.folder.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Io { what: "sh is not started".to_owned(), source })?;
        let mut pid = String::new();
        let stdout = shell.stdout.take().expect("it was piped");
        BufReader::new(stdout)
            .read_line(&mut pid)
            .map_err(|source| Error::Io { what: "the server's pid is not read".to_owned(), source })?;
        let Some(server) = pid.trim().parse().ok().and_then(Pid::from_raw) else {
            let _reaped = shell.wait();
            return Err(Error::Missing("java"));
        };
        let input = shell.stdin.take();
        self.process = Some(Process { shell, _input: input, server });
        Ok(())
    }

    /// Waits until the server serves requests.
    async fn answering(&mut self) -> Result<(), Error> {
        let address = self.address();
        let log_file = self.log_file();
        let shell = self.process.as_mut().map(|process| &mut process.shell);
        let shell = std::sync::Mutex::new(shell.expect("it was launched"));
        wait_until("the server answers", START_PATIENCE, async || {
            let ended = shell.lock().expect("no one panics here").try_wait();
            if let Ok(Some(status)) = ended {
                return Ok(Err(Error::Ended { status, log: tail(&log_file) }));
            }
            match ask(&address, "srvr").await {
                Ok(answer) if answer.contains("Mode:") => Ok(Ok(())),
                Ok(answer) => Err(format!("{answer:?}; its log:\n{}", tail(&log_file))),
                Err(error) => Err(format!("{error}; its log:\n{}", tail(&log_file))),
            }
        })
        .await
    }

    /// Asks one of ZooKeeper's four-letter words, such as `srvr`, `wchp` or `dump`.
    ///
    /// # Errors
    /// When the server is not there.
    pub async fn ask(&self, word: &str) -> io::Result<String> {
        ask(&self.address(), word).await
    }
}

impl Drop for ZooKeeperServer {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            tracing::error!(folder = %self.folder.0.display(), log = tail(&self.log_file()), "server of a failed test");
        }
    }
}

impl Ensemble {
    /// Starts `n` servers and waits until all of them serve. With more than one, only one
    /// ensemble runs at a time.
    ///
    /// # Errors
    /// As [`ZooKeeperServer::start`].
    pub async fn start(n: usize) -> Result<Self, Error> {
        Self::start_with(FOR_TESTS, n).await
    }

    /// The same with the settings of servers in production, for measurements.
    ///
    /// # Errors
    /// As [`ZooKeeperServer::start`].
    pub async fn start_as_deployed(n: usize) -> Result<Self, Error> {
        Self::start_with(AS_DEPLOYED, n).await
    }

    async fn start_with(setup: Setup, n: usize) -> Result<Self, Error> {
        let turn = if n > 1 { Some(ENSEMBLE_TURN.lock().await) } else { None };
        let ports = free_ports(3 * n)?;
        let (clients, peers) = ports.split_at(n);
        let peers = peers.chunks(2).enumerate().filter(|_| n > 1);
        let members: String = peers
            .map(|(i, ports)| format!("server.{}=127.0.0.1:{}:{}\n", i + 1, ports[0], ports[1]))
            .collect();
        let servers = clients.iter().enumerate();
        let servers = servers.map(|(i, &port)| ZooKeeperServer::lay_out(setup, i + 1, port, &members));
        let mut ensemble = Self { servers: servers.collect::<Result<_, _>>()?, _turn: turn };
        ensemble.restart().await?;
        Ok(ensemble)
    }

    /// Starts every server again, on its data, and waits until all of them serve.
    ///
    /// # Errors
    /// As [`ZooKeeperServer::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill9();
        for server in &mut self.servers {
            server.launch()?;
        }
        // None of them answers before most of them are up.
        for server in &mut self.servers {
            server.answering().await?;
        }
        Ok(())
    }

    /// Kills every server. Their data stays.
    pub fn kill9(&mut self) {
        for server in &mut self.servers {
            server.kill9();
        }
    }

    /// Which server leads the others; `None` while they elect one, or when it is alone.
    pub async fn leading(&self) -> Option<usize> {
        for (i, server) in self.servers.iter().enumerate() {
            // One that does not answer leads nobody.
            if server.ask("srvr").await.is_ok_and(|answer| answer.contains("Mode: leader")) {
                return Some(i);
            }
        }
        None
    }

    /// How to connect to it, at `root`.
    pub fn options(&self, root: TreePath) -> Options {
        options(self.servers.iter().map(ZooKeeperServer::address).collect(), root)
    }
}

/// The server that the tests of one binary share; each uses a root of its own.
///
/// # Panics
/// When it cannot be started, with what to do.
pub async fn shared() -> &'static ZooKeeperServer {
    static SHARED: OnceCell<ZooKeeperServer> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            ZooKeeperServer::start().await.unwrap_or_else(|error| panic!("no ZooKeeper: {error}"))
        })
        .await
}

/// A root that no other test of this process uses.
pub fn fresh_root(name: &str) -> TreePath {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("/test/{name}-{n}").parse().expect("a test's name fits in a path")
}

fn options(servers: Vec<String>, root: TreePath) -> Options {
    // Long enough for a machine that compiles meanwhile; tests of expiry set their own.
    let (session_timeout, request_timeout) = (Duration::from_secs(10), Duration::from_secs(10));
    Options { servers, root, session_timeout, request_timeout }
}

async fn ask(address: &str, word: &str) -> io::Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    // A server that is just starting may take the question and never answer it.
    tokio::time::timeout(ANSWER_PATIENCE, asking).await?
}

/// Ports that nobody listens on, all different.
fn free_ports(n: usize) -> Result<Vec<u16>, Error> {
    const MAX_TRIES: usize = 1000;
    let mut held = Vec::new();
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..MAX_TRIES {
        match TcpListener::bind(("127.0.0.1", fastrand::u16(PORTS))) {
            Ok(listener) => held.push(listener),
            Err(error) => last = error,
        }
        if held.len() == n {
            // Held until all are found, so that none is found twice.
            let ports: io::Result<Vec<u16>> =
                held.iter().map(|held| held.local_addr().map(|address| address.port())).collect();
            return ports.map_err(|source| Error::Io { what: "a port is not read".to_owned(), source });
        }
    }
    Err(Error::Io { what: format!("no free port in {PORTS:?}"), source: last })
}

/// The last lines of a log.
fn tail(file: &Path) -> String {
    const N_LINES: usize = 30;
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(N_LINES)..].join("\n")
}

fn io_error(file: &Path, source: io::Error) -> Error {
    Error::Io { what: format!("{} is not written", file.display()), source }
}

/// A folder that is deleted when dropped, unless a test is failing.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self, Error> {
        let name = format!("stormkeeper-zookeeper-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).map_err(|source| io_error(&path, source))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // What is left in the temporary folder harms nobody.
            let _deleted = fs::remove_dir_all(&self.0);
        }
    }
}
