//! Errors of blobs.

use std::path::PathBuf;

use super::room::NoRoom;
use stormkeeper_api_types::message::Code;
use stormkeeper_coordination::cluster::store;
use stormkeeper_model::BlobKey;

/// Reason why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The received bytes have another sha256 than the key.
    #[error("the bytes sent for blob {key} are those of blob {found}")]
    Mismatch {
        /// The requested key.
        key: BlobKey,
        /// The key of the received bytes.
        found: BlobKey,
    },
    /// The blob exceeds the size limit.
    #[error("blob {key} is larger than {limit} bytes")]
    TooLarge {
        /// The requested key.
        key: BlobKey,
        /// The limit in bytes.
        limit: u64,
    },
    /// There is no room for the blob.
    #[error("blob {key} is not accepted: {reason}")]
    NoRoom {
        /// The requested key.
        key: BlobKey,
        /// The limit that it would exceed.
        reason: NoRoom,
    },
    /// The transfer broke off.
    #[error("the bytes of blob {key} ended early: {reason}")]
    Interrupted {
        /// The requested key.
        key: BlobKey,
        /// Error of the transport.
        reason: String,
    },
    /// A file or directory cannot be read or written.
    #[error("{} cannot be written or read", path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The blob is on disk, but could not be announced in time.
    #[error("blob {key} is stored, but could not be announced in ZooKeeper")]
    Unannounced {
        /// The key.
        key: BlobKey,
        /// Error of the announcement.
        source: store::Error,
    },
}

impl Error {
    /// Error code for the API.
    pub fn code(&self) -> Code {
        match self {
            Self::Mismatch { .. } | Self::Interrupted { .. } => Code::BlobMismatch,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::NoRoom { .. } => Code::InsufficientStorage,
            Self::Disk { .. } => Code::Internal,
            Self::Unannounced { .. } => Code::TreeUnavailable,
        }
    }

    /// True if ZooKeeper does not let this nimbus announce the blob, whatever happens to other blobs.
    pub(super) fn is_denial(&self) -> bool {
        match self {
            Self::Unannounced { source: store::Error::Tree(error), .. } => error.is_denial(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::{cluster::layout, tree};
    use stormkeeper_runtime::error_chain;

    #[test]
    fn cause_of_a_failed_announcement_is_named_once() {
        let denied = tree::Error::NotAuthorized { path: Some(layout::term()) };
        let key: BlobKey = "0".repeat(64).parse().expect("valid");
        let text = error_chain(&Error::Unannounced { key, source: denied.into() });
        assert_eq!(text.matches("does not authorize").count(), 1, "{text}");
    }
}
