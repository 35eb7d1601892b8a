//! Real ZooKeeper servers for tests: own processes on free loopback ports, with their own data,
//! removed when the test ends.

mod ensemble;
mod setup;

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
    sync::OnceCell,
};

pub use ensemble::Ensemble;
use setup::{JARS, Setup, TEST_SETUP, TLS_JARS};

use crate::tree::{TreePath, options::Options};
use crate::{cluster::layout, tree::options::OnMissingRoot};
use stormkeeper_runtime::test_support::wait_until;

/// Limit for the start of a server, which takes less than a second on an idle host.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Limit for one four-letter-word request, which is then sent again.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Below the range that the system uses for outgoing connections: a client that reconnects to a
/// dead server's port in that range can connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Runs Java under a shell. When our end of the shell's input closes, the shell kills Java and
/// removes its folder, so that no server outlives the tests, however they end: a server that all
/// tests share is never dropped. Prints Java's pid.
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

/// Cause of a failure to start a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program or library is not installed.
    #[error(
        "{0} is missing: these tests need ZooKeeper 3.8 and Java; as root, run `apt-get install -y --no-install-recommends zookeeper` (scripts/test does)"
    )]
    Missing(&'static str),
    /// A file or process operation failed.
    #[error("{what}")]
    Io {
        /// The operation and its object.
        what: String,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("the server ended with {status} before it served requests; its log:\n{log}")]
    Ended {
        /// Exit status or signal.
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
    /// Further options for Java.
    java: Vec<String>,
}

#[derive(Debug)]
struct Process {
    shell: Child,
    /// Open for as long as the server should run; a wait for the shell would close it.
    _input: Option<ChildStdin>,
    server: Pid,
}

impl ZooKeeperServer {
    /// Starts a server for the caller alone and waits until it serves requests.
    ///
    /// # Errors
    /// See [`Error`]. If the server does not respond in a minute, panics with its log.
    pub async fn start() -> Result<Self, Error> {
        let mut server = Self::create(TEST_SETUP, 1, free_ports(1)?[0], "")?;
        server.restart().await?;
        Ok(server)
    }

    /// Writes the folder of server `id`, which will listen on `port`.
    fn create(setup: Setup, id: usize, port: u16, ensemble: &str) -> Result<Self, Error> {
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
        Ok(Self { setup, folder, port, process: None, java: Vec::new() })
    }

    /// Lets the server, from its next start, accept TLS at a second port, whose address is returned, from
    /// clients with a certificate that one of `authorities` has signed. Both texts are PEM; `identity` is the
    /// server's key and certificate.
    ///
    /// # Errors
    /// If there is no free port, or a file cannot be written.
    pub fn add_tls(&mut self, authorities: &str, identity: &str) -> Result<String, Error> {
        self.replace_tls(authorities, identity)?;
        let [authorities, identity] = self.tls_files();
        let port = free_ports(1)?[0];
        self.add_settings(&format!(
            "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={}\nssl.trustStore.location={}\n",
            identity.display(),
            authorities.display(),
        ))?;
        Ok(format!("127.0.0.1:{port}"))
    }

    /// Replaces the authorities and the identity of a server with TLS, from its next start.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn replace_tls(&self, authorities: &str, identity: &str) -> Result<(), Error> {
        for (file, text) in self.tls_files().iter().zip([authorities, identity]) {
            fs::write(file, text).map_err(|source| io_error(file, source))?;
        }
        Ok(())
    }

    fn tls_files(&self) -> [PathBuf; 2] {
        ["authorities.pem", "identity.pem"].map(|name| self.folder.0.join(name))
    }

    /// Lets the server, from its next start, refuse sessions that are not opened by `user` with
    /// `password` over SASL (DIGEST-MD5).
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn demand_sasl(&mut self, user: &str, password: &str) -> Result<(), Error> {
        let jaas = self.folder.0.join("jaas.conf");
        let text = format!(
            "Server {{ org.apache.zookeeper.server.auth.DigestLoginModule required user_{user}=\"{password}\"; }};\n"
        );
        fs::write(&jaas, text).map_err(|source| io_error(&jaas, source))?;
        self.java.push(format!("-Djava.security.auth.login.config={}", jaas.display()));
        self.add_settings(
            "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n\
             enforce.auth.enabled=true\nenforce.auth.schemes=sasl\n",
        )
    }

    fn add_settings(&self, lines: &str) -> Result<(), Error> {
        let file = self.folder.0.join("zoo.cfg");
        let before = fs::read_to_string(&file).map_err(|source| io_error(&file, source))?;
        fs::write(&file, before + lines).map_err(|source| io_error(&file, source))
    }

    /// Address of the server, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Process of the server, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.server)
    }

    /// Directory of the transaction logs.
    pub fn transactions_dir(&self) -> PathBuf {
        self.folder.0.join("data").join("version-2")
    }

    /// Path of the server's log file.
    pub fn log_file(&self) -> PathBuf {
        self.folder.0.join("log")
    }

    /// Options to connect to the server, at `root`.
    pub fn options(&self, root: TreePath) -> Options {
        options(vec![self.address()], root)
    }

    /// Starts the server again, on the same port and data, and waits until it serves requests.
    ///
    /// # Errors
    /// As [`ZooKeeperServer::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill9();
        self.launch()?;
        self.wait_until_serving().await
    }

    /// Kills the server like `kill -9`. Its data stays.
    pub fn kill9(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // The server may have ended by itself.
        let _killed_or_gone = kill_process(process.server, Signal::KILL);
        let _reaped = process.shell.wait();
    }

    /// Stops the process with SIGSTOP, like a long pause, and returns when all of its threads stand
    /// still: on a busy machine one of them may still answer a request after the signal.
    pub async fn pause(&self) {
        self.signal(Signal::STOP);
        let pid = self.process.as_ref().expect("only a running server is paused").server;
        let threads = PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero()));
        wait_until("the server stands still", START_TIMEOUT, async || {
            let all = fs::read_dir(&threads).map_err(|error| error.to_string())?.flatten();
            match all.filter(|thread| !is_stopped(&thread.path())).count() {
                0 => Ok(()),
                n => Err(format!("{n} threads run")),
            }
        })
        .await;
    }

    /// Continues a paused process.
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
            .args(&self.java)
            .args([
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp",
                &JARS.into_iter().chain(TLS_JARS).collect::<Vec<_>>().join(":"),
            ])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.folder.0.join("zoo.cfg"))
            .env("LOG", self.log_file())
            .env("FOLDER", &self.folder.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Io { what: "cannot start sh".to_owned(), source })?;
        let mut pid = String::new();
        let stdout = shell.stdout.take().expect("it was piped");
        BufReader::new(stdout)
            .read_line(&mut pid)
            .map_err(|source| Error::Io { what: "cannot read the server's pid".to_owned(), source })?;
        let Some(server) = pid.trim().parse().ok().and_then(Pid::from_raw) else {
            let _reaped = shell.wait();
            return Err(Error::Missing("java"));
        };
        let input = shell.stdin.take();
        self.process = Some(Process { shell, _input: input, server });
        Ok(())
    }

    /// Waits until the server serves requests.
    async fn wait_until_serving(&mut self) -> Result<(), Error> {
        let address = self.address();
        let log_file = self.log_file();
        let shell = self.process.as_mut().map(|process| &mut process.shell);
        let shell = std::sync::Mutex::new(shell.expect("it was launched"));
        wait_until("the server serves requests", START_TIMEOUT, async || {
            let ended = shell.lock().expect("no one panics here").try_wait();
            if let Ok(Some(status)) = ended {
                return Ok(Err(Error::Ended { status, log: tail(&log_file) }));
            }
            match ask(&address, "srvr").await {
                Ok(response) if response.contains("Mode:") => Ok(Ok(())),
                Ok(response) => Err(format!("{response:?}; its log:\n{}", tail(&log_file))),
                Err(error) => Err(format!("{error}; its log:\n{}", tail(&log_file))),
            }
        })
        .await
    }

    /// Sends one of ZooKeeper's four-letter words, such as `srvr`, `wchp` or `dump`.
    ///
    /// # Errors
    /// If the server cannot be reached.
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

