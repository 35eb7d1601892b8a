//! Errors of the metric store, with texts that say what to do.

use std::path::PathBuf;

use stormkeeper_model::{LogPosition, Term};
use stormkeeper_runtime::fs::layout_file;

/// Error of the metric store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the database open.
    #[error(
        "the metric store {} is open in another process: stop the other nimbus that uses this storm.local.dir, \
         then restart this one",
        path.display()
    )]
    Locked {
        /// Directory of the store.
        path: PathBuf,
    },
    /// The database is damaged.
    #[error(
        "the metric store {} is damaged ({detail}): move the directory away and restart nimbus; a follower \
         then fetches the leader's copy, and without another nimbus the store begins empty",
        path.display()
    )]
    Corrupt {
        /// Directory of the store.
        path: PathBuf,
        /// RocksDB's description of the damage.
        detail: String,
    },
    /// The directory has another layout.
    #[error(transparent)]
    Layout(#[from] layout_file::Error),
    /// Another version wrote the database.
    #[error(
        "the metric store {} has format {found}, and this build reads {}: run the build that wrote it, or \
         move the directory away and restart nimbus; a follower then fetches the leader's copy, and without \
         another nimbus the store begins empty. The data was not changed",
        path.display(), readable(*found, *known)
    )]
    Version {
        /// Directory of the store.
        path: PathBuf,
        /// Format of the database.
        found: u32,
        /// Latest format that this build reads.
        known: u32,
    },
    /// The database cannot be opened for another reason.
    #[error("cannot open the metric store {}: {detail}", path.display())]
    Open {
        /// Directory of the store.
        path: PathBuf,
        /// Reason in RocksDB's or the system's words.
        detail: String,
    },
    /// A write failed, for example because the disk is full. Nothing of it counts as stored; a later
    /// write first tries to reopen the database.
    #[error("cannot write to the metric store {}: {detail}", path.display())]
    Write {
        /// Directory of the store, or of the checkpoint.
        path: PathBuf,
        /// Reason in RocksDB's or the system's words.
        detail: String,
    },
    /// A read failed.
    #[error("cannot read the metric store {}: {detail}", path.display())]
    Read {
        /// Directory of the store.
        path: PathBuf,
        /// Reason in RocksDB's words.
        detail: String,
    },
    /// Too many writes are waiting; the request was rejected as a whole.
    #[error("the metric store is overloaded: too many writes are waiting; try again in a moment")]
    Busy,
    /// The store is closed, because the process is about to end.
    #[error("the metric store is closed")]
    Stopped,
    /// The log has entries of a later term: the caller does not lead any more.
    #[error("term {term} is over: the metric store has entries of term {last}")]
    StaleTerm {
        /// Term of the caller.
        term: Term,
        /// Term of the last log entry.
        last: Term,
    },
    /// Entry whose position does not follow the end of the log.
    #[error("entry {}.{} does not follow {}.{}, the end of the log", found.term, found.index, last.term, last.index)]
    NotNext {
        /// Position of the entry.
        found: LogPosition,
        /// End of the log.
        last: LogPosition,
    },
    /// The database must be quarantined before its replacement, and the quarantine is full.
    #[error(
        "the metric store may hold committed metrics that its replacement is missing, and the quarantine is full: \
         {} exist already; restore one or move them away, see \"Quarantined databases\" in docs/operations/metrics.md",
        list(quarantined)
    )]
    QuarantineFull {
        /// Quarantined databases.
        quarantined: Vec<PathBuf>,
    },
    /// Entry or record that this version cannot read.
    #[error("cannot read {what} of the metric store: {detail}")]
    Unreadable {
        /// Kind of entry or record.
        what: String,
        /// Decoder's reason.
        detail: String,
    },
    /// Malformed request, which will never be accepted.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Returns whether the same request may succeed in a moment.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy | Self::Write { .. } | Self::Read { .. } => true,
            Self::Locked { .. }
            | Self::Layout(_)
            | Self::Corrupt { .. }
            | Self::Version { .. }
            | Self::Open { .. }
            | Self::Stopped
            | Self::StaleTerm { .. }
            | Self::NotNext { .. }
            | Self::QuarantineFull { .. }
            | Self::Unreadable { .. }
            | Self::Invalid(_) => false,
        }
    }
}

/// Returns the formats that this build reads, as opposed to `found`.
fn readable(found: u32, known: u32) -> String {
    if found > known { format!("up to {known}") } else { format!("only {known}") }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}
