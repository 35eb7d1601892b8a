//! Log file of a worker process, rotated by size.

use std::{
    borrow::Cow,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing_subscriber::fmt::MakeWriter;

use crate::limits::LOGGED_BYTES_MAX;
use stormkeeper_runtime::fs::rotating_file;

/// Name of the newest log file; older files have the suffix `.1`, `.2` and so on.
pub const LOG_FILE: &str = "worker.log";

/// The size at which a worker's log file is rotated.
pub const MAX_BYTES: u64 = 10 << 20;

/// Number of log files that are kept, so that a worker's log takes 50 MiB at most.
pub const N_FILES: usize = 5;

/// Cuts a text of a component for a line of the log, at the end of a character, and says how much was cut.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    let end = (0..=text.len().min(LOGGED_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
    let shown = &text[..end.unwrap_or(0)];
    match text.len() - shown.len() {
        0 => text.into(),
        n_cut => format!("{shown}… ({n_cut} bytes more)").into(),
    }
}

/// Log file that is rotated when it is full, with a limited number of old files.
///
/// If a rotation fails, the file grows beyond its limit: a long log is better than none.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    n_files: usize,
    // Guards the open file; held for one write, and for a rotation.
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    n_bytes: u64,
}

impl Open {
    fn append(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let n_bytes = file.metadata()?.len();
        Ok(Self { file, n_bytes })
    }
}

impl RotatingFile {
    /// Opens [`LOG_FILE`] in `dir` for appending, and creates both if needed. The file is rotated
    /// at `max_bytes`; `n_files` are kept, the current one included.
    ///
    /// # Errors
    /// I/O error if the directory or the file cannot be opened.
    pub fn open(dir: &Path, max_bytes: u64, n_files: usize) -> io::Result<Self> {
        Self::open_named(dir, LOG_FILE, max_bytes, n_files)
    }

    /// As [`open`](Self::open), for a file of another name.
    pub(crate) fn open_named(dir: &Path, name: &str, max_bytes: u64, n_files: usize) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(name);
        let open = Mutex::new(Open::append(&path)?);
        Ok(Self { path, max_bytes, n_files: n_files.max(1), open })
    }

    fn rotate(&self, open: &mut Open) -> io::Result<()> {
        if self.n_files == 1 {
            open.file.set_len(0)?;
            open.n_bytes = 0;
            return Ok(());
        }
        rotating_file::rotate(&self.path, self.n_files)?;
        // An operator may have deleted the whole folder while the file was open.
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        *open = Open::append(&self.path)?;
        Ok(())
    }
}

impl Write for &RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    /// Writes one event per call, so that a rotation never splits a line.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A panic during a write leaves no state that could damage the next line.
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let n_bytes = bytes.len() as u64;
        // An operator may have deleted the log; without its folder, which this worker creates again,
        // the lines go where nobody reads them.
        if open.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
            && let Ok(new) = Open::append(&self.path)
        {
            *open = new;
        }
        if open.n_bytes > 0 && open.n_bytes + n_bytes > self.max_bytes {
            // On failure the file grows, see the type's doc; the next line retries the rotation.
            let _refused = self.rotate(&mut open);
        }
        open.file.write_all(bytes)?;
        open.n_bytes += n_bytes;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for RotatingFile {
    type Writer = &'a RotatingFile;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(dir: &Path, name: &str) -> Option<Vec<String>> {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn rotation_renames_full_files_and_deletes_the_oldest() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let open = || RotatingFile::open(dir.path(), 10, 3).expect("opened");
        let file = open();
        for n in 1..=3 {
            (&file).write_all(format!("line {n}\n").as_bytes()).expect("written");
        }
        assert_eq!(lines(dir.path(), "worker.log"), Some(vec!["line 3".to_owned()]));
        assert_eq!(lines(dir.path(), "worker.log.1"), Some(vec!["line 2".to_owned()]));
        assert_eq!(lines(dir.path(), "worker.log.2"), Some(vec!["line 1".to_owned()]));
        let file = open();
        (&file).write_all(b"a\n").expect("written");
        (&file).write_all(b"a line longer than a file\n").expect("written");
        assert_eq!(lines(dir.path(), "worker.log"), Some(vec!["a line longer than a file".to_owned()]));
        assert_eq!(lines(dir.path(), "worker.log.1"), Some(vec!["line 3".to_owned(), "a".to_owned()]));
        assert_eq!(lines(dir.path(), "worker.log.2"), Some(vec!["line 2".to_owned()]));
        assert_eq!(lines(dir.path(), "worker.log.3"), None);
    }

    #[test]
    fn long_text_is_cut_at_the_end_of_a_character() {
        let fits = "x".repeat(LOGGED_BYTES_MAX);
        assert_eq!(shortened(&fits), fits);
        let long = format!("{}ä{}", &fits[1..], "y".repeat(100));
        let cut = shortened(&long);
        assert_eq!(cut, format!("{}… (102 bytes more)", &fits[1..]));
        assert_eq!(shortened(""), "");
    }

    #[test]
    fn deleted_log_is_created_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let logs = dir.path().join("logs");
        let file = RotatingFile::open(&logs, 1000, 3).expect("opened");
        (&file).write_all(b"one\n").expect("written");
        fs::remove_dir_all(&logs).expect("deleted");
        (&file).write_all(b"two\n").expect("lost");
        fs::create_dir(&logs).expect("put back");
        (&file).write_all(b"three\n").expect("written");
        assert_eq!(lines(&logs, "worker.log"), Some(vec!["three".to_owned()]));
    }

    #[test]
    fn single_file_is_truncated_when_full() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = RotatingFile::open(dir.path(), 10, 1).expect("opened");
        for n in 1..=3 {
            (&file).write_all(format!("line {n}\n").as_bytes()).expect("written");
        }
        assert_eq!(lines(dir.path(), "worker.log"), Some(vec!["line 3".to_owned()]));
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
    }
}