/// The server that the tests of one binary share; each test uses its own root.
///
/// # Panics
/// If the server cannot be started; the message says what to do.
pub async fn shared() -> &'static ZooKeeperServer {
    static SHARED: OnceCell<ZooKeeperServer> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            ZooKeeperServer::start().await.unwrap_or_else(|error| panic!("no ZooKeeper: {error}"))
        })
        .await
}

/// Returns a root that no other test of this process uses.
pub fn fresh_root(name: &str) -> TreePath {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("/test/{name}-{n}").parse().expect("a test's name fits in a path")
}

fn options(servers: Vec<String>, root: TreePath) -> Options {
    // Long enough for a machine that compiles at the same time; tests of expiry set shorter ones.
    let (session_timeout, request_timeout) = (Duration::from_secs(10), Duration::from_secs(10));
    let on_missing_root = OnMissingRoot::Create;
    Options {
        servers,
        root,
        on_missing_root,
        cluster_znodes: layout::CLUSTER_ZNODES,
        access: None,
        tls: None,
        session_timeout,
        request_timeout,
    }
}

async fn ask(address: &str, word: &str) -> io::Result<String> {
    let request = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        Ok(response)
    };
    // A server that is just starting may accept the request and never respond.
    tokio::time::timeout(RESPONSE_TIMEOUT, request).await?
}

/// Returns different ports on which no process listens.
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
            // Bound until all are found, so that no port is found twice.
            let ports: io::Result<Vec<u16>> =
                held.iter().map(|held| held.local_addr().map(|address| address.port())).collect();
            return ports.map_err(|source| Error::Io { what: "cannot read a port".to_owned(), source });
        }
    }
    Err(Error::Io { what: format!("no free port in {PORTS:?}"), source: last })
}

/// Returns whether a thread stands still after SIGSTOP, or has ended.
fn is_stopped(thread: &Path) -> bool {
    let Ok(stat) = fs::read_to_string(thread.join("stat")) else { return true };
    // The state follows the name, which may contain anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
}

/// The last lines of a log.
fn tail(file: &Path) -> String {
    const N_LINES: usize = 30;
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(N_LINES)..].join("\n")
}

fn io_error(file: &Path, source: io::Error) -> Error {
    Error::Io { what: format!("cannot write {}", file.display()), source }
}

/// A folder that is deleted on drop, unless a test is failing.
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
            // A folder left in the temporary directory is harmless.
            let _deleted = fs::remove_dir_all(&self.0);
        }
    }
}
