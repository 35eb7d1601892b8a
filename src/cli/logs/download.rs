//! `stormkeeper logs --download`: copies whole log files into a directory, one after the other, through
//! any nimbus.
//!
//! A file appears under its name once it is complete. A host that is away, and a file that cannot be
//! read, is named; the others are kept.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;

use super::{Args, report_missing};
use crate::cli::{
    error::{ErrorKind, Failure},
    output,
};
use stormkeeper_api_types::{
    client::{BrokenDownload, Client, Error, LogAt, encoded},
    message::{
        Code,
        logs::{TopologyLogs, UnavailableAgent},
    },
};
use stormkeeper_model::{Port, SupervisorId, TopologyId, WorkerId, address::host_port};
use stormkeeper_runtime::shutdown;

/// Maximum number of files of one command: the logs of a thousand workers.
const FILES_MAX: usize = 20_000;

/// Bytes of a file after which the progress is told again.
const PROGRESS_BYTES: u64 = 64 << 20;

/// A file to download.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    at: LogAt,
    host: String,
    size: u64,
    path: PathBuf,
}

/// Files of a command, as printed with `--json`.
#[derive(Debug, Serialize)]
struct Downloaded {
    id: TopologyId,
    files: Vec<DownloadedFile>,
    missing: Vec<MissingFile>,
    unavailable: Vec<UnavailableAgent>,
}

#[derive(Debug, Serialize)]
struct DownloadedFile {
    supervisor: SupervisorId,
    host: String,
    port: Port,
    worker: WorkerId,
    file: String,
    bytes: u64,
    path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct MissingFile {
    supervisor: SupervisorId,
    host: String,
    port: Port,
    worker: WorkerId,
    file: String,
    reason: String,
}

/// Downloads the log files of a topology into `dir`, until a signal.
pub(super) async fn run(client: &Client, json: bool, args: &Args, dir: &Path) -> Result<(), Failure> {
    tokio::select! {
        // Cancel-safe: a file that is not complete is removed.
        ended = download(client, json, args, dir) => ended,
        // Cancel-safe: the command ends.
        _signal = shutdown::requested() => {
            let text = "interrupted; the files that were complete are kept";
            Err(Failure::new(ErrorKind::Unavailable, anyhow::anyhow!(text)))
        }
    }
}

async fn download(client: &Client, json: bool, args: &Args, dir: &Path) -> Result<(), Failure> {
    let TopologyLogs { id, supervisors, unavailable, present } =
        client.logs(&args.topology, args.past).await?;
    let listed = TopologyLogs { id: id.clone(), supervisors, unavailable: Vec::new(), present };
    let (wanted, mut missing) = select(&listed, dir, args);
    report_missing(&unavailable);
    missing.iter().for_each(note_missing);
    check(&wanted, args.force)?;
    let total = wanted.len();
    let (mut files, mut away) = (Vec::new(), BTreeSet::new());
    for (n, Wanted { at, host, size, path }) in wanted.into_iter().enumerate() {
        let LogAt { supervisor, port, worker, file } = at.clone();
        if away.contains(&supervisor) {
            let reason = "its host does not answer".to_owned();
            missing.push(MissingFile { supervisor, host, port, worker, file, reason });
            continue;
        }
        let place = host_port(&host, port.0);
        output::note(&format!("({} of {total}) {place} {worker} {file}, {}", n + 1, shown_bytes(size)));
        match copy(client, &id, (&at, size), (&path, args.force)).await {
            Ok(bytes) => files.push(DownloadedFile { supervisor, host, port, worker, file, bytes, path }),
            Err(Stopped::Command(failure)) => return Err(failure),
            Err(Stopped::File { reason, is_away }) => {
                if is_away {
                    away.insert(supervisor.clone());
                }
                let file = MissingFile { supervisor, host, port, worker, file, reason };
                note_missing(&file);
                missing.push(file);
            }
        }
    }
    report(json, Downloaded { id, files, missing, unavailable }, dir)
}

/// Returns the files that `args` select, the newest of a log first, so that a rotation meanwhile leaves
/// none out; and those that are there and cannot be had.
fn select(listed: &TopologyLogs, dir: &Path, args: &Args) -> (Vec<Wanted>, Vec<MissingFile>) {
    let (mut wanted, mut refused) = (Vec::new(), Vec::new());
    for logs in &listed.supervisors {
        let mut seen = BTreeSet::new();
        for launch in &logs.workers {
            // The newest launch of a port comes first.
            let is_newest = seen.insert(launch.port);
            let is_selected = args.worker.as_ref().is_none_or(|(host, port)| {
                *port == launch.port && (*host == logs.host || *host == logs.supervisor.as_str())
            });
            if !is_selected || !(is_newest || args.past) {
                continue;
            }
            let (supervisor, host) = (&logs.supervisor, &logs.host);
            wanted.extend(launch.files.iter().map(|file| Wanted {
                at: LogAt {
                    supervisor: supervisor.clone(),
                    port: launch.port,
                    worker: launch.worker.clone(),
                    file: file.name.clone(),
                },
                host: host.clone(),
                size: file.size,
                path: path_of(dir, supervisor, &launch.worker, &file.name),
            }));
            refused.extend(launch.refused.iter().map(|file| MissingFile {
                supervisor: supervisor.clone(),
                host: host.clone(),
                port: launch.port,
                worker: launch.worker.clone(),
                file: file.name.clone(),
                reason: file.reason.clone(),
            }));
        }
    }
    (wanted, refused)
}

/// Returns the path of a file. What a server sends as names can neither leave `dir` nor be hidden.
fn path_of(dir: &Path, supervisor: &SupervisorId, worker: &WorkerId, file: &str) -> PathBuf {
    let visible = |name: String| match name.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => name,
    };
    let of_supervisor = visible(encoded(supervisor.as_str()));
    dir.join(of_supervisor).join(visible(format!("{}-{}", encoded(worker.as_str()), encoded(file))))
}

