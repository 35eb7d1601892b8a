//! Locks of a process: the files with tokens and secrets, and whether a proof is required.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use tracing::warn;

use crate::{
    credentials::{Credentials, Signer},
    file::{FileError, PERIOD, WatchedFile},
    quota::Quotas,
    secret::{Secrets, WorkerKeys},
    tls::{Tls, TlsError, TlsSettings, worker::WorkerTls},
    token::Tokens,
};
use stormkeeper_model::{TopologyId, clock::Clock, text};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Treatment of requests without a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every request is accepted, and no proof is looked at.
    Open,
    /// A proof is checked, and a request without one is accepted: the step between the two others in a
    /// running cluster.
    Optional,
    /// A request without a proof is refused.
    Required,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Open, Self::Optional, Self::Required];

    /// Name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Error of a text that is no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `open`, `optional` or `required`")]
pub struct InvalidMode;

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(InvalidMode)
    }
}

/// Settings of a process, as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `storm.access`; without it, `required` if there are tokens and a secret, else `open`.
    pub mode: Option<Mode>,
    /// `ui.tokens.file`.
    pub tokens: Option<PathBuf>,
    /// `storm.cluster.secret.file`.
    pub secret: Option<PathBuf>,
    /// `storm.tls` and its files.
    pub tls: TlsSettings,
}

impl Settings {
    /// Returns the treatment of requests without a proof by the agent of a supervisor.
    pub fn of_supervisor(&self) -> Mode {
        self.mode.unwrap_or(match self.secret {
            Some(_) => Mode::Required,
            None => Mode::Open,
        })
    }
}

/// Error of the locks of a process: it must not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Daemons have no secret.
    #[error(
        "{why}, but storm.cluster.secret.file is not set: daemons could not prove who they are; make a secret \
         with `stormkeeper secret new FILE`, copy it to every host, and set the key"
    )]
    NoSecret {
        /// Cause of the need.
        why: &'static str,
    },
    /// People have no tokens.
    #[error(
        "{why}, but ui.tokens.file is not set: nobody could list or change topologies; make a token with \
         `stormkeeper token new NAME --role admin`, or set storm.access to `optional` or `open`"
    )]
    NoTokens {
        /// Cause of the need.
        why: &'static str,
    },
}

/// Locks of a process. Clones share the contents of the files.
#[derive(Debug, Clone)]
pub struct Locks {
    mode: Mode,
    tokens: Option<WatchedFile<Tokens>>,
    secrets: Option<WatchedFile<Secrets>>,
    tls: Tls,
}

impl Locks {
    /// No locks.
    pub fn open() -> Self {
        Self { mode: Mode::Open, tokens: None, secrets: None, tls: Tls::default() }
    }

