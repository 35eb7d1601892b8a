//! Files with tokens and secrets: read with a limit, checked for who else may read them, and read again
//! when they change.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use tracing::{info, warn};

use stormkeeper_runtime::{blocking, error_chain, fs::regular_file, watch};

/// Maximum size of a file: ten thousand tokens fit.
pub const BYTES_MAX: u64 = 2 << 20;

/// Period of looking for a change of a file.
pub const PERIOD: Duration = Duration::from_secs(2);

/// Error of a file with tokens, a secret or keys.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Other users may read or change the file.
    #[error(
        "{} has the mode {mode:03o}: {risk}; run `chmod {wanted:03o} {}`", path.display(), path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Consequence of the mode.
        risk: &'static str,
        /// A mode that is accepted.
        wanted: u32,
    },
    /// The file is longer than [`BYTES_MAX`].
    #[error("{} is longer than {BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A line is invalid.
    #[error("{}:{line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Defect of the line and its remedy.
        fault: String,
    },
    /// The whole file is invalid.
    #[error("{}: {fault}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Defect of the file and its remedy.
        fault: String,
    },
}

/// Users besides the owner who must not have access to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Nobody else may read it: it has a secret.
    Secret,
    /// Nobody else may change it.
    Unchanged,
    /// Others may do with it what they want: it is only looked at.
    None,
}

/// Reads a file as text, after the check of its mode.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path, protection: Protection) -> Result<String, FileError> {
    let (file, mode) = open(path)?;
    check_mode(path, mode, protection)?;
    text_of(path, file)
}

/// Reads a file as text, and checks its mode after `check`, which returns the protection that this text
/// needs: the wrong file needs another remedy than `chmod`.
///
/// # Errors
/// [`FileError`]; [`FileError::Content`] with the fault that `check` returns.
pub fn read_checked(
    path: &Path,
    check: impl FnOnce(&str) -> Result<Protection, String>,
) -> Result<String, FileError> {
    let (file, mode) = open(path)?;
    let text = text_of(path, file)?;
    let protection = check(&text).map_err(|fault| FileError::Content { path: path.to_owned(), fault })?;
    check_mode(path, mode, protection)?;
    Ok(text)
}

/// Opens a file. Returns its mode: that of the file that is read, and not of one that was there before.
fn open(path: &Path) -> Result<(File, u32), FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let file = regular_file::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    Ok((file, mode))
}

fn check_mode(path: &Path, mode: u32, protection: Protection) -> Result<(), FileError> {
    let fault = match protection {
        Protection::Secret if mode & 0o077 != 0 => Some(("other users may read the secret", mode & 0o700)),
        Protection::Unchanged if mode & 0o022 != 0 => Some(("other users may change it", mode & !0o022)),
        Protection::Secret | Protection::Unchanged | Protection::None => None,
    };
    match fault {
        Some((risk, wanted)) => Err(FileError::Mode { path: path.to_owned(), mode, risk, wanted }),
        None => Ok(()),
    }
}

/// Reads a secret from a file that a user names on the command line: as [`read`] does, or from a pipe of
/// the calling shell, such as `/dev/fd/63`, which has no mode that keeps anybody out.
///
/// # Errors
/// [`FileError`].
pub fn read_given(path: &Path) -> Result<String, FileError> {
    let is_of_shell = path.starts_with("/dev") || path.starts_with("/proc");
    let is_pipe = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    if !(is_of_shell && is_pipe) {
        return read(path, Protection::Secret);
    }
    let file = File::open(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    text_of(path, file)
}

/// Reads an open file, up to [`BYTES_MAX`].
fn text_of(path: &Path, file: File) -> Result<String, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Returns the lines that are neither empty nor a comment, with their numbers.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// State of a file by which a change is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: file.ino(),
            len: file.len(),
            mode: file.mode(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// Content of a file, read again when the file changes. A file that becomes bad or disappears leaves
/// the last good content in force; the reason is logged and reported. Clones share the content.
pub struct WatchedFile<T>(Arc<Shared<T>>);

struct Shared<T> {
    // More than one if they make one content: a certificate and its key.
    paths: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, FileError> + Send + Sync>,
    // Held for the exchange of a pointer.
    value: RwLock<Arc<T>>,
    // Held while the files are read, by one caller at a time.
    stamps: Mutex<Vec<Option<Stamp>>>,
    problem: watch::Sender<Option<String>>,
}

impl<T> fmt::Debug for WatchedFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchedFile").field(&self.0.paths).finish()
    }
}

