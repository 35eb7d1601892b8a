//! Reading a log by positions, also while it grows and is rotated.

use std::{io, os::unix::fs::FileExt as _};

use super::{LogName, OpenLog, WorkerLogStore};
use stormkeeper_api_types::message::logs::LogPosition;
use stormkeeper_model::WorkerId;

/// Maximum bytes of a chunk.
pub(crate) const CHUNK_BYTES_MAX: u64 = 1 << 20;

/// A part of a log file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) name: LogName,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) next: LogPosition,
    pub(crate) lost: bool,
    pub(crate) end: bool,
    pub(crate) text: String,
}

impl WorkerLogStore {
    /// Reads at most `length` bytes of a log from `offset`. With an identity, the position is looked for
    /// in the file that had the identity when the position was returned, under whatever name it has now.
    /// A position that is gone is replaced by the beginning of the log.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(crate) fn chunk(
        &self,
        worker: &WorkerId,
        log: LogName,
        (offset, identity): (u64, Option<&str>),
        length: u64,
    ) -> io::Result<Chunk> {
        let Some(identity) = identity else {
            let open = self.open(worker, log)?;
            let offset = offset.min(open.size);
            return read(&open, (offset, false), length, None);
        };
        let mut parts = self.parts(worker, log)?;
        if parts.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let found = parts.iter().position(|part| part.identity == identity);
        let (at, offset, lost) = match found {
            // The file was truncated if it is shorter than before.
            Some(at) if offset <= parts[at].size => (at, offset, false),
            Some(at) => (at, 0, true),
            None => (0, 0, !identity.is_empty()),
        };
        let newer = at.checked_sub(1).map(|newer| parts[newer].identity.clone());
        let part = parts.swap_remove(at);
        read(&part, (offset, lost), length, newer)
    }
}

/// Reads a chunk. `newer` is the identity of the next newer part, if there is one.
fn read(log: &OpenLog, (offset, lost): (u64, bool), length: u64, newer: Option<String>) -> io::Result<Chunk> {
    let wanted = length.clamp(4, CHUNK_BYTES_MAX).min(log.size.saturating_sub(offset));
    let mut bytes = vec![0; usize::try_from(wanted).unwrap_or_default()];
    let mut n_read = 0;
    while n_read < bytes.len() {
        match log.file.read_at(&mut bytes[n_read..], offset + n_read as u64) {
            // Truncated meanwhile.
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(n_read);
    let reaches_end = offset + n_read as u64 >= log.size;
    // The rest of a character is in the next chunk, except at the end of a file that does not grow.
    if !(reaches_end && newer.is_some()) {
        bytes.truncate(bytes.len() - n_bytes_of_cut_character(&bytes));
    }
    let next = match newer.filter(|_| reaches_end) {
        Some(identity) => LogPosition { identity, offset: 0 },
        None => LogPosition { identity: log.identity.clone(), offset: offset + bytes.len() as u64 },
    };
    let end = reaches_end && next.identity == log.identity;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Chunk { name: log.name, offset, size: log.size, next, lost, end, text })
}

/// Returns the number of bytes at the end that begin a character of UTF-8 and do not complete it.
fn n_bytes_of_cut_character(bytes: &[u8]) -> usize {
    let begins =
        |n: &usize| bytes.len().checked_sub(*n).is_some_and(|at| bytes[at] & 0b1100_0000 != 0b1000_0000);
    let Some(n) = (1..=3).find(begins) else { return 0 };
    let wanted = match bytes[bytes.len() - n] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if wanted > n { n } else { 0 }
}
