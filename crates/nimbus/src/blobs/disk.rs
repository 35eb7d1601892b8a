//! Comparison of the list of blobs with the disk: at the start every byte, later the files' sizes, so
//! that a blob is announced only as long as it can be sent.

use std::{io, path::Path};

use tracing::{error, warn};

use super::{BlobStore, Error, StoredBlob, hash, names_in};
use stormkeeper_model::BlobKey;
use stormkeeper_runtime::{blocking, fs::modes};

/// Suffix of a blob whose bytes did not match its name; no key ends with it.
pub(super) const CORRUPT: &str = ".corrupt";

impl BlobStore {
    /// Records the result of a write of the file at `path`, under the directory of the blobs: the name
    /// of a file that is being received is used once.
    pub(super) fn written<T>(&self, path: &Path, result: io::Result<T>) -> Result<T, Error> {
        let recorded = self.shared.writes.record(&self.shared.dir, result);
        recorded.map_err(|source| Error::Disk { path: path.to_owned(), source })
    }

    /// Checks the sha256 of every blob on disk. A file whose bytes do not match its name is
    /// renamed and kept for inspection; it replaces an earlier one of the same name. What is not a
    /// file is not ours.
    pub(super) async fn scan_disk(&self) -> Result<(), Error> {
        let dir = self.shared.dir.clone();
        let names = blocking::run(move || names_in(&dir)).await?;
        for name in names {
            let path = self.shared.dir.join(&name);
            let Ok(key) = name.parse::<BlobKey>() else { continue };
            if self.holds(&key) {
                continue;
            }
            let checked = path.clone();
            match blocking::run(move || hash(&checked)).await {
                Ok((found, bytes)) if found == key => {
                    let used = self.shared.clock.monotonic();
                    self.lock()
                        .insert(key.clone(), StoredBlob { bytes, used, is_used: false, topology: None });
                }
                Ok((found, _)) => self.put_aside(&key, &found, &path).await,
                Err(error) => warn!(blob = %key, %error, "a blob on disk cannot be read: ignored"),
            }
        }
        Ok(())
    }

    async fn put_aside(&self, key: &BlobKey, found: &BlobKey, path: &Path) {
        let aside = self.shared.dir.join(format!("{key}{CORRUPT}"));
        let (from, to) = (path.to_owned(), aside.clone());
        match blocking::run(move || std::fs::rename(from, to)).await {
            Ok(()) => error!(
                blob = %key, %found, kept = %aside.display(),
                "the bytes of a blob on disk do not match its name: put aside, and fetched from another nimbus if a \
                 topology needs it; check the disk"
            ),
            Err(error) => error!(blob = %key, %error, "a corrupt blob cannot be put aside: ignored"),
        }
    }

    /// Compares the list with the disk: a blob whose file is missing or has another size is no
    /// longer listed nor announced, and a missing directory is created again. Returns the number of
    /// these blobs.
    pub(super) async fn check_files(&self) -> usize {
        let dir = self.shared.dir.clone();
        if let Err(error) = blocking::run(move || modes::create_dir_all(&dir)).await {
            warn!(dir = %self.shared.dir.display(), %error, "the directory of blobs cannot be created again");
        }
        let mut n_lost = 0;
        for (key, ..) in self.list() {
            n_lost += usize::from(!self.check_file(&key).await);
        }
        n_lost
    }

    /// As [`BlobStore::check_files`] for one blob. Returns whether it can be sent.
    pub(crate) async fn check_file(&self, key: &BlobKey) -> bool {
        // No file is moved into its place while its entry is compared with it.
        let _files = self.shared.files.lock().await;
        let Some((path, bytes)) = self.file(key) else { return false };
        let checked = path.clone();
        let reason = match blocking::run(move || std::fs::symlink_metadata(checked)).await {
            Ok(metadata) if metadata.is_file() && metadata.len() == bytes => return true,
            Ok(metadata) => format!("it has {} bytes instead of {bytes}", metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it was deleted".to_owned(),
            // A disk that cannot be asked now may have it.
            Err(error) => {
                warn!(blob = %key, %error, "a blob on disk cannot be checked");
                return true;
            }
        };
        self.lock().remove(key);
        self.shared.presence.withdraw(&self.holding(key));
        error!(
            blob = %key, path = %path.display(), reason,
            "a blob is no longer on the disk of this nimbus: not announced any more, and fetched from another nimbus \
             if a topology needs it"
        );
        false
    }
}