impl<T> Clone for WatchedFile<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + Sync + 'static> WatchedFile<T> {
    /// Reads the file. Blocks.
    ///
    /// # Errors
    /// The error of `read`: a file that is bad at the start has no last good content.
    pub fn open(path: &Path, read: fn(&Path) -> Result<T, FileError>) -> Result<Self, FileError> {
        let owned = path.to_owned();
        Self::open_all(vec![path.to_owned()], move || read(&owned))
    }

    /// Reads one content from several files. Blocks.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_all(
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        // Before the reading: a change in between is read again.
        let stamps = paths.iter().map(|path| Stamp::of(path)).collect();
        let value = read()?;
        Ok(Self(Arc::new(Shared {
            paths,
            read: Box::new(read),
            value: RwLock::new(Arc::new(value)),
            stamps: Mutex::new(stamps),
            problem: watch::Sender::new(None),
        })))
    }

    /// The last good content.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.value.read().expect("nobody panics while holding the content"))
    }

    /// The file; of several, the first one.
    pub(crate) fn path(&self) -> &Path {
        self.0.paths.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Receives the reason why the file on the disk is not in force.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.0.problem.subscribe()
    }

    /// Reads the file again if it has changed. Blocks.
    pub fn refresh(&self) {
        let Shared { paths, read, value, stamps, problem } = &*self.0;
        let mut last = stamps.lock().expect("nobody panics while holding the stamps");
        let now: Vec<_> = paths.iter().map(|path| Stamp::of(path)).collect();
        // A bad content may become good without a change, as a certificate that is not valid yet.
        if now == *last && problem.borrow().is_none() {
            return;
        }
        *last = now;
        match read() {
            Ok(content) => {
                *value.write().expect("nobody panics while holding the content") = Arc::new(content);
                problem.send_replace(None);
                info!(files = ?paths, "read a changed file; it is in force");
            }
            Err(error) => {
                let reason = error_chain(&error);
                let text = format!("{reason}; its last good content is in force");
                if problem.borrow().as_ref() != Some(&text) {
                    warn!(reason, "a changed file cannot be used; the last good content stays in force");
                    problem.send_replace(Some(text));
                }
            }
        }
    }

    /// Refreshes the content every two seconds until it is dropped.
    pub async fn keep_fresh(self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            let this = self.clone();
            blocking::run(move || this.refresh()).await;
        }
    }
}

/// Creates a new file that only its owner may read, and writes `text`.
///
/// # Errors
/// If the file is there already, or cannot be written.
pub fn create_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};

    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // A part of a secret would keep the next try from its place, as on a full disk.
        let _gone = std::fs::remove_file(path);
    }
    written
}

/// Replaces a file by one that only its owner may read, as a whole or not at all. Writes nothing if the file
/// has this text already.
///
/// # Errors
/// If it cannot be written; the file before is still there then.
pub fn replace_secret(path: &Path, text: &str) -> io::Result<()> {
    replace_secrets(&[(path, text)]).map_err(|(_, error)| error)
}