/// Checks the number of files, and that none of them is there.
fn check(wanted: &[Wanted], force: bool) -> Result<(), Failure> {
    if wanted.len() > FILES_MAX {
        let text = format!("the topology has {} log files; one command downloads {FILES_MAX}", wanted.len());
        return Err(Failure::usage(text).with_hint("leave out --past, or select a worker with --worker"));
    }
    let found = wanted.iter().find(|wanted| !force && wanted.path.symlink_metadata().is_ok());
    match found {
        Some(Wanted { path, .. }) => Err(exists(path)),
        None => Ok(()),
    }
}

fn exists(path: &Path) -> Failure {
    let text = format!("{} exists, and is not overwritten", path.display());
    Failure::usage(text).with_hint("name another directory, or overwrite its files with --force")
}

/// Reason why a file was not downloaded.
enum Stopped {
    /// The other files may be downloaded; those of the same host only if it is not away.
    File { reason: String, is_away: bool },
    /// The command cannot go on.
    Command(Failure),
}

impl Stopped {
    fn of_request(error: Error) -> Self {
        match &error {
            Error::Refused { body, .. } => {
                let is_away = matches!(body.code, Code::AgentUnavailable | Code::UnknownHost);
                Self::File { reason: body.message.clone(), is_away }
            }
            _ => Self::Command(error.into()),
        }
    }

    fn on_disk(path: &Path, error: io::Error) -> Self {
        let error = anyhow::Error::new(error).context(format!("cannot write {}", path.display()));
        Self::Command(Failure::internal(error))
    }
}

/// Downloads a file, and returns its size.
async fn copy(
    client: &Client,
    topology: &TopologyId,
    (at, size): (&LogAt, u64),
    (path, force): (&Path, bool),
) -> Result<u64, Stopped> {
    let mut log = client.download_log(topology.as_str(), at).await.map_err(Stopped::of_request)?;
    let on_disk = |error| Stopped::on_disk(path, error);
    let mut partial = PartialFile::create(path).map_err(on_disk)?;
    let (mut n_bytes, mut told) = (0, 0);
    loop {
        let broken = |error: BrokenDownload| Stopped::File { reason: error.to_string(), is_away: false };
        let bytes = log.next().await.map_err(broken)?;
        let Some(bytes) = bytes else { break };
        partial.file.write_all(&bytes).map_err(on_disk)?;
        n_bytes += bytes.len() as u64;
        if n_bytes - told >= PROGRESS_BYTES {
            told = n_bytes;
            output::note(&format!("  {} of {}", shown_bytes(n_bytes), shown_bytes(size.max(n_bytes))));
        }
    }
    match partial.complete(force) {
        Ok(()) => Ok(n_bytes),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Stopped::Command(exists(path))),
        Err(error) => Err(on_disk(error)),
    }
}

/// File that has another name until it is complete, and is removed if it does not become so.
struct PartialFile {
    file: File,
    name: PathBuf,
    path: PathBuf,
    is_complete: bool,
}

impl PartialFile {
    fn create(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(file)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        fs::create_dir_all(parent)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(file);
        hidden.push(format!(".{}.partial", std::process::id()));
        let name = parent.join(hidden);
        // Left by a process that had this id and was killed.
        match fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Self { file: File::create_new(&name)?, name, path: path.to_owned(), is_complete: false })
    }

    /// Gives the file its name. Without `force`, an error if there is a file of that name.
    fn complete(mut self, force: bool) -> io::Result<()> {
        match force {
            true => fs::rename(&self.name, &self.path)?,
            false => match renameat_with(CWD, &self.name, CWD, &self.path, RenameFlags::NOREPLACE) {
                // File systems without this kind of rename.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    if self.path.symlink_metadata().is_ok() {
                        return Err(io::ErrorKind::AlreadyExists.into());
                    }
                    fs::rename(&self.name, &self.path)?;
                }
                renamed => renamed?,
            },
        }
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_complete {
            // Whoever looks sees by its name that it is not complete.
            let _left = fs::remove_file(&self.name);
        }
    }
}

fn note_missing(missing: &MissingFile) {
    let MissingFile { host, port, worker, file, reason, .. } = missing;
    let place = host_port(host, port.0);
    output::note(&format!("! {file} of {worker} at {place} is missing: {reason}"));
}

/// Prints what was downloaded. An error if anything is missing.
fn report(json: bool, downloaded: Downloaded, dir: &Path) -> Result<(), Failure> {
    let Downloaded { id, files, missing, unavailable } = &downloaded;
    let bytes = files.iter().map(|file| file.bytes).sum();
    if json {
        output::print_json(&downloaded)?;
    } else if files.is_empty() && missing.is_empty() && unavailable.is_empty() {
        output::note(&format!("There are no logs of {id}."));
    } else {
        let text =
            format!("{} files of {id}, {}, are in {}\n", files.len(), shown_bytes(bytes), dir.display());
        output::print(&text)?;
    }
    let mut gaps = Vec::new();
    if !missing.is_empty() {
        gaps.push(format!("{} log files", missing.len()));
    }
    if !unavailable.is_empty() {
        gaps.push(format!("the logs of {} supervisors", unavailable.len()));
    }
    match gaps.is_empty() {
        true => Ok(()),
        false => {
            let text = format!("{} are missing; the others were downloaded", gaps.join(" and "));
            Err(Failure::new(ErrorKind::Unavailable, anyhow::anyhow!(text)))
        }
    }
}

fn shown_bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.1} MiB", n as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests;
