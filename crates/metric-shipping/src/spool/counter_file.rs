//! Counter file: the current totals of a task's counters, in a file that is written in place.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use super::name_log::{self, NameLog};
use stormkeeper_metrics::{MetricId, MetricName};
use stormkeeper_model::TaskId;

/// Start of the file.
pub(super) const MAGIC: [u8; 8] = *b"SKCOUNT1";

const NUMBER_BYTES: usize = size_of::<u64>();

pub(super) const COUNTERS: &str = "counters-";
pub(super) const SLOTS: &str = "slots-";

/// The counter file of one task. Each counter has a slot; slots are numbered from the start.
#[derive(Debug)]
pub struct CounterFile {
    file: File,
    slots: NameLog,
    n_slots: usize,
    written: Vec<u8>,
    bytes: Vec<u8>,
}

impl CounterFile {
    /// Creates the files of a task in `dir`.
    ///
    /// # Errors
    /// If the files cannot be written, or exist already.
    pub fn create(dir: &Path, task: TaskId) -> io::Result<Self> {
        let slots = NameLog::create(&dir.join(format!("{SLOTS}{task}")))?;
        let file = File::create_new(dir.join(format!("{COUNTERS}{task}")))?;
        file.write_all_at(&MAGIC, 0)?;
        Ok(Self { file, slots, n_slots: 0, written: Vec::new(), bytes: Vec::new() })
    }

    /// Records the counter of the next slot; the slot may be written only after that.
    ///
    /// # Errors
    /// If the record could not be written: then the slot does not exist.
    pub fn add_slot(&mut self, id: MetricId, name: &MetricName) -> io::Result<()> {
        self.slots.add(id, name)?;
        self.n_slots += 1;
        Ok(())
    }

    /// Number of slots.
    pub fn n_slots(&self) -> usize {
        self.n_slots
    }

    /// Writes the totals of the counters, in the order of their slots; totals beyond the last slot
    /// are left out. Writes nothing if no total has changed.
    ///
    /// # Errors
    /// If the totals could not be written; the next call writes all of them again.
    pub fn write(&mut self, totals: impl IntoIterator<Item = u64>) -> io::Result<()> {
        self.bytes.clear();
        for total in totals.into_iter().take(self.n_slots) {
            self.bytes.extend_from_slice(&total.to_le_bytes());
        }
        if self.bytes == self.written {
            return Ok(());
        }
        self.file.write_all_at(&self.bytes, MAGIC.len() as u64)?;
        std::mem::swap(&mut self.bytes, &mut self.written);
        Ok(())
    }
}

/// Returns the counters of a task that were ever written, and their totals. A file without a
/// complete start counts as missing.
pub(super) fn read(dir: &Path, task: &str) -> io::Result<Vec<(MetricId, MetricName, u64)>> {
    let slots = name_log::read(&dir.join(format!("{SLOTS}{task}")))?;
    let bytes = match stormkeeper_runtime::fs::regular_file::read(&dir.join(format!("{COUNTERS}{task}"))) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let Some(numbers) = bytes.strip_prefix(&MAGIC) else { return Ok(Vec::new()) };
    // A truncated number at the end belongs to a slot that was never written before.
    let numbers = numbers.chunks_exact(NUMBER_BYTES).map(|number| {
        let mut bytes = [0; NUMBER_BYTES];
        bytes.copy_from_slice(number);
        u64::from_le_bytes(bytes)
    });
    let known = slots.into_iter().zip(numbers);
    Ok(known.filter_map(|(slot, total)| slot.map(|(id, name)| (id, name, total))).collect())
}
