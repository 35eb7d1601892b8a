//! Room for uploads: a quota of bytes that no topology uses, and a low-water mark of the disk, so that
//! one client cannot fill the disk of a nimbus.

use std::{path::Path, sync::atomic::Ordering};

use stormkeeper_model::BlobKey;
use stormkeeper_runtime::{
    blocking,
    proc::{self, DiskSpace},
};

use super::{BlobStore, RETENTION_MIN};

/// Bounds of the low-water mark if it is not configured: a share of the disk, and a maximum.
const FREE_SHARE_MIN: u64 = 20;
const FREE_BYTES_MIN_MAX: u64 = 1 << 30;

/// Received bytes after which the room is checked again.
pub(super) const CHECK_BYTES: u64 = 1 << 20;

/// Limits of uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadLimits {
    /// Most bytes of blobs that no topology uses, with those that are being received.
    pub unused_bytes_max: u64,
    /// Free bytes of the disk below which nothing is accepted; by default a twentieth of the disk, and
    /// at most 1 GiB.
    pub free_bytes_min: Option<u64>,
}

impl UploadLimits {
    /// The low-water mark of a disk.
    fn free_bytes_min(&self, disk: DiskSpace) -> u64 {
        self.free_bytes_min.unwrap_or((disk.total_bytes / FREE_SHARE_MIN).min(FREE_BYTES_MIN_MAX))
    }

    /// Checks that `incoming` bytes fit beside `unused` bytes and on the disk; a disk that cannot be
    /// queried may have room.
    fn check(&self, incoming: u64, unused: u64, disk: Option<DiskSpace>) -> Result<(), NoRoom> {
        if let Some(disk) = disk {
            let min = self.free_bytes_min(disk);
            if disk.free_bytes.saturating_sub(incoming) < min {
                return Err(NoRoom::Disk { free: disk.free_bytes, incoming, min });
            }
        }
        let max = self.unused_bytes_max;
        match unused.saturating_add(incoming) > max {
            true => Err(NoRoom::Quota { unused, incoming, max }),
            false => Ok(()),
        }
    }
}

/// Reason why an upload is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The disk is below its low-water mark, or would be.
    #[error(
        "the disk of this nimbus has {free} free bytes; with {incoming} more, less than {min} would remain \
         (nimbus.disk.free.bytes.min)"
    )]
    Disk {
        /// Free bytes.
        free: u64,
        /// Bytes of the upload.
        incoming: u64,
        /// The low-water mark.
        min: u64,
    },
    /// The blobs without a topology are over their quota.
    #[error(
        "this nimbus has {unused} bytes of blobs that no topology uses; with {incoming} more they would exceed {max} \
         (nimbus.blobs.unused.bytes.max)"
    )]
    Quota {
        /// Unused bytes, with those that are being received.
        unused: u64,
        /// Bytes of the upload.
        incoming: u64,
        /// The quota.
        max: u64,
    },
}

impl NoRoom {
    /// Remedy for the operator.
    pub fn hint(&self) -> String {
        match self {
            Self::Disk { .. } => {
                "make room on the disk of the leading nimbus (`stormkeeper nimbuses`), or lower \
                                  nimbus.disk.free.bytes.min"
                    .to_owned()
            }
            Self::Quota { .. } => {
                "submit or wait: a blob that no topology uses is deleted when it is in the way, one \
                                   minute after its upload; or raise nimbus.blobs.unused.bytes.max"
                    .to_owned()
            }
        }
    }
}

/// Bytes that are being received; they count as unused until this is dropped.
pub(super) struct Receiving<'a> {
    blobs: &'a BlobStore,
    bytes: u64,
}

impl Receiving<'_> {
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.blobs.shared.receiving.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.blobs.shared.receiving.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl BlobStore {
    pub(super) fn receiving(&self) -> Receiving<'_> {
        Receiving { blobs: self, bytes: 0 }
    }

    /// Checks that `incoming` more bytes can be accepted. Unused blobs that are in the way are
    /// deleted, the longest unused first, if they are a minute old.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub async fn check_room(&self, incoming: u64) -> Result<(), NoRoom> {
        loop {
            let Err(no_room) =
                self.shared.limits.check(incoming, self.unused_bytes(), self.disk_space().await)
            else {
                return Ok(());
            };
            let mut unused = self.unused();
            unused.sort_by_key(|(_, used)| *used);
            let mut is_any_deleted = false;
            for (key, _) in unused {
                if self.delete_unused(&key, RETENTION_MIN).await {
                    is_any_deleted = true;
                    break;
                }
            }
            if !is_any_deleted {
                return Err(no_room);
            }
        }
    }

    /// Returns the reason if the disk is below its low-water mark, for the list of nimbuses. It names no
    /// figure that changes all the time.
    pub(super) async fn disk_problem(&self) -> Option<String> {
        let disk = self.disk_space().await?;
        let min = self.shared.limits.free_bytes_min(disk);
        (disk.free_bytes < min).then(|| low_disk(&self.shared.dir, min))
    }

    async fn disk_space(&self) -> Option<DiskSpace> {
        let dir = self.shared.dir.clone();
        blocking::run(move || proc::disk_space(&dir)).await.ok()
    }

    /// Records which blobs topologies use.
    pub(super) fn set_used(&self, is_used: impl Fn(&BlobKey) -> bool) {
        self.lock().iter_mut().for_each(|(key, stored)| stored.is_used = is_used(key));
    }

    fn unused(&self) -> Vec<(BlobKey, stormkeeper_model::clock::Monotonic)> {
        let all = self.lock();
        all.iter()
            .filter(|(_, stored)| !stored.is_used)
            .map(|(key, stored)| (key.clone(), stored.used))
            .collect()
    }

    fn unused_bytes(&self) -> u64 {
        let held: u64 =
            self.lock().values().filter(|stored| !stored.is_used).map(|stored| stored.bytes).sum();
        held + self.shared.receiving.load(Ordering::Relaxed)
    }
}

fn low_disk(dir: &Path, min: u64) -> String {
    format!(
        "less than {min} bytes are free on the disk of {} (nimbus.disk.free.bytes.min): no topology package is \
         accepted; make room",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_limited_by_the_quota_and_by_the_low_water_mark() {
        let disk = |free_bytes, total_bytes| Some(DiskSpace { free_bytes, total_bytes });
        let limits = UploadLimits { unused_bytes_max: 100, free_bytes_min: Some(50) };
        assert_eq!(limits.check(40, 60, disk(90, 1000)), Ok(()));
        assert_eq!(
            limits.check(41, 60, disk(99, 1000)),
            Err(NoRoom::Quota { unused: 60, incoming: 41, max: 100 })
        );
        assert_eq!(
            limits.check(40, 60, disk(89, 1000)),
            Err(NoRoom::Disk { free: 89, incoming: 40, min: 50 })
        );
        assert_eq!(limits.check(0, 0, disk(49, 1000)), Err(NoRoom::Disk { free: 49, incoming: 0, min: 50 }));
        assert_eq!(limits.check(100, 0, None), Ok(()), "a disk that cannot be queried");
        let defaults = UploadLimits { free_bytes_min: None, ..limits };
        assert_eq!(defaults.check(0, 0, disk(50, 1000)), Ok(()));
        assert!(defaults.check(0, 0, disk(49, 1000)).is_err(), "a twentieth");
        assert_eq!(defaults.check(0, 0, disk(1 << 30, 1 << 40)), Ok(()), "at most 1 GiB");
    }
}
