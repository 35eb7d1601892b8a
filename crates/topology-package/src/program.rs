//! A worker program of an author: it describes its topology, and is submitted with it.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    executable::{self, MAGIC},
    flux::resources,
    package::{self, TopologyPackage},
};
use stormkeeper_model::{
    platform::{Formats, Program},
    secret_text::TOKEN_VARIABLE,
    topology::Topology,
};

/// Argument with which a program describes its topology on its standard output.
pub const DESCRIBE: &str = "describe";

/// Format of a [`Description`] that this version writes and reads.
const FORMAT: u32 = 1;

/// Longest description; a topology has thousands of components at most.
const BYTES_MAX: u64 = 8 << 20;

/// Longest time for a program to describe its topology.
const DESCRIBE_MAX: Duration = Duration::from_secs(30);

/// Period of looking whether a program has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Looks after the end of a program at a pipe that somebody else holds.
const LOOKS_AFTER_END: u32 = 100;

/// Description of a program, by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Format of the description.
    pub v: u32,
    /// Version of Stormkeeper with which the program was built.
    pub version: String,
    /// Formats that it reads and writes as a worker.
    pub formats: Formats,
    /// Its topology.
    pub topology: Topology,
    /// Directory of files that are submitted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<PathBuf>,
}

impl Description {
    /// The description of a program that was built with this version.
    pub fn new(formats: Formats, topology: Topology, resources: Option<PathBuf>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { v: FORMAT, version, formats, topology, resources }
    }
}

/// Reason why a program cannot be submitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The program.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file is no program for a worker.
    #[error("{} is no worker program", path.display())]
    Executable {
        /// The program.
        path: PathBuf,
        /// Cause.
        source: executable::Error,
    },
    /// The program does not start.
    #[error("cannot run {} to learn its topology", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The program failed or said something else.
    #[error("`{} {DESCRIBE}` {what}", path.display())]
    Describe {
        /// The program.
        path: PathBuf,
        /// Description of what happened.
        what: String,
    },
    /// The files of the topology cannot be packed.
    #[error(transparent)]
    Resources(#[from] resources::Error),
    /// The package would be too large.
    #[error("{} has {bytes} bytes; build it with `--release`, or remove its debugging information (`strip -g`)", path.display())]
    TooLarge {
        /// The program.
        path: PathBuf,
        /// Size of the program.
        bytes: usize,
        /// Cause.
        source: package::Error,
    },
    /// The package cannot be made.
    #[error(transparent)]
    Package(#[from] package::Error),
}

/// A worker program with its topology.
#[derive(Debug)]
pub struct WorkerProgram {
    /// Its topology, which says what the program needs.
    pub topology: Topology,
    path: PathBuf,
    resources: Option<PathBuf>,
    bytes: Vec<u8>,
}

/// Returns whether the file at `path` is an executable, and not a topology file. Blocks.
pub fn is_program(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok_and(|()| start == *MAGIC)
}

/// Loads the program at `path`, and runs it to learn its topology. Blocks until it has answered.
///
/// # Errors
/// [`Error`].
pub fn load(path: &Path) -> Result<WorkerProgram, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let invalid = |source| Error::Executable { path: path.to_owned(), source };
    let needs = executable::needs(&bytes).map_err(invalid)?;
    let Description { version, formats, mut topology, resources, .. } = describe(path)?;
    topology.program = Some(Program { version, formats, needs });
    Ok(WorkerProgram { topology, path: path.to_owned(), resources, bytes })
}

impl WorkerProgram {
    /// Packs the program, its topology and its files. Blocks.
    ///
    /// # Errors
    /// [`Error::Resources`] and [`Error::Package`].
    pub fn pack(&self, max_bytes: u64) -> Result<TopologyPackage, Error> {
        let files = match &self.resources {
            Some(root) => resources::collect(root, max_bytes)?,
            None => Vec::new(),
        };
        package::pack(&self.topology, Some(&self.bytes), files, max_bytes).map_err(|error| match error {
            source @ package::Error::TooLarge { .. } => {
                Error::TooLarge { path: self.path.clone(), bytes: self.bytes.len(), source }
            }
            other => other.into(),
        })
    }
}

fn describe(path: &Path) -> Result<Description, Error> {
    describe_within(path, DESCRIBE_MAX)
}

