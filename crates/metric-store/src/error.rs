//! What can go wrong with the archive, and what to do about it.

use std::path::PathBuf;

use stormkeeper_model::{LogPosition, Term};

/// Why the archive did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it open.
    #[error(
        "the metrics archive {} is open in another process: stop the other nimbus that uses this storm.local.dir, \
         then restart this one",
        path.display()
    )]
    Locked {
        /// Where it is.
        path: PathBuf,
    },
    /// It is damaged.
    #[error(
        "the metrics archive {} is damaged ({detail}): move the directory away and restart nimbus; a following \
         nimbus then fetches the leader's copy, and where there is no other nimbus a new archive begins",
        path.display()
    )]
    Corrupt {
        /// Where it is.
        path: PathBuf,
        /// What RocksDB found.
        detail: String,
    },
    /// A newer version wrote it.
    #[error(
        "the metrics archive {} has format {found}, and this version reads up to {known}: run the version that \
         wrote it, or move the directory away and restart nimbus",
        path.display()
    )]
    Version {
        /// Where it is.
        path: PathBuf,
        /// The format that it has.
        found: u32,
        /// The newest format that this version knows.
        known: u32,
    },
    /// It cannot be opened for another reason.
    #[error("cannot open the metrics archive {}: {detail}", path.display())]
    Open {
        /// Where it is.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A write failed, for example because the disk is full. Nothing of it counts as stored;
    /// a later one tries to open the archive anew.
    #[error("cannot write to the metrics archive {}: {detail}", path.display())]
    Write {
        /// Where it is.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A read failed.
    #[error("cannot read the metrics archive {}: {detail}", path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// More is waiting to be written than the bound; nothing was taken.
    #[error("the metrics archive has more to write than it may hold: try again in a moment")]
    Busy,
    /// The archive is closed, as this process is about to end.
    #[error("the metrics archive is closed")]
    Stopped,
    /// The log has entries of a later term: whoever asks does not lead any more.
    #[error("term {term} is over: the metrics archive has entries of term {last}")]
    StaleTerm {
        /// The term of the one who asked.
        term: Term,
        /// The term of the last entry.
        last: Term,
    },
    /// Entries that do not go on where the log ends.
    #[error("entry {}:{} does not follow {}:{}, the end of the log", found.term, found.index, last.term, last.index)]
    NotNext {
        /// The entry that was given.
        found: LogPosition,
        /// The end of the log.
        last: LogPosition,
    },
    /// The archive should make room for another one, and has what that one lacks.
    #[error(
        "this archive has metrics that the other one lacks, and no more can be put aside: {} are there already; \
         bring one back or move them away, as \"Metrics that were put aside\" in docs/operations.md says",
        list(aside)
    )]
    NoRoomAside {
        /// What was put aside before.
        aside: Vec<PathBuf>,
    },
    /// An entry or a record that this version cannot read.
    #[error("cannot read {what} of the metrics archive: {detail}")]
    Unreadable {
        /// Which.
        what: String,
        /// Why.
        detail: String,
    },
    /// A request without sense: it will never be taken.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether the same request may succeed in a moment.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy | Self::Write { .. } | Self::Read { .. } => true,
            Self::Locked { .. }
            | Self::Corrupt { .. }
            | Self::Version { .. }
            | Self::Open { .. }
            | Self::Stopped
            | Self::StaleTerm { .. }
            | Self::NotNext { .. }
            | Self::NoRoomAside { .. }
            | Self::Unreadable { .. }
            | Self::Invalid(_) => false,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}
