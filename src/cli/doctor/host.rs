//! Facts about this host, each within a time limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    facts::{CertificateFile, Descriptors, Disk, Holder, Known, Port, SecretFile, Unread},
    gather::{LIMIT, within_blocking},
};
use crate::{cli::local_dir, config::Config};
use stormkeeper_access::{
    file::{self, FileError, Protection},
    tls::{certificate::PeerCertificate, pem_file},
};
use stormkeeper_runtime::{blocking, error_chain, proc};

/// State of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Keys of files that only their owner may read.
const SECRETS: &[&str] = &[
    "storm.cluster.secret.file",
    "storm.tls.key.file",
    "storm.zookeeper.tls.key.file",
    "storm.zookeeper.tls.workers.key.file",
    "storm.zookeeper.users.file",
    "ui.cert.key.file",
    "ui.token.file",
];

/// Keys of files that only their owner may change.
const UNCHANGED: &[&str] = &["nimbus.quotas.file", "ui.tokens.file"];

/// Keys of files with certificates.
const CERTIFICATES: &[&str] = &[
    "storm.tls.ca.file",
    "storm.tls.cert.file",
    "storm.zookeeper.tls.ca.file",
    "storm.zookeeper.tls.cert.file",
    "storm.zookeeper.tls.workers.cert.file",
    "ui.cert.file",
];

/// Maximum number of certificates of a file that are looked at.
const CERTIFICATES_MAX: usize = 1000;

/// Names of cgroup v2's file with the controllers: alone, and beside version 1.
const CONTROLLERS: [&str; 2] =
    ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];

/// Finds out who listens on the ports of the daemons.
pub(super) async fn ports(config: &Config) -> Known<Vec<Port>> {
    let (nimbus, supervisor) = (config.nimbus_options(), config.supervisor_options());
    let agent = supervisor.agent.map(|agent| ("supervisor.agent.port", agent.address.port()));
    let slots = supervisor.ports.into_iter().map(|port| ("supervisor.slots.ports", port.0));
    let all = [("ui.port", nimbus.api.port())].into_iter().chain(agent).chain(slots);
    // 0 is any free port.
    let wanted: Vec<(&str, u16)> = all.filter(|(_, port)| *port != 0).collect();
    within_blocking(move || {
        let holders = holders(&wanted.iter().map(|(_, port)| *port).collect())?;
        let port = |(key, port)| Port { port, key, holder: holders.get(&port).cloned() };
        Ok(wanted.into_iter().map(port).collect())
    })
    .await
}

/// Returns the processes that listen on `ports`.
fn holders(ports: &BTreeSet<u16>) -> Known<BTreeMap<u16, Holder>> {
    let mut sockets = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => sockets.extend(listening(&text).filter(|(_, port)| ports.contains(port))),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot read {table}: {error}")),
        }
    }
    let mut holders: BTreeMap<u16, Holder> = sockets.values().map(|port| (*port, Holder::Unknown)).collect();
    if sockets.is_empty() {
        return Ok(holders);
    }
    for pid in proc::pids().map_err(|error| error.to_string())? {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for target in entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
            if let Some(port) = inode.and_then(|inode| sockets.get(inode)) {
                holders.insert(*port, Holder::Process { pid, program: program(pid) });
            }
        }
    }
    Ok(holders)
}

fn program(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// Returns the inodes and ports of the sockets that listen, from the text of `/proc/net/tcp`.
pub(super) fn listening(table: &str) -> impl Iterator<Item = (String, u16)> {
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (*fields.get(3)? == LISTENS).then_some(((*fields.get(9)?).to_owned(), port))
    })
}

/// Looks at the disk of `storm.local.dir`.
pub(super) async fn disk(config: &Config) -> Disk {
    let dir = config.local_dir();
    let unknown = Disk {
        dir: dir.clone(),
        existing: dir.clone(),
        space: Err(format!("no answer within {LIMIT:?}")),
        write: Ok(()),
        risk: None,
    };
    let looked = within_blocking(move || {
        let existing = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned();
        Ok(Disk {
            space: proc::disk_space(&existing).map_err(|error| error.to_string()),
            write: try_write(&existing).map_err(|error| error.to_string()),
            risk: local_dir::risk_of(&dir),
            dir,
            existing,
        })
    });
    looked.await.unwrap_or(unknown)
}