fn describe_within(path: &Path, limit: Duration) -> Result<Description, Error> {
    let failed = |source| Error::Start { path: path.to_owned(), source };
    let said = |what| Error::Describe { path: path.to_owned(), what };
    // A name without a slash would be looked for in PATH.
    let program = path.canonicalize().map_err(failed)?;
    let mut child = Command::new(program)
        .arg(OsStr::new(DESCRIBE))
        // The program may be somebody else's, and the token is for the nimbus.
        .env_remove(TOKEN_VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let printed = Printed::of(child.stdout.take());
    let is_complete = printed.wait(&mut child, limit).map_err(failed)?;
    let text = std::mem::take(&mut *printed.text.lock().unwrap_or_else(PoisonError::into_inner));
    let is_too_long = text.len() as u64 > BYTES_MAX;
    if !is_complete || is_too_long {
        // It may run, or write, for ever.
        let _ended = child.kill();
    }
    let status = ended_within(&mut child, limit).map_err(failed)?;
    if !is_complete {
        return Err(said(format!("printed no complete description in {} s", limit.as_secs())));
    }
    if is_too_long {
        return Err(said(format!("printed more than {BYTES_MAX} bytes")));
    }
    if !status.success() {
        return Err(said(format!("failed ({status}); what it printed on its standard error says why")));
    }
    let description: Description = serde_json::from_slice(&text).map_err(|error| {
        said(format!(
            "printed no topology ({error}); a program calls `stormkeeper_topology::run` in its `main`, and prints \
             nothing before"
        ))
    })?;
    match description.v {
        FORMAT => Ok(description),
        other => Err(said(format!(
            "printed a description of format {other}, and this build reads format {FORMAT}; use the `stormkeeper` of the \
             version with which it was built, {}",
            description.version
        ))),
    }
}

/// Standard output of a program, read by a thread that ends with the pipe, which a process that the program
/// started may keep open.
struct Printed {
    text: Arc<Mutex<Vec<u8>>>,
    end: mpsc::Receiver<io::Result<u64>>,
}

impl Printed {
    fn of(stdout: Option<ChildStdout>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let (sender, end) = mpsc::channel();
        let mut shared = Shared(Arc::clone(&text));
        thread::spawn(move || {
            let mut stdout = stdout.map(|stdout| stdout.take(BYTES_MAX + 1));
            let read = stdout.as_mut().map_or(Ok(0), |stdout| io::copy(stdout, &mut shared));
            // Nobody waits for it after the limit.
            let _late = sender.send(read);
        });
        Self { text, end }
    }

    /// Waits until everything is read: the pipe was closed, or the program has ended and nothing came for a
    /// while. Returns false at `limit`.
    ///
    /// # Errors
    /// Errors of the pipe and of the program's status.
    fn wait(&self, child: &mut Child, limit: Duration) -> io::Result<bool> {
        let mut n_after_end = 0;
        for _ in 0..limit.as_millis() / LOOK.as_millis() {
            match self.end.recv_timeout(LOOK) {
                Ok(read) => return read.map(|_| true),
                Err(_) if n_after_end == LOOKS_AFTER_END => return Ok(true),
                Err(_) => n_after_end += u32::from(child.try_wait()?.is_some()),
            }
        }
        Ok(false)
    }
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for the end of a program that has closed its standard output, and ends one that goes on for `limit`.
fn ended_within(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let n_looks = limit.as_millis() / LOOK.as_millis();
    for _ in 0..n_looks {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::park_timeout(LOOK);
    }
    let _ended = child.kill();
    child.wait()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn scripts_and_topology_files_are_no_programs() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("topology.yaml");
        fs::write(&path, "name: x\n").expect("written");
        assert!(!is_program(&path) && !is_program(dir.path()) && !is_program(&dir.path().join("missing")));
        let own = std::env::current_exe().expect("a path");
        assert!(is_program(&own));
    }

    #[test]
    fn program_that_describes_nothing_is_refused_with_what_it_did() {
        let error = load(Path::new("/bin/false")).expect_err("fails").to_string();
        assert!(error.contains("`/bin/false describe` failed (exit status: 1)"), "{error}");
        let error = load(Path::new("/bin/echo")).expect_err("prints no topology").to_string();
        assert!(error.contains("`/bin/echo describe` printed no topology"), "{error}");
        let text = describe_within(Path::new("/usr/bin/yes"), DESCRIBE_MAX).expect_err("endless").to_string();
        assert!(text.contains("printed more than 8388608 bytes"), "{text}");
        let dir = tempfile::tempdir().expect("a directory");
        let script = dir.path().join("silent");
        fs::write(&script, "#!/bin/sh\nexec sleep 600\n").expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
        let text = describe_within(&script, Duration::from_millis(50)).expect_err("silent").to_string();
        assert!(text.contains("printed no complete description in 0 s"), "{text}");
        fs::write(&script, "#!/bin/sh\nexec >&-\nexec sleep 600\n").expect("written");
        let text = describe_within(&script, Duration::from_millis(200)).expect_err("goes on").to_string();
        assert!(text.contains("failed (signal: 9"), "{text}");
        fs::write(&script, "#!/bin/sh\n[ -z \"$STORMKEEPER_TOKEN\" ] || exit 3\nsleep 600 &\necho $! >\"$0.pid\"\necho text\n")
            .expect("written");
        let text = describe_within(&script, DESCRIBE_MAX).expect_err("a child holds the pipe").to_string();
        let pid = fs::read_to_string(script.with_extension("pid")).expect("written");
        let _ended = Command::new("kill").arg(pid.trim()).status();
        assert!(text.contains("printed no topology"), "{text}");
        let path = dir.path().join("program");
        fs::write(&path, b"\x7fELF").expect("written");
        let error = load(&path).expect_err("cut").to_string();
        assert!(error.contains("program is no worker program"), "{error}");
    }
}