    /// Reads the files of a nimbus. Blocks.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn of_nimbus(settings: &Settings) -> Result<Self, Error> {
        let has = (settings.tokens.is_some(), settings.secret.is_some());
        let mode = match (settings.mode, has) {
            (Some(Mode::Required), (false, _)) => {
                return Err(Error::NoTokens { why: "storm.access is `required`" });
            }
            (Some(Mode::Required), (_, false)) => {
                return Err(Error::NoSecret { why: "storm.access is `required`" });
            }
            (None, (true, false)) => return Err(Error::NoSecret { why: "ui.tokens.file is set" }),
            (None, (false, true)) => return Err(Error::NoTokens { why: "storm.cluster.secret.file is set" }),
            (Some(mode), _) => mode,
            (None, (true, true)) => Mode::Required,
            (None, (false, false)) => Mode::Open,
        };
        let open_tokens = |path: &PathBuf| WatchedFile::open(path, Tokens::read);
        Ok(Self {
            mode,
            tokens: settings.tokens.as_ref().map(open_tokens).transpose()?,
            secrets: Self::secrets_of(settings)?,
            tls: Tls::of_daemon(&settings.tls, settings.secret.is_some())?,
        })
    }

    /// Reads the files of a supervisor. It needs no tokens: nimbuses sign their requests to its agent, and
    /// with tokens its agent answers people and Prometheus as well. Hosts may share one configuration, so
    /// the file of the tokens may be missing. Blocks.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub fn of_supervisor(settings: &Settings) -> Result<Self, Error> {
        if settings.mode == Some(Mode::Required) && settings.secret.is_none() {
            return Err(Error::NoSecret { why: "storm.access is `required`" });
        }
        let tokens = settings.tokens.as_ref().filter(|path| path.exists());
        let tokens = tokens.map(|path| WatchedFile::open(path, Tokens::read)).transpose()?;
        Ok(Self {
            mode: settings.of_supervisor(),
            tokens,
            secrets: Self::secrets_of(settings)?,
            tls: Tls::of_daemon(&settings.tls, settings.secret.is_some())?,
        })
    }

    fn secrets_of(settings: &Settings) -> Result<Option<WatchedFile<Secrets>>, FileError> {
        settings.secret.as_ref().map(|path| WatchedFile::open(path, Secrets::read)).transpose()
    }

    /// Treatment of requests without a proof.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The tokens.
    pub fn tokens(&self) -> Option<&WatchedFile<Tokens>> {
        self.tokens.as_ref()
    }

    /// The cluster secrets.
    pub fn secrets(&self) -> Option<&WatchedFile<Secrets>> {
        self.secrets.as_ref()
    }

    /// TLS of the ports and the requests.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Credentials with which the daemon of this name sends requests.
    pub fn credentials(&self, name: &str, clock: &Clock) -> Credentials {
        let signer = |secrets: &WatchedFile<Secrets>| {
            Credentials::Signer(Signer::daemon(name.to_owned(), secrets.clone(), clock.clone()))
        };
        self.secrets.as_ref().map_or(Credentials::None, signer)
    }

    /// Keys for the workers of a topology, if there is a cluster secret. Workers refuse others without
    /// such a key where a proof is required.
    pub fn worker_keys(&self, topology: &TopologyId) -> Option<WorkerKeys> {
        let is_required = self.mode == Mode::Required;
        let keys = |secrets: &WatchedFile<Secrets>| secrets.get().worker_keys(topology);
        self.secrets.as_ref().map(|secrets| WorkerKeys { keys: keys(secrets), is_required })
    }

    /// Starts to read the files again when they change. Returns the reasons why a file on the disk is
    /// not in force.
    pub fn keep_fresh(&self, clock: &Clock, tasks: &Tasks) -> Problems {
        if let Some(tokens) = &self.tokens {
            tasks.start("tokens", OnExit::Ignore, tokens.clone().keep_fresh());
        }
        if let Some(secrets) = &self.secrets {
            tasks.start("cluster secret", OnExit::Ignore, secrets.clone().keep_fresh());
        }
        let (tls, certificate_expired) = self.tls.keep_fresh(clock.clone(), tasks);
        let (unused, unused_lines) = watch::channel(None);
        if let Some(tokens) = self.tokens.clone().filter(|_| !self.tls.asks_clients()) {
            tasks.start("lines of certificates", OnExit::Ignore, watch_certificate_lines(tokens, unused));
        }
        Problems {
            tokens: self.tokens.as_ref().map_or_else(nothing, WatchedFile::problem),
            secrets: self.secrets.as_ref().map_or_else(nothing, WatchedFile::problem),
            tls,
            certificate_expired,
            unused_lines,
            quotas: nothing(),
            zookeeper: ZooKeeperProblems::default(),
        }
    }
}

/// Reports lines with certificates in the tokens of a daemon that asks nobody for one.
async fn watch_certificate_lines(tokens: WatchedFile<Tokens>, problem: watch::Sender<Option<String>>) {
    loop {
        let now = unused_certificates(&tokens);
        problem.send_if_modified(|before| {
            let is_new = *before != now;
            if let Some(reason) = now.as_ref().filter(|_| is_new) {
                warn!(reason, "certificates of people have no effect");
            }
            *before = now;
            is_new
        });
        tokio::time::sleep(PERIOD).await;
    }
}

fn unused_certificates(tokens: &WatchedFile<Tokens>) -> Option<String> {
    let (n, first) = tokens.get().certificate_lines()?;
    let more = match n {
        1 => String::new(),
        _ => format!(" (and {} of other lines)", text::counted(n - 1, "certificate")),
    };
    Some(format!(
        "{}:{first}: the certificate{more} has no effect, as nobody is asked for one: set \
         storm.tls.client.certificates to `optional`, or give the line a token",
        tokens.path().display()
    ))
}

