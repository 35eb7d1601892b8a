//! The open database, whichever backend it has, and what can be done with it.

use std::{ops::ControlFlow, path::Path};

use super::{memory, rocks};
use crate::{
    Error,
    key::{Range, Table},
};

/// Open database. A dropped database is closed, and can be opened again.
pub(super) enum Database {
    Rocks(rocks::Database),
    Memory(memory::Database),
}

impl Database {
    /// Returns the database for the duration of a borrow. Errors name `dir`.
    pub(super) fn view<'a>(&'a self, dir: &'a Path) -> View<'a> {
        View(match self {
            Self::Rocks(database) => Backend::Rocks(rocks::View::new(database, dir)),
            Self::Memory(database) => Backend::Memory(memory::View::new(database, dir)),
        })
    }

    /// Ends the work in the background, before the database is dropped.
    pub(super) fn stop(&self) {
        match self {
            Self::Rocks(database) => database.cancel_all_background_work(true),
            Self::Memory(_) => {}
        }
    }
}

/// The open database, for the duration of a borrow.
pub(crate) struct View<'a>(Backend<'a>);

enum Backend<'a> {
    Rocks(rocks::View<'a>),
    Memory(memory::View<'a>),
}

/// Atomic write: all of it or nothing. Its operations take effect in their order.
pub(crate) struct Batch<'a>(BatchBackend<'a>);

enum BatchBackend<'a> {
    Rocks(rocks::Batch<'a>),
    Memory(memory::Batch),
}

/// Cursor that reads one table, as it was when the cursor was made, at several positions.
pub(crate) struct Cursor<'a>(CursorBackend<'a>);

enum CursorBackend<'a> {
    Rocks(rocks::Cursor<'a>),
    Memory(memory::Cursor),
}

impl<'a> View<'a> {
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match &self.0 {
            Backend::Rocks(view) => view.get(table, key),
            Backend::Memory(view) => Ok(view.get(table, key)),
        }
    }

    /// Returns the values of `keys`, which must be sorted.
    pub(crate) fn get_all<K: AsRef<[u8]>>(
        &self,
        table: Table,
        keys: &[K],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        match &self.0 {
            Backend::Rocks(view) => view.get_all(table, keys),
            Backend::Memory(view) => Ok(view.get_all(table, keys)),
        }
    }

    /// Calls `look` for each item of `range`, in order, until it breaks.
    pub(crate) fn scan(
        &self,
        table: Table,
        range: &Range,
        look: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        match &self.0 {
            Backend::Rocks(view) => view.scan(table, range, look),
            Backend::Memory(view) => view.scan(table, range, look),
        }
    }

    /// Same as [`View::scan`], in reverse order.
    pub(crate) fn scan_back(
        &self,
        table: Table,
        range: &Range,
        look: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        match &self.0 {
            Backend::Rocks(view) => view.scan_back(table, range, look),
            Backend::Memory(view) => view.scan_back(table, range, look),
        }
    }

    pub(crate) fn cursor(&self, table: Table) -> Cursor<'a> {
        Cursor(match &self.0 {
            Backend::Rocks(view) => CursorBackend::Rocks(view.cursor(table)),
            Backend::Memory(view) => CursorBackend::Memory(view.cursor(table)),
        })
    }

    pub(crate) fn batch(&self) -> Batch<'a> {
        Batch(match &self.0 {
            Backend::Rocks(view) => BatchBackend::Rocks(view.batch()),
            Backend::Memory(_) => BatchBackend::Memory(memory::Batch::default()),
        })
    }

    /// Writes `batch`, which this view made; the batch is on disk after [`View::sync`].
    pub(crate) fn write(&self, batch: Batch<'_>) -> Result<(), Error> {
        match (&self.0, batch.0) {
            (Backend::Rocks(view), BatchBackend::Rocks(batch)) => view.write(batch),
            (Backend::Memory(view), BatchBackend::Memory(batch)) => view.write(batch),
            (Backend::Rocks(_), BatchBackend::Memory(_)) | (Backend::Memory(_), BatchBackend::Rocks(_)) => {
                unreachable!("a batch is written to the database that it was made for")
            }
        }
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        match &self.0 {
            Backend::Rocks(view) => view.sync(),
            Backend::Memory(view) => view.sync(),
        }
    }

    /// Starts to write the buffer of `table` to a file, which merges the values of each item in it. Does
    /// not wait.
    pub(crate) fn start_flush(&self, table: Table) -> Result<(), Error> {
        match &self.0 {
            Backend::Rocks(view) => view.start_flush(table),
            Backend::Memory(_) => Ok(()),
        }
    }

    /// Returns the approximate size on disk in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.0 {
            Backend::Rocks(view) => view.bytes(),
            Backend::Memory(view) => view.bytes(),
        }
    }

    /// Compacts the whole of `table`, which removes expired points; slow.
    pub(crate) fn compact(&self, table: Table) {
        match &self.0 {
            Backend::Rocks(view) => view.compact(table),
            Backend::Memory(view) => view.compact(table),
        }
    }

    pub(super) fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        match &self.0 {
            Backend::Rocks(view) => view.checkpoint(dir),
            Backend::Memory(view) => view.checkpoint(dir),
        }
    }
}

impl Batch<'_> {
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        match &mut self.0 {
            BatchBackend::Rocks(batch) => batch.put(table, key, value),
            BatchBackend::Memory(batch) => batch.put(table, key, value),
        }
    }

    /// Adds a value for the table's merge operator.
    pub(crate) fn merge(&mut self, table: Table, key: &[u8], value: &[u8]) {
        match &mut self.0 {
            BatchBackend::Rocks(batch) => batch.merge(table, key, value),
            BatchBackend::Memory(batch) => batch.merge(table, key, value),
        }
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        match &mut self.0 {
            BatchBackend::Rocks(batch) => batch.delete(table, key),
            BatchBackend::Memory(batch) => batch.delete(table, key),
        }
    }

    pub(crate) fn delete_range(&mut self, table: Table, range: &Range) {
        match &mut self.0 {
            BatchBackend::Rocks(batch) => batch.delete_range(table, range),
            BatchBackend::Memory(batch) => batch.delete_range(table, range),
        }
    }
}

impl Cursor<'_> {
    /// Calls `look` for each item, beginning at `from`, until it breaks.
    pub(crate) fn from(
        &mut self,
        from: &[u8],
        look: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        match &mut self.0 {
            CursorBackend::Rocks(cursor) => cursor.from(from, look),
            CursorBackend::Memory(cursor) => {
                cursor.from(from, look);
                Ok(())
            }
        }
    }
}
