//! Offering topology packages that every nimbus lost: `packages/<sha256>.tar`.
//!
//! A package on a supervisor is unpacked, and cannot be packed again to the same bytes. So the
//! supervisor keeps the tar file that it fetched, for as long as it keeps the unpacked package. If no
//! nimbus announces a package that a slot here uses, the supervisor sends the file to a nimbus, which
//! checks it by its name: the sha256 of its bytes.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracing::{debug, info, warn};

use stormkeeper_api_types::blobs::FetchBlob;
use stormkeeper_coordination::cluster::store::{self, Store};
use stormkeeper_model::BlobKey;
use stormkeeper_runtime::{blocking, error_chain, watch};

/// Directory of the packages.
const DIR: &str = "packages";

/// Period of looking for packages that no nimbus has. A package is offered when it was missing twice:
/// nimbuses that are all restarted announce their packages again meanwhile.
const PERIOD: Duration = Duration::from_secs(5);

/// Number of periods between two attempts to fetch the file of a package that was unpacked by a
/// build which kept none.
const FETCH_EVERY: u32 = 12;

/// Returns the file of a package in the data directory `local_dir`.
pub(super) fn file_of(local_dir: &Path, key: &BlobKey) -> PathBuf {
    local_dir.join(DIR).join(format!("{key}.tar"))
}

/// Keeps a package that was fetched into `file`. Blocks.
///
/// # Errors
/// If the file cannot be moved; it is still at `file` then.
pub(super) fn keep(local_dir: &Path, key: &BlobKey, file: &Path) -> io::Result<()> {
    fs::create_dir_all(local_dir.join(DIR))?;
    fs::rename(file, file_of(local_dir, key))
}

/// Removes the files of packages that are neither in `used` nor unpacked in `blobs`. Blocks.
fn remove_others(local_dir: &Path, used: &BTreeSet<BlobKey>) -> io::Result<()> {
    let files = match fs::read_dir(local_dir.join(DIR)) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for file in files {
        let path = file?.path();
        let key = path.file_stem().and_then(|name| name.to_str()?.parse::<BlobKey>().ok());
        // Anything else is not ours.
        let Some(key) = key.filter(|_| path.extension().is_some_and(|ending| ending == "tar")) else {
            continue;
        };
        if !used.contains(&key) && !local_dir.join("blobs").join(key.as_str()).exists() {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Offers packages of this supervisor.
pub(super) struct PackageOffers {
    pub(super) local_dir: PathBuf,
    pub(super) store: Store,
    pub(super) client: Arc<dyn FetchBlob>,
    /// The packages that slots here use and that are unpacked.
    pub(super) used: watch::Receiver<BTreeSet<BlobKey>>,
}

impl PackageOffers {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut missing = BTreeSet::new();
        let mut n_passes: u32 = 0;
        loop {
            tokio::time::sleep(PERIOD).await;
            let used = self.used.borrow_and_update().clone();
            let found = match self.store.blobs_without_holder(used.iter().cloned().collect()).await {
                Ok(found) => found.into_iter().collect(),
                Err(error) => {
                    debug!(%error, "cannot read which nimbuses have the packages; retrying");
                    continue;
                }
            };
            for key in BTreeSet::intersection(&missing, &found) {
                if let Err(reason) = self.offer(key).await {
                    warn!(blob = %key, reason, "no nimbus has a package, and none takes it from here; retrying");
                }
            }
            missing = found;
            if n_passes.is_multiple_of(FETCH_EVERY) {
                self.complete(&used, &missing).await;
            }
            n_passes = n_passes.wrapping_add(1);
        }
    }

    /// Sends a package to one nimbus. The others fetch it from there.
    async fn offer(&self, key: &BlobKey) -> Result<(), String> {
        let file = file_of(&self.local_dir, key);
        if !file.exists() {
            return Err("an earlier build has unpacked it here without keeping its file".to_owned());
        }
        let mut nimbuses = self.store.nimbus_apis().await.map_err(|error: store::Error| error.to_string())?;
        fastrand::shuffle(&mut nimbuses);
        let mut reason = "no nimbus is live".to_owned();
        for api in nimbuses {
            match self.client.offer(&api, key, &file).await {
                Ok(()) => {
                    info!(blob = %key, nimbus = api, "offered a package that no nimbus had");
                    return Ok(());
                }
                Err(error) => reason = error_chain(&error),
            }
        }
        Err(reason)
    }

    /// Fetches the missing files of packages that nimbuses have, and removes files of others.
    async fn complete(&self, used: &BTreeSet<BlobKey>, missing: &BTreeSet<BlobKey>) {
        for key in used.difference(missing).filter(|key| !file_of(&self.local_dir, key).exists()) {
            if let Err(reason) = self.fetch(key).await {
                debug!(blob = %key, reason, "cannot fetch the file of a package that is unpacked here");
            }
        }
        let (local_dir, used) = (self.local_dir.clone(), used.clone());
        if let Err(error) = blocking::run(move || remove_others(&local_dir, &used)).await {
            warn!(%error, "cannot remove the file of a package that is not used any more");
        }
    }

    async fn fetch(&self, key: &BlobKey) -> Result<(), String> {
        let api = self.store.blob_sources(key).await.map_err(|error| error.to_string())?;
        let api = fastrand::choice(&api).ok_or("no nimbus has it")?;
        let (local_dir, key) = (self.local_dir.clone(), key.clone());
        let partial = file_of(&local_dir, &key).with_extension("part");
        let (dir, at) = (local_dir.join(DIR), partial.clone());
        let prepare = move || fs::create_dir_all(dir).map(|()| drop(fs::remove_file(at)));
        blocking::run(prepare).await.map_err(|error| error.to_string())?;
        let fetched = self.client.fetch(api, &key, &partial).await;
        let place = move || match fetched {
            Ok(_) => keep(&local_dir, &key, &partial).map_err(|error| error.to_string()),
            Err(error) => {
                // There may be none.
                let _removed = fs::remove_file(&partial);
                Err(error_chain(&error))
            }
        };
        blocking::run(place).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_removed_with_its_unpacked_package_and_others_stay() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let keys = [BlobKey::of(b"used"), BlobKey::of(b"unpacked"), BlobKey::of(b"gone")];
        for key in &keys {
            let fetched = dir.path().join("fetched");
            fs::write(&fetched, "x").expect("written");
            keep(dir.path(), key, &fetched).expect("kept");
        }
        fs::create_dir_all(dir.path().join("blobs").join(keys[1].as_str())).expect("created");
        fs::write(dir.path().join(DIR).join("notes.txt"), "x").expect("written");
        remove_others(dir.path(), &[keys[0].clone()].into()).expect("removed");
        let remain = keys.each_ref().map(|key| file_of(dir.path(), key).exists());
        assert_eq!(remain, [true, true, false]);
        assert!(dir.path().join(DIR).join("notes.txt").exists());
        remove_others(&dir.path().join("new"), &BTreeSet::new()).expect("nothing is there");
    }
}