fn nothing() -> watch::Receiver<Option<String>> {
    watch::channel(None).1
}

/// Reasons why the files for ZooKeeper on the disk are not in force.
#[derive(Debug, Clone)]
pub struct ZooKeeperProblems {
    /// Of the users.
    pub users: watch::Receiver<Option<String>>,
    /// Of the certificate and the authorities.
    pub tls: watch::Receiver<Option<String>>,
}

impl Default for ZooKeeperProblems {
    /// No reasons, for ever.
    fn default() -> Self {
        Self { users: nothing(), tls: nothing() }
    }
}

/// Reasons why the files on the disk are not in force.
#[derive(Debug, Clone)]
pub struct Problems {
    /// Of the tokens.
    pub tokens: watch::Receiver<Option<String>>,
    /// Of the cluster secret.
    pub secrets: watch::Receiver<Option<String>>,
    /// Of the certificate and the authorities.
    pub tls: watch::Receiver<Option<String>>,
    /// True while the certificate of the daemon has expired, so that nobody connects to it over TLS.
    pub certificate_expired: watch::Receiver<bool>,
    /// Of lines of the tokens that have no effect.
    pub unused_lines: watch::Receiver<Option<String>>,
    /// Of the quotas.
    pub quotas: watch::Receiver<Option<String>>,
    /// Of the files for ZooKeeper.
    pub zookeeper: ZooKeeperProblems,
}

impl Problems {
    /// Starts to read the quotas again when they change, and adds the reason why they are not in force.
    #[must_use]
    pub fn with_quotas(self, quotas: Option<&WatchedFile<Quotas>>, tasks: &Tasks) -> Self {
        let Some(quotas) = quotas else { return self };
        tasks.start("quotas", OnExit::Ignore, quotas.clone().keep_fresh());
        Self { quotas: quotas.problem(), ..self }
    }

    /// Adds the reasons why files for ZooKeeper are not in force.
    #[must_use]
    pub fn with_zookeeper(self, zookeeper: ZooKeeperProblems) -> Self {
        Self { zookeeper, ..self }
    }

    /// Waits until a reason may have changed. A dropped call loses nothing.
    pub async fn changed(&mut self) {
        async fn of<T>(problem: &mut watch::Receiver<T>) {
            // Nobody sends: there is no such file, or the daemon stops.
            if problem.changed().await.is_err() {
                std::future::pending().await
            }
        }
        tokio::select! {
            () = of(&mut self.tokens) => {}
            () = of(&mut self.secrets) => {}
            () = of(&mut self.tls) => {}
            () = of(&mut self.certificate_expired) => {}
            () = of(&mut self.unused_lines) => {}
            () = of(&mut self.quotas) => {}
            () = of(&mut self.zookeeper.users) => {}
            () = of(&mut self.zookeeper.tls) => {}
        }
    }

