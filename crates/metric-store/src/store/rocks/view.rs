//! Reads and writes of an open RocksDB database.

use std::{ops::ControlFlow, path::Path};

use rocksdb::{
    ColumnFamily, DB, DBRawIterator, FlushOptions, ReadOptions, WriteBatch, WriteOptions,
    checkpoint::Checkpoint,
};

use crate::{
    Error,
    key::{Range, Table},
};

pub(in crate::store) struct View<'a> {
    db: &'a DB,
    dir: &'a Path,
}

pub(in crate::store) struct Batch<'a> {
    batch: WriteBatch,
    families: [&'a ColumnFamily; 4],
}

pub(in crate::store) struct Cursor<'a> {
    iterator: DBRawIterator<'a>,
    dir: &'a Path,
}

impl<'a> View<'a> {
    pub(in crate::store) fn new(db: &'a DB, dir: &'a Path) -> Self {
        Self { db, dir }
    }

    fn family(&self, table: Table) -> &'a ColumnFamily {
        self.db.cf_handle(table.name()).expect("every table was made when the database was opened")
    }

    pub(in crate::store) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.db.get_cf(self.family(table), key).map_err(|error| cannot_read(self.dir, &error))
    }

    pub(in crate::store) fn get_all<K: AsRef<[u8]>>(
        &self,
        table: Table,
        keys: &[K],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.db
            .batched_multi_get_cf(self.family(table), keys, true)
            .into_iter()
            .map(|value| match value {
                Ok(value) => Ok(value.map(|value| value.to_vec())),
                Err(error) => Err(cannot_read(self.dir, &error)),
            })
            .collect()
    }

    pub(in crate::store) fn scan(
        &self,
        table: Table,
        range: &Range,
        mut look: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut iterator = self.bounded(table, range);
        iterator.seek(&range.0);
        while let Some((key, value)) = iterator.item() {
            if look(key, value)?.is_break() {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(|error| cannot_read(self.dir, &error))
    }

    pub(in crate::store) fn scan_back(
        &self,
        table: Table,
        range: &Range,
        mut look: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut iterator = self.bounded(table, range);
        iterator.seek_to_last();
        while let Some((key, value)) = iterator.item() {
            if look(key, value)?.is_break() {
                return Ok(());
            }
            iterator.prev();
        }
        iterator.status().map_err(|error| cannot_read(self.dir, &error))
    }

    fn bounded(&self, table: Table, range: &Range) -> DBRawIterator<'a> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.0.clone());
        options.set_iterate_upper_bound(range.1.clone());
        self.db.raw_iterator_cf_opt(self.family(table), options)
    }

    pub(in crate::store) fn cursor(&self, table: Table) -> Cursor<'a> {
        Cursor { iterator: self.db.raw_iterator_cf(self.family(table)), dir: self.dir }
    }

    pub(in crate::store) fn batch(&self) -> Batch<'a> {
        Batch { batch: WriteBatch::default(), families: Table::ALL.map(|table| self.family(table)) }
    }

    pub(in crate::store) fn write(&self, batch: Batch<'_>) -> Result<(), Error> {
        let options = WriteOptions::default();
        self.db.write_opt(batch.batch, &options).map_err(|error| self.cannot_write(&error))
    }

    pub(in crate::store) fn sync(&self) -> Result<(), Error> {
        self.db.flush_wal(true).map_err(|error| self.cannot_write(&error))
    }

    pub(in crate::store) fn start_flush(&self, table: Table) -> Result<(), Error> {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        self.db.flush_cf_opt(self.family(table), &options).map_err(|error| self.cannot_write(&error))
    }

    pub(in crate::store) fn bytes(&self) -> u64 {
        let of = |table: Table, name: &str| {
            self.db.property_int_value_cf(self.family(table), name).ok().flatten().unwrap_or_default()
        };
        Table::ALL
            .into_iter()
            .map(|table| {
                of(table, "rocksdb.total-sst-files-size") + of(table, "rocksdb.cur-size-all-mem-tables")
            })
            .sum()
    }

    pub(in crate::store) fn compact(&self, table: Table) {
        self.db.compact_range_cf(self.family(table), None::<&[u8]>, None::<&[u8]>);
    }

    pub(in crate::store) fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        Checkpoint::new(self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| Error::Write { path: dir.to_owned(), detail: error.to_string() })
    }

    fn cannot_write(&self, error: &rocksdb::Error) -> Error {
        Error::Write { path: self.dir.to_owned(), detail: error.to_string() }
    }
}

fn cannot_read(dir: &Path, error: &rocksdb::Error) -> Error {
    Error::Read { path: dir.to_owned(), detail: error.to_string() }
}

impl Batch<'_> {
    pub(in crate::store) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.batch.put_cf(self.families[table as usize], key, value);
    }

    pub(in crate::store) fn merge(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.batch.merge_cf(self.families[table as usize], key, value);
    }

    pub(in crate::store) fn delete(&mut self, table: Table, key: &[u8]) {
        self.batch.delete_cf(self.families[table as usize], key);
    }

    pub(in crate::store) fn delete_range(&mut self, table: Table, range: &Range) {
        self.batch.delete_range_cf(self.families[table as usize], &range.0, &range.1);
    }
}

impl Cursor<'_> {
    pub(in crate::store) fn from(
        &mut self,
        from: &[u8],
        mut look: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.iterator.seek(from);
        while let Some((key, value)) = self.iterator.item() {
            if look(key, value).is_break() {
                return Ok(());
            }
            self.iterator.next();
        }
        self.iterator.status().map_err(|error| cannot_read(self.dir, &error))
    }
}