/// Writes a file of one byte and removes it.
fn try_write(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let written = file.write_all(b"x").and_then(|()| file.sync_all());
    fs::remove_file(&path)?;
    written
}

/// Returns the limits of the daemons that run on this host, or those of this process if there are none.
pub(super) async fn descriptors() -> Vec<Descriptors> {
    let of_daemons = within_blocking(|| {
        let pids = proc::pids().map_err(|error| error.to_string())?;
        let daemons = pids.into_iter().filter_map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command);
            let daemon = daemon(&command)?;
            let limit = limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)?;
            Some(Descriptors { of: format!("the {daemon} with pid {pid}"), limit })
        });
        Ok(daemons.collect::<Vec<_>>())
    });
    match of_daemons.await {
        Ok(daemons) if !daemons.is_empty() => daemons,
        _ => vec![Descriptors { of: "this shell".to_owned(), limit: proc::descriptors_max() }],
    }
}

/// Returns the kind of daemon that has this command line, with its NULs.
pub(super) fn daemon(command: &str) -> Option<&str> {
    let mut words = command.split('\0');
    let is_ours = Path::new(words.next()?).file_name().is_some_and(|name| name == "stormkeeper");
    words.find(|word| matches!(*word, "nimbus" | "supervisor")).filter(|_| is_ours)
}

/// Returns the limit of open files from the text of `/proc/PID/limits`; `None` in it is no limit.
pub(super) fn limit(text: &str) -> Option<Option<u64>> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(None) } else { soft.parse().ok().map(Some) }
}

fn unread(error: &FileError) -> Unread {
    let is_denied = matches!(
        error, FileError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied
    );
    Unread { text: error_chain(error), is_denied }
}

/// Reads the configured files with secrets, as the daemons do.
pub(super) async fn secret_files(config: &Config) -> Vec<SecretFile> {
    let secrets = SECRETS.iter().map(|key| (*key, Protection::Secret));
    let all = secrets.chain(UNCHANGED.iter().map(|key| (*key, Protection::Unchanged)));
    let all: Vec<_> = all.filter_map(|(key, kind)| Some((key, kind, config.file_if_set(key)?))).collect();
    let read = |(key, protection, path): (&'static str, Protection, PathBuf)| SecretFile {
        key,
        read: file::read(&path, protection).map(drop).map_err(|error| unread(&error)),
        path,
    };
    within_blocking(move || Ok(all.into_iter().map(read).collect())).await.unwrap_or_default()
}

/// Reads the configured files with certificates.
pub(super) async fn certificates(config: &Config) -> Vec<CertificateFile> {
    let all = CERTIFICATES.iter().filter_map(|key| Some((*key, config.file_if_set(key)?)));
    let all: Vec<(&'static str, PathBuf)> = all.collect();
    let read =
        |(key, path): (&'static str, PathBuf)| CertificateFile { key, certificates: read(&path), path };
    within_blocking(move || Ok(all.into_iter().map(read).collect())).await.unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<PeerCertificate>, Unread> {
    let text = pem_file::read_certificates(path).map_err(|error| unread(&error))?;
    let bad = |reason: String| Unread { text: format!("{}: {reason}", path.display()), is_denied: false };
    let all = CertificateDer::pem_slice_iter(text.as_bytes()).take(CERTIFICATES_MAX);
    let parsed =
        all.map(|der| PeerCertificate::parse(&der.map_err(|error| bad(error.to_string()))?).map_err(bad));
    parsed.collect()
}

/// Returns the controllers of cgroup v2.
pub(super) async fn cgroup() -> Known<String> {
    let read = || {
        let found = CONTROLLERS.iter().find_map(|path| fs::read_to_string(path).ok());
        found.ok_or_else(|| "this host does not use cgroup v2".to_owned())
    };
    blocking::run(read).await
}