    /// Returns the present reasons as one text.
    pub fn text(&self) -> Option<String> {
        let zookeeper = [&self.zookeeper.users, &self.zookeeper.tls];
        let others = [&self.tokens, &self.secrets, &self.tls, &self.unused_lines, &self.quotas];
        let all = others.into_iter().chain(zookeeper);
        let texts: Vec<String> = all.filter_map(|problem| problem.borrow().clone()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// Opens the keys of a worker in its directory, which its supervisor writes if it has a cluster secret,
/// and starts to read them again when they change. Blocks.
///
/// # Errors
/// [`FileError`] if there are keys that cannot be used.
pub fn worker_keys(dir: &Path, tasks: &Tasks) -> Result<WatchedFile<Option<WorkerKeys>>, FileError> {
    let keys = WatchedFile::open(&dir.join(WorkerKeys::FILE), WorkerKeys::read)?;
    tasks.start("access keys", OnExit::Ignore, keys.clone().keep_fresh());
    Ok(keys)
}

/// Opens the TLS of a worker in its directory, which its supervisor writes if it has TLS, and starts to
/// read it again when it changes. Blocks.
///
/// # Errors
/// [`FileError`] if there is a file that cannot be used.
pub fn worker_tls(dir: &Path, tasks: &Tasks) -> Result<WatchedFile<Option<WorkerTls>>, FileError> {
    let tls = WatchedFile::open(&dir.join(WorkerTls::FILE), WorkerTls::read)?;
    tasks.start("authorities", OnExit::Ignore, tls.clone().keep_fresh());
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        file::create_secret,
        principal::{Person, Role},
        token::Token,
    };

    #[test]
    fn half_a_configuration_is_refused_with_the_other_half() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| Some(dir.path().join(name));
        let token = Token::generate().expect("random bytes");
        let line = token.line(&Person { name: "ann".to_owned(), role: Role::Admin, owner: None });
        create_secret(&dir.path().join("tokens"), &line).expect("written");
        create_secret(&dir.path().join("secret"), &Secrets::generate().expect("random bytes"))
            .expect("written");
        let (tokens, secret) = (path("tokens"), path("secret"));
        let locks = |mode, tokens: &Option<PathBuf>, secret: &Option<PathBuf>| {
            let (tokens, secret) = (tokens.clone(), secret.clone());
            let settings = Settings { mode, tokens, secret, tls: TlsSettings::default() };
            Locks::of_nimbus(&settings).map(|locks| locks.mode()).map_err(|error| error.to_string())
        };
        assert_eq!(locks(None, &None, &None), Ok(Mode::Open));
        assert_eq!(locks(None, &tokens, &secret), Ok(Mode::Required));
        for (tokens, secret) in [(&tokens, &None), (&None, &secret)] {
            assert_eq!(locks(Some(Mode::Optional), tokens, secret), Ok(Mode::Optional));
            assert_eq!(locks(Some(Mode::Open), tokens, secret), Ok(Mode::Open));
        }
        let refused = locks(None, &tokens, &None).expect_err("refused");
        assert!(refused.contains("stormkeeper secret new"), "{refused}");
        for refused in [locks(None, &None, &secret), locks(Some(Mode::Required), &None, &None)] {
            let refused = refused.expect_err("refused");
            assert!(
                refused.contains("stormkeeper token new") && refused.contains("storm.access"),
                "{refused}"
            );
        }
        let refused = locks(Some(Mode::Required), &tokens, &None).expect_err("refused");
        assert!(refused.contains("storm.access is `required`"), "{refused}");
        let missing = locks(None, &path("missing"), &secret).expect_err("a missing file opens nothing");
        assert!(missing.contains("missing"), "{missing}");
        let shared = Settings { tokens: path("missing"), secret: secret.clone(), ..Settings::default() };
        let locks = Locks::of_supervisor(&shared).expect("tokens are for nimbuses");
        assert_eq!((locks.mode(), locks.tokens().is_some()), (Mode::Required, false));
        let bad = dir.path().join("bad");
        create_secret(&bad, "ann owner\n").expect("written");
        let bad = Settings { tokens: Some(bad), ..shared };
        assert!(matches!(Locks::of_supervisor(&bad), Err(Error::File(_))));
        let supervisor = Settings { mode: Some(Mode::Required), ..Settings::default() };
        assert!(matches!(Locks::of_supervisor(&supervisor), Err(Error::NoSecret { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn certificate_of_a_person_is_named_with_its_line_while_nobody_is_asked_for_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tokens");
        let digest = "ab".repeat(32);
        let (cert, token) = ("bob reader cert:bob.example.com\n", format!("ann admin sha256:{digest}\n"));
        create_secret(&path, &format!("{token}# people\n{cert}cay reader cert:cay\n")).expect("written");
        let settings =
            Settings { mode: Some(Mode::Optional), tokens: Some(path.clone()), ..Settings::default() };
        let (tasks, locks) = (Tasks::default(), Locks::of_nimbus(&settings).expect("valid"));
        let mut problems = locks.keep_fresh(&Clock::new(), &tasks);
        let wait = Duration::from_secs(60);
        tokio::time::timeout(wait, problems.changed()).await.expect("a problem");
        let text = problems.text().expect("a problem");
        assert!(
            text.contains(&format!("{}:3: the certificate (and 1 certificate of", path.display())),
            "{text}"
        );
        assert!(text.contains("storm.tls.client.certificates"), "{text}");
        std::fs::write(&path, &token).expect("written");
        while problems.text().is_some() {
            tokio::time::timeout(wait, problems.changed()).await.expect("it is over");
        }
    }
}
