//! Entry for the fuzz bodies: entries of the metric log as bytes.

use crate::{Error, entry::Entry};
use stormkeeper_model::LogPosition;

/// Decodes an entry of the metric log, and encodes it again. Returns the bytes, and the number of
/// points in the entry.
///
/// # Errors
/// [`Error::Unreadable`] if `bytes` are not an entry.
pub fn reencode_entry(position: LogPosition, bytes: &[u8]) -> Result<(Vec<u8>, usize), Error> {
    let entry = Entry::decode(position, bytes)?;
    let n_points = match &entry {
        Entry::Batch { points, .. } => points.iter().count(),
        _ => 0,
    };
    Ok((entry.encode(), n_points))
}
