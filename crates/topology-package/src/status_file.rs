//! Format of the files with which a running worker tells its supervisor about itself.
//!
//! The worker keeps such a file open and rewrites it in place at a fixed length, so that a write needs
//! neither a new descriptor nor a new block of a full disk. A reader may therefore find a file that is
//! half written, which does not decode; it keeps what it read before, and reads again.
//!
//! There are two files, of two kinds of content. The report is what holds now: it changes with the
//! worker, and a problem that ends leaves it at once. The restarts are counts of the last ten minutes.
//! Each has a block of its own, so that many problems leave the counts their room.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Length of a file: one block of a disk.
pub const FILE_BYTES: usize = 4096;

const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    v: u32,
    #[serde(flatten)]
    content: T,
}

/// Encodes the content of a file, always [`FILE_BYTES`] long. While it is too long, `cut` shortens it;
/// `cut` returns false if nothing is left to cut.
pub(crate) fn encode<T: Serialize>(mut content: T, mut cut: impl FnMut(&mut T) -> bool) -> Vec<u8> {
    loop {
        let mut bytes = serde_json::to_vec(&Stored { v: FORMAT, content: &content }).unwrap_or_default();
        if bytes.len() < FILE_BYTES || !cut(&mut content) {
            bytes.resize(FILE_BYTES - 1, b' ');
            bytes.push(b'\n');
            return bytes;
        }
    }
}

/// Decodes the content of a file; `None` if it is half written, or of a newer format.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let stored: Stored<T> = serde_json::from_slice(bytes).ok()?;
    (stored.v == FORMAT).then_some(stored.content)
}
