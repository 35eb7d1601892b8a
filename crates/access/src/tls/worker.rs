//! TLS of a worker, as its supervisor writes it into its directory: a line with the use of TLS, then the
//! authorities that have signed the certificates of nimbuses, in PEM. The file has no secret.

use std::{io, path::Path};

use super::{TlsMode, files::Trust};
use crate::file::{self, FileError, Protection};

/// TLS of a worker.
#[derive(Debug)]
pub struct WorkerTls {
    mode: TlsMode,
    trust: Trust,
}

/// Returns the text of the file.
pub(super) fn text(mode: TlsMode, authorities: &str) -> String {
    format!("{mode}\n{authorities}")
}

impl WorkerTls {
    /// Name of the file in the directory of a worker.
    pub const FILE: &str = "tls.authorities";

    /// Reads the file; `None` if it is not there. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Option<Self>, FileError> {
        let text = match file::read(path, Protection::Unchanged) {
            Ok(text) => text,
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (mode, authorities) = text.split_once('\n').unwrap_or((&text, ""));
        let mode = mode.parse::<TlsMode>().map_err(|error| FileError::Line {
            path: path.to_owned(),
            line: 1,
            fault: error.to_string(),
        })?;
        Ok(Some(Self { mode, trust: Trust::parse(path, authorities)? }))
    }

    /// Use of TLS.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }
}
