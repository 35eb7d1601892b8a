//! How far the counters of a task are, in a file that is written in place.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use super::lines::{self, Lines};
use crate::{
    metrics::{MetricId, MetricName},
    model::TaskId,
};

/// What the file begins with.
pub(super) const MAGIC: [u8; 8] = *b"SKCOUNT1";

const NUMBER_BYTES: usize = size_of::<u64>();

pub(super) const COUNTERS: &str = "counters-";
pub(super) const SLOTS: &str = "slots-";

/// The counters of one task. Each has a slot, from the first on.
#[derive(Debug)]
pub struct CounterFile {
    file: File,
    slots: Lines,
    n_slots: usize,
    written: Vec<u8>,
    bytes: Vec<u8>,
}

impl CounterFile {
    /// Makes the files of a task in `dir`.
    ///
    /// # Errors
    /// When they cannot be written, or are there already.
    pub fn create(dir: &Path, task: TaskId) -> io::Result<Self> {
        let slots = Lines::create(&dir.join(format!("{SLOTS}{task}")))?;
        let file = File::create_new(dir.join(format!("{COUNTERS}{task}")))?;
        file.write_all_at(&MAGIC, 0)?;
        Ok(Self { file, slots, n_slots: 0, written: Vec::new(), bytes: Vec::new() })
    }

    /// Notes which counter the next slot is of; only then it may be written.
    ///
    /// # Errors
    /// When that could not be written: the slot is not there then.
    pub fn add_slot(&mut self, id: MetricId, name: &MetricName) -> io::Result<()> {
        self.slots.add(id, name)?;
        self.n_slots += 1;
        Ok(())
    }

    /// How many slots there are.
    pub fn n_slots(&self) -> usize {
        self.n_slots
    }

    /// Writes how far the counters are, in the order of their slots; those beyond the last slot
    /// are left out. Writes nothing when nothing has changed.
    ///
    /// # Errors
    /// When it could not be written; the next call tries all of it again.
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

/// The counters of a task that were ever written, and how far they were. A file that was never
/// begun is as good as none.
pub(super) fn read(dir: &Path, task: &str) -> io::Result<Vec<(MetricId, MetricName, u64)>> {
    let slots = lines::read(&dir.join(format!("{SLOTS}{task}")))?;
    let bytes = match std::fs::read(dir.join(format!("{COUNTERS}{task}"))) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let Some(numbers) = bytes.strip_prefix(&MAGIC) else { return Ok(Vec::new()) };
    // A number at the end that is cut short was never there before.
    let numbers = numbers.chunks_exact(NUMBER_BYTES).map(|number| {
        let mut bytes = [0; NUMBER_BYTES];
        bytes.copy_from_slice(number);
        u64::from_le_bytes(bytes)
    });
    let known = slots.into_iter().zip(numbers);
    Ok(known.filter_map(|(slot, total)| slot.map(|(id, name)| (id, name, total))).collect())
}
