//! A file of lines that is only appended to, mended after a crash, and rotated by size.
//! Everything here blocks.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::plugin::{ExportError, options};

/// The file that grows; older ones have `.1`, `.2` … appended to its name.
const NAME: &str = "metrics.jsonl";

/// How far from its end a file is searched for the end of a line: far more than any line.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Whether somebody writes. A write that nobody waits for any more, as the disk hangs, still
/// does, and a second one must not come between its lines, nor take another thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<AtomicBool>);

/// The open file; one at a time.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    max_bytes: u64,
    n_files: usize,
    file: File,
    len: u64,
    _turn: Turn,
}

#[derive(Debug)]
struct Turn(Busy);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

impl Busy {
    fn take(&self, path: &Path) -> Result<Turn, ExportError> {
        match self.0.swap(true, Ordering::Acquire) {
            false => Ok(Turn(self.clone())),
            true => Err(ExportError::Busy { path: path.to_owned() }),
        }
    }
}

impl Journal {
    /// Opens the file, or makes it with its directory. A line without an end is cut off: it was
    /// not acknowledged, so it comes again.
    pub(super) fn open(options: &options::File, busy: &Busy) -> Result<Self, ExportError> {
        let path = options.dir.join(NAME);
        let turn = busy.take(&path)?;
        fs::create_dir_all(&options.dir).map_err(fault("make the directory", &options.dir))?;
        let mut file = open(&path)?;
        let len = mend(&mut file).map_err(fault("mend the last line of", &path))?;
        let (max_bytes, n_files) = (options.max_bytes, options.n_files);
        Ok(Self { path, max_bytes, n_files, file, len, _turn: turn })
    }

    /// Appends whole lines, in a new file when this one is full.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), ExportError> {
        if self.len > 0 && self.len.saturating_add(lines.len() as u64) > self.max_bytes {
            self.rotate()?;
        }
        if let Err(source) = self.file.write_all(lines) {
            // A part of them may be there. Should this fail too, the next one to open it mends it.
            self.file.set_len(self.len).ok();
            return Err(ExportError::File { doing: "append to", path: self.path.clone(), source });
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Has everything on the disk.
    pub(super) fn sync(&self) -> Result<(), ExportError> {
        self.file.sync_data().map_err(fault("write to the disk", &self.path))
    }

    fn rotate(&mut self) -> Result<(), ExportError> {
        self.sync()?;
        let older = |n: usize| self.path.with_file_name(format!("{NAME}.{n}"));
        // Those that a larger number of files left behind.
        for n in self.n_files.. {
            match fs::remove_file(older(n)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(source) => {
                    return Err(ExportError::File { doing: "remove", path: older(n), source });
                }
            }
        }
        for n in (1..self.n_files).rev() {
            let from = if n == 1 { self.path.clone() } else { older(n - 1) };
            match fs::rename(&from, older(n)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(fault("rename", &from))?,
            }
        }
        self.file = open(&self.path)?;
        self.len = 0;
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, ExportError> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = file.map_err(fault("open", path))?;
    // Without its directory on the disk, a new file may be gone after a power cut.
    if let Some(dir) = path.parent() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(fault("write to the disk", dir))?;
    }
    Ok(file)
}

/// Cuts off what stands after the end of the last line, and answers the length that is left.
fn mend(file: &mut File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let from = len.saturating_sub(LINE_BYTES_MAX);
    if len == 0 {
        return Ok(0);
    }
    file.seek(SeekFrom::Start(len - 1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last == [b'\n'] {
        return Ok(len);
    }
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(LINE_BYTES_MAX).read_to_end(&mut tail)?;
    match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => {
            let len = from + end as u64 + 1;
            file.set_len(len)?;
            Ok(len)
        }
        None if from == 0 => {
            file.set_len(0)?;
            Ok(0)
        }
        // No line of ours: it is left to whoever reads the file.
        None => {
            file.write_all(b"\n")?;
            Ok(len + 1)
        }
    }
}

fn fault(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::File { doing, path, source }
}
