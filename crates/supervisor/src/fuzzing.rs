//! Entry for the fuzz bodies: unpacks any file.

use std::path::Path;

use stormkeeper_runtime::error_chain;

/// Unpacks the tar file at `blob` into the new directory `dir`.
///
/// # Errors
/// Description of the defect of the blob.
pub fn unpack(blob: &Path, dir: &Path) -> Result<(), String> {
    crate::unpack::unpack(blob, dir).map_err(|error| error_chain(&error))
}
