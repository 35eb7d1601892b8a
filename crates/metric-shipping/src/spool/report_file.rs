//! Spooled reports: one file for each report.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::name_log::{self, NameLog};
use stormkeeper_metrics::{MetricId, MetricName, MetricReport, messagepack};
use stormkeeper_runtime::fs::{atomic_file, regular_file};

pub(super) const NAMES: &str = "names";
const PREFIX: &str = "report-";
const DIGEST_BYTES: usize = 32;

/// One report, or consecutive reports joined into one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpooledReport {
    /// Sequence number of the first report; the report has that of the last.
    pub first: u64,
    /// The joined report.
    pub report: MetricReport,
}

#[derive(Serialize)]
struct EncodedReport<'a> {
    spooled: &'a SpooledReport,
    totals: &'a BTreeMap<MetricId, u64>,
}

/// A report as read from its file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct EncodedRecord {
    pub(super) spooled: SpooledReport,
    /// Total of each counter at the time of the report.
    pub(super) totals: BTreeMap<MetricId, u64>,
}

/// The spool of a live worker: its reports on disk.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    names: NameLog,
}

impl Spool {
    /// Creates an empty spool.
    ///
    /// # Errors
    /// If `dir` cannot be written, or was used before.
    pub fn create(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: dir.to_owned(), names: NameLog::create(&dir.join(NAMES))? })
    }

    /// Records a metric's name; required before any report that contains the id.
    ///
    /// # Errors
    /// If the name could not be written.
    pub fn add_name(&mut self, id: MetricId, name: &MetricName) -> io::Result<()> {
        self.names.add(id, name)
    }

    /// Reads the recorded names.
    ///
    /// # Errors
    /// If the names cannot be read.
    pub fn names(&self) -> io::Result<Vec<(MetricId, MetricName)>> {
        Ok(name_log::read(&self.dir.join(NAMES))?.into_iter().flatten().collect())
    }

    /// Writes a report with the totals of all counters at that time, atomically.
    ///
    /// # Errors
    /// If the report could not be written; then the file does not exist.
    pub fn write(&self, spooled: &SpooledReport, totals: &BTreeMap<MetricId, u64>) -> io::Result<()> {
        let content =
            rmp_serde::to_vec(&EncodedReport { spooled, totals }).expect("reports are plain values");
        let bytes = [&Sha256::digest(&content), &content[..]].concat();
        atomic_file::write(&self.path(spooled.first, spooled.report.number), &bytes)
    }

    /// Reads a report that was written.
    ///
    /// # Errors
    /// If the file does not exist, or is damaged.
    pub fn read(&self, first: u64, last: u64) -> io::Result<SpooledReport> {
        read_file(&self.path(first, last)).map(|stored| stored.spooled)
    }

    /// Joins two consecutive reports into one. A crash in between leaves the parts as well, and
    /// the reader takes the longer report.
    ///
    /// # Errors
    /// If a part cannot be read or the joined report cannot be written; then the parts still exist.
    pub fn join(&self, older: (u64, u64), newer: (u64, u64)) -> io::Result<()> {
        let first = read_file(&self.path(older.0, older.1))?.spooled;
        let last = read_file(&self.path(newer.0, newer.1))?;
        self.write(&joined(first, last.spooled), &last.totals)?;
        self.remove(older.0, older.1);
        self.remove(newer.0, newer.1);
        Ok(())
    }

    /// Removes a committed report. Must not be called for the last report: it contains the totals
    /// of the counters.
    pub fn remove(&self, first: u64, last: u64) {
        // If the file stays, the supervisor sends the report again, which changes nothing.
        let _stays = fs::remove_file(self.path(first, last));
    }

    fn path(&self, first: u64, last: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{first}-{last}"))
    }
}

/// Joins two consecutive reports; the result counts for the later minute.
fn joined(older: SpooledReport, newer: SpooledReport) -> SpooledReport {
    let SpooledReport { first, report: MetricReport { leaves, .. } } = older;
    let mut report = newer.report;
    let mut places: BTreeMap<MetricId, usize> =
        report.leaves.iter().enumerate().map(|(place, leaf)| (leaf.id, place)).collect();
    for leaf in leaves {
        match places.get(&leaf.id) {
            // Both points have the same type: a metric of another type has another id.
            Some(place) => drop(report.leaves[*place].point.merge(&leaf.point)),
            None => {
                places.insert(leaf.id, report.leaves.len());
                report.leaves.push(leaf);
            }
        }
    }
    SpooledReport { first, report }
}

/// Parses the first and last sequence number in the name of a report's file.
pub(super) fn numbers(file_name: &str) -> Option<(u64, u64)> {
    let (first, last) = file_name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

pub(super) fn read_file(path: &Path) -> io::Result<EncodedRecord> {
    let bytes = regular_file::read(path)?;
    let damaged =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {}", path.display()));
    let Some((digest, content)) = bytes.split_at_checked(DIGEST_BYTES) else {
        return Err(damaged("a metric report is truncated"));
    };
    if Sha256::digest(content).as_slice() != digest {
        return Err(damaged("the checksum of a metric report does not match"));
    }
    messagepack::decode(content).map_err(|_| damaged("a metric report has an unknown format"))
}
