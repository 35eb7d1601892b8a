//! Cuts as files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::lines::{self, Lines};
use crate::metrics::{MetricId, MetricName, Snapshot};

pub(super) const NAMES: &str = "names";
const PREFIX: &str = "cut-";
const DIGEST_BYTES: usize = 32;

/// One cut, or neighbouring ones made into one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// The number of the first; the snapshot has the last's.
    pub first: u64,
    /// What was measured.
    pub snapshot: Snapshot,
}

#[derive(Serialize)]
struct Out<'a> {
    cut: &'a Cut,
    totals: &'a BTreeMap<MetricId, u64>,
}

/// A cut as it was read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Stored {
    pub(super) cut: Cut,
    /// How far each counter was then.
    pub(super) totals: BTreeMap<MetricId, u64>,
}

/// The cuts of a live worker on its disk.
#[derive(Debug)]
pub struct CutDir {
    dir: PathBuf,
    names: Lines,
}

impl CutDir {
    /// No cuts yet.
    ///
    /// # Errors
    /// When `dir` cannot be written, or was used before.
    pub fn create(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: dir.to_owned(), names: Lines::create(&dir.join(NAMES))? })
    }

    /// Notes a metric's name, before any cut in which its id stands.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn add_name(&mut self, id: MetricId, name: &MetricName) -> io::Result<()> {
        self.names.add(id, name)
    }

    /// The names that were noted.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn names(&self) -> io::Result<Vec<(MetricId, MetricName)>> {
        Ok(lines::read(&self.dir.join(NAMES))?.into_iter().flatten().collect())
    }

    /// Writes a cut, with how far every counter was then. It is there as a whole or not at all.
    ///
    /// # Errors
    /// When it could not be written; then it is not there.
    pub fn write(&self, cut: &Cut, totals: &BTreeMap<MetricId, u64>) -> io::Result<()> {
        let content = rmp_serde::to_vec(&Out { cut, totals }).expect("cuts are plain values");
        let next = self.dir.join("next");
        let mut file = File::create(&next)?;
        file.write_all(&Sha256::digest(&content))?;
        file.write_all(&content)?;
        file.sync_data()?;
        fs::rename(next, self.path(cut.first, cut.snapshot.number))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Reads a cut that was written.
    ///
    /// # Errors
    /// When it is not there, or damaged.
    pub fn read(&self, first: u64, last: u64) -> io::Result<Cut> {
        read_file(&self.path(first, last)).map(|stored| stored.cut)
    }

    /// Makes one cut of two neighbouring ones. A crash in between leaves the parts as well, and
    /// whoever reads takes the longer one.
    ///
    /// # Errors
    /// When a part cannot be read or the whole not be written; the parts are there then.
    pub fn join(&self, older: (u64, u64), newer: (u64, u64)) -> io::Result<()> {
        let first = read_file(&self.path(older.0, older.1))?.cut;
        let last = read_file(&self.path(newer.0, newer.1))?;
        self.write(&joined(first, last.cut), &last.totals)?;
        self.remove(older.0, older.1);
        self.remove(newer.0, newer.1);
        Ok(())
    }

    /// Removes a cut that is safe. Never the last one: how far the counters were stands in it.
    pub fn remove(&self, first: u64, last: u64) {
        // One that stays is sent once more by the supervisor, which changes nothing.
        let _stays = fs::remove_file(self.path(first, last));
    }

    fn path(&self, first: u64, last: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{first}-{last}"))
    }
}

/// Two neighbouring cuts as one, which counts for the later minute.
fn joined(older: Cut, newer: Cut) -> Cut {
    let Cut { first, snapshot: Snapshot { leaves, .. } } = older;
    let mut snapshot = newer.snapshot;
    let mut places: BTreeMap<MetricId, usize> =
        snapshot.leaves.iter().enumerate().map(|(place, leaf)| (leaf.id, place)).collect();
    for leaf in leaves {
        match places.get(&leaf.id) {
            // One of another kind is another metric's, and there is none.
            Some(place) => drop(snapshot.leaves[*place].point.merge(&leaf.point)),
            None => {
                places.insert(leaf.id, snapshot.leaves.len());
                snapshot.leaves.push(leaf);
            }
        }
    }
    Cut { first, snapshot }
}

/// The first and last number in the name of a cut's file.
pub(super) fn numbers(file_name: &str) -> Option<(u64, u64)> {
    let (first, last) = file_name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

pub(super) fn read_file(path: &Path) -> io::Result<Stored> {
    let bytes = fs::read(path)?;
    let damaged =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {}", path.display()));
    let Some((digest, content)) = bytes.split_at_checked(DIGEST_BYTES) else {
        return Err(damaged("a cut is too short"));
    };
    if Sha256::digest(content).as_slice() != digest {
        return Err(damaged("a cut is damaged"));
    }
    rmp_serde::from_slice(content).map_err(|_| damaged("a cut is of another version"))
}