/// Replaces files that are one content, each as [`replace_secret`] does. None is replaced before all are
/// written, so that a full disk leaves all as they are.
///
/// # Errors
/// The path and the error of the first that cannot be written or put in its place; the files after it are
/// those before then.
pub fn replace_secrets<'a>(files: &[(&'a Path, &str)]) -> Result<(), (&'a Path, io::Error)> {
    let mut written: Vec<(PathBuf, &Path)> = Vec::new();
    let done = files.iter().try_for_each(|&(path, text)| {
        if regular_file::read_to_string(path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let temporary = path.with_extension("tmp");
        match std::fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err((path, error)),
        }
        create_secret(&temporary, text).map_err(|error| (path, error))?;
        written.push((temporary, path));
        Ok(())
    });
    let mut placed = 0;
    let done = done.and_then(|()| {
        written.iter().try_for_each(|(temporary, path)| {
            std::fs::rename(temporary, path).map_err(|error| (*path, error))?;
            placed += 1;
            Ok(())
        })
    });
    for (temporary, _) in &written[placed..] {
        let _gone = std::fs::remove_file(temporary);
    }
    done
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write as _,
        os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    };

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn files_of_one_content_are_replaced_together_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        replace_secrets(&[(one.as_path(), "1"), (other.as_path(), "1")]).expect("both are new");
        // Stands for a full disk: the second temporary file cannot be made.
        let obstacle = other.with_extension("tmp");
        fs::create_dir(&obstacle).expect("made");
        let (path, _) =
            replace_secrets(&[(one.as_path(), "2"), (other.as_path(), "2")]).expect_err("not written");
        assert_eq!(path, other);
        let texts = [&one, &other].map(|path| fs::read_to_string(path).expect("read"));
        assert_eq!(texts, ["1", "1"]);
        assert!(!one.with_extension("tmp").exists(), "no secret is left over");
        fs::remove_dir(&obstacle).expect("removed");
        replace_secrets(&[(one.as_path(), "2"), (other.as_path(), "2")]).expect("written");
        let texts = [&one, &other].map(|path| fs::read_to_string(path).expect("read"));
        assert_eq!(texts, ["2", "2"]);
    }

    #[test]
    fn file_that_others_may_read_or_change_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        for mode in [0o640, 0o604, 0o644, 0o660] {
            write(&path, "x", mode);
            let error = read(&path, Protection::Secret).expect_err("refused").to_string();
            assert!(error.contains(&format!("{mode:03o}")) && error.contains("chmod 600"), "{error}");
        }
        write(&path, "x", 0o644);
        assert_eq!(read(&path, Protection::Unchanged).expect("read"), "x");
        write(&path, "x", 0o666);
        let error = read(&path, Protection::Unchanged).expect_err("refused").to_string();
        assert!(error.contains("chmod 644"), "{error}");
        for mode in [0o600, 0o400] {
            write(&path, "x", 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(read(&path, Protection::Secret).expect("read"), "x");
        }
        fs::remove_file(&path).expect("removed");
        assert!(matches!(read(&path, Protection::Secret), Err(FileError::Read { .. })));
        create_secret(&path, "y").expect("created");
        assert_eq!(read(&path, Protection::Secret).expect("read"), "y");
        create_secret(&path, "z").expect_err("there already");
        for text in ["z", "z"] {
            replace_secret(&path, text).expect("replaced");
            assert_eq!(read(&path, Protection::Secret).expect("read"), text);
        }
        write(&path, &"x".repeat(usize::try_from(BYTES_MAX).expect("small") + 1), 0o600);
        assert!(matches!(read(&path, Protection::Secret), Err(FileError::TooLong { .. })));
    }

    #[test]
    fn pipe_of_the_calling_shell_is_read_up_to_the_limit_and_a_file_keeps_its_rules() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        write(&path, "x", 0o644);
        assert!(matches!(read_given(&path), Err(FileError::Mode { .. })));
        write(&path, "x", 0o600);
        assert_eq!(read_given(&path).expect("read"), "x");
        let limit = usize::try_from(BYTES_MAX).expect("small");
        for n_bytes in [5, limit, limit + 1] {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
            let written = std::thread::spawn(move || writer.write_all(&vec![b'x'; n_bytes]));
            match read_given(&path) {
                Ok(text) => assert_eq!(text.len(), n_bytes),
                Err(error) => {
                    assert!(matches!(error, FileError::TooLong { .. }) && n_bytes > limit, "{error}")
                }
            }
            written.join().expect("no panic").expect("written");
        }
    }

    fn number(path: &Path) -> Result<u32, FileError> {
        let text = read(path, Protection::Secret)?;
        let fault = |_| FileError::Line { path: path.to_owned(), line: 1, fault: "no number".to_owned() };
        text.trim().parse().map_err(fault)
    }

    #[test]
    fn changed_file_is_read_again_and_a_bad_one_leaves_the_last_good_content() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("number");
        write(&path, "no", 0o600);
        WatchedFile::open(&path, number).expect_err("bad at the start");
        write(&path, "7", 0o600);
        let file = WatchedFile::open(&path, number).expect("good");
        let (problem, clone) = (file.problem(), file.clone());
        file.refresh();
        assert_eq!(*clone.get(), 7);
        write(&path, "19", 0o600);
        file.refresh();
        assert_eq!(*clone.get(), 19);
        for spoil in
            [|path: &Path| write(path, "typo", 0o600), |path: &Path| fs::remove_file(path).expect("there")]
        {
            spoil(&path);
            file.refresh();
            assert_eq!(*clone.get(), 19, "the last good content");
            let reason = problem.borrow().clone().expect("reported");
            assert!(reason.contains("number") && reason.contains("last good"), "{reason}");
        }
        write(&path, "20", 0o600);
        file.refresh();
        assert_eq!((*clone.get(), problem.borrow().clone()), (20, None));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        file.refresh();
        assert!(problem.borrow().as_ref().is_some_and(|reason| reason.contains("chmod 600")));
    }
}
