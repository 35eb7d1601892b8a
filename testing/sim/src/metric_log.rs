//! The metric logs of the nimbuses, as the journal sees them: on their disks, and in events.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    path::{Path, PathBuf},
};

use stormkeeper_coordination::cluster::metric_log::MetricLogState;
use stormkeeper_metric_store::{
    DirectoryChange, MemoryDisk,
    inspection::{self, StoredRecords},
};
use stormkeeper_metrics::{MetricId, MetricName};
use stormkeeper_model::LogPosition;

/// Prefix of the directories of quarantined databases.
const QUARANTINE: &str = "quarantine-";

/// Disk of one nimbus' metric store, which outlives the process. Clones share the content.
#[derive(Debug, Clone)]
pub(super) struct StoreDisk {
    pub(super) disk: MemoryDisk,
    /// Directory of the metric store.
    dir: PathBuf,
}

/// Event of the metric logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MetricLogEvent {
    /// The leader wrote `/metric-log`, while its log had these entries.
    Published { nimbus: String, state: MetricLogState, log: Vec<LogPosition> },
    /// A nimbus answered that a batch is in its log, which had these entries.
    Answered { nimbus: String, at: LogPosition, high_watermark: LogPosition, log: Vec<LogPosition> },
    /// A nimbus is about to rename a database of its metric store.
    Renamed { nimbus: String, from: String, to: String, log: Vec<LogPosition> },
    /// A nimbus is about to remove a database of its metric store. `kept` is the log of its current
    /// database.
    Removed { nimbus: String, name: String, log: Vec<LogPosition>, kept: Vec<LogPosition> },
}

impl StoreDisk {
    /// The disk of a nimbus whose local directory is `local_dir`.
    pub(super) fn new(local_dir: &Path) -> Self {
        Self { disk: MemoryDisk::default(), dir: local_dir.join("metrics") }
    }

    /// Returns the log of the current database; empty without a database.
    pub(super) fn log(&self) -> Vec<LogPosition> {
        self.log_of("db")
    }

    /// Returns the records of the current database that all nimbuses have in common.
    pub(super) fn records(&self) -> StoredRecords {
        inspection::replicated_records(&self.disk, &self.dir.join("db")).unwrap_or_default()
    }

    /// Returns the sum of each counter in the current database.
    pub(super) fn counters(&self) -> BTreeMap<MetricName, (MetricId, u64)> {
        inspection::counter_sums(&self.disk, &self.dir.join("db"))
    }

    /// Ends the process that uses the disk, without a word: what was not synced is lost.
    pub(super) fn crash(&self) {
        self.disk.crash(&self.dir);
    }

    /// Loses the content of the disk.
    pub(super) fn lose(&self) {
        self.disk.remove(&self.dir);
    }

    /// Returns the names of the quarantined databases.
    pub(super) fn quarantined(&self) -> Vec<String> {
        self.disk.names(&self.dir).into_iter().filter(|name| is_quarantine(name)).collect()
    }

    /// Moves all quarantined databases away, as an operator does. Returns their number.
    pub(super) fn clear_quarantine(&self) -> usize {
        let quarantined = self.quarantined();
        quarantined.iter().for_each(|name| self.disk.remove(&self.dir.join(name)));
        quarantined.len()
    }

    /// Returns the event of a change of the directories of this metric store.
    pub(super) fn event(&self, nimbus: &str, change: &DirectoryChange<'_>) -> Option<MetricLogEvent> {
        let name = |path: &Path| Some(path.strip_prefix(&self.dir).ok()?.to_str()?.to_owned());
        let nimbus = nimbus.to_owned();
        match change {
            DirectoryChange::Rename { from, to } => {
                let (log, to) = (self.log_at(from), name(to)?);
                // A fetched copy comes from a directory beside the metric store.
                let from = name(from).unwrap_or_else(|| "a checkpoint".to_owned());
                Some(MetricLogEvent::Renamed { nimbus, from, to, log })
            }
            DirectoryChange::Remove(dir) => {
                let (name, log, kept) = (name(dir)?, self.log_at(dir), self.log());
                Some(MetricLogEvent::Removed { nimbus, name, log, kept })
            }
        }
    }

    fn log_of(&self, name: &str) -> Vec<LogPosition> {
        self.log_at(&self.dir.join(name))
    }

    fn log_at(&self, path: &Path) -> Vec<LogPosition> {
        inspection::log_positions(&self.disk, path).unwrap_or_default()
    }
}

/// Returns whether `name` is the directory of a quarantined database.
pub(super) fn is_quarantine(name: &str) -> bool {
    name.starts_with(QUARANTINE)
}

/// Returns the end of a log.
pub(super) fn end(log: &[LogPosition]) -> LogPosition {
    log.last().copied().unwrap_or_default()
}

impl Display for MetricLogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published { nimbus, state, log } => {
                write!(f, "{nimbus} published {}, its log ends at {}", state.high_watermark, end(log))?;
                match state.unclean_takeover {
                    Some(takeover) => write!(
                        f,
                        "; unclean takeover of term {}: {} to {}",
                        takeover.term, takeover.log_end, takeover.discarded_through
                    ),
                    None => Ok(()),
                }
            }
            Self::Answered { nimbus, at, high_watermark, .. } => {
                write!(f, "{nimbus} ingested entry {at}, committed up to {high_watermark}")
            }
            Self::Renamed { nimbus, from, to, log } => {
                write!(f, "{nimbus} renames the database {from}, which ends at {}, to {to}", end(log))
            }
            Self::Removed { nimbus, name, log, .. } => {
                write!(f, "{nimbus} removes the database {name}, which ends at {}", end(log))
            }
        }
    }
}
