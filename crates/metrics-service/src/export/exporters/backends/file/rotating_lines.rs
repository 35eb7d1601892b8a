//! Append-only file of lines, repaired after a crash and rotated by size. All functions block.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::export::exporters::{ExportError, options};
use stormkeeper_runtime::fs::rotating_file;

/// Name of the current file; older files have the suffix `.1`, `.2` ….
const NAME: &str = "metrics.jsonl";

/// Length of the tail that is searched for the end of a line: far more than any line.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Slot of the only writer. A write whose caller has been dropped, because the disk hangs, still
/// holds the slot: a second write must not come between its lines, nor block another thread.
#[derive(Debug, Clone, Default)]
pub(super) struct WriterSlot(Arc<AtomicBool>);

/// Open file, held by one writer at a time.
#[derive(Debug)]
pub(super) struct RotatingLines {
    path: PathBuf,
    max_bytes: u64,
    n_files: usize,
    file: File,
    len: u64,
    _guard: WriterGuard,
}

#[derive(Debug)]
struct WriterGuard(WriterSlot);

impl Drop for WriterGuard {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

impl WriterSlot {
    fn acquire(&self, path: &Path) -> Result<WriterGuard, ExportError> {
        match self.0.swap(true, Ordering::Acquire) {
            false => Ok(WriterGuard(self.clone())),
            true => Err(ExportError::Busy { path: path.to_owned() }),
        }
    }
}

impl RotatingLines {
    /// Opens the file, or creates it with its directory. An incomplete last line is truncated: it was
    /// not acknowledged, so it is written again.
    pub(super) fn open(options: &options::FileOptions, slot: &WriterSlot) -> Result<Self, ExportError> {
        let path = options.dir.join(NAME);
        let guard = slot.acquire(&path)?;
        fs::create_dir_all(&options.dir).map_err(fault("create the directory", &options.dir))?;
        let mut file = open(&path)?;
        let len = repair_tail(&mut file).map_err(fault("repair the last line of", &path))?;
        let (max_bytes, n_files) = (options.max_bytes, options.n_files);
        Ok(Self { path, max_bytes, n_files, file, len, _guard: guard })
    }

    /// Appends complete lines, in a new file if this one is full.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), ExportError> {
        if self.len > 0 && self.len.saturating_add(lines.len() as u64) > self.max_bytes {
            self.rotate()?;
        }
        if let Err(source) = self.file.write_all(lines) {
            // Removes a partial write. If that fails too, the next open repairs the file.
            self.file.set_len(self.len).ok();
            return Err(ExportError::File { doing: "append to", path: self.path.clone(), source });
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Syncs the file to disk.
    pub(super) fn sync(&self) -> Result<(), ExportError> {
        self.file.sync_data().map_err(fault("sync to disk", &self.path))
    }

    fn rotate(&mut self) -> Result<(), ExportError> {
        self.sync()?;
        rotating_file::rotate(&self.path, self.n_files).map_err(fault("rotate", &self.path))?;
        self.file = open(&self.path)?;
        self.len = 0;
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, ExportError> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = file.map_err(fault("open", path))?;
    // If the directory is not synced, a new file may be lost in a power failure.
    if let Some(dir) = path.parent() {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(fault("sync to disk", dir))?;
    }
    Ok(file)
}

/// Truncates the file after its last complete line, and returns the remaining length.
fn repair_tail(file: &mut File) -> io::Result<u64> {
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
        // Not a line of this exporter: its interpretation is left to readers of the file.
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
