//! One database in memory. Reads work on the tables as they were when the read began, as in RocksDB.

use std::{
    collections::BTreeMap,
    io,
    ops::{Bound, ControlFlow},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{super::rules, MemoryDisk};
use crate::{
    Error,
    key::{Range, Table},
};

type Items = BTreeMap<Vec<u8>, Vec<u8>>;

/// All tables of a database. A clone is cheap, and does not change with the original.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content([Arc<Items>; Table::ALL.len()]);

/// Database on a [`MemoryDisk`], open or not.
#[derive(Debug, Default)]
pub(super) struct Stored(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    content: Content,
    /// Earlier values of what was written since the last sync, in the order of the writes.
    unsynced: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    is_open: bool,
}

impl Content {
    fn of(&self, table: Table) -> &Arc<Items> {
        &self.0[table as usize]
    }

    /// Returns the items of a table, in the order of their keys.
    #[cfg(any(test, feature = "test-support"))]
    pub(crate) fn items(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.of(table).iter().map(|(key, value)| (&key[..], &value[..]))
    }

    fn of_mut(&mut self, table: Table) -> &mut Items {
        Arc::make_mut(&mut self.0[table as usize])
    }
}

impl Stored {
    pub(super) fn new(content: Content) -> Self {
        Self(Mutex::new(State { content, ..State::default() }))
    }

    pub(super) fn content(&self) -> Content {
        self.lock().content.clone()
    }

    /// Returns the database as it is after a loss of power.
    pub(super) fn after_crash(&self) -> Arc<Self> {
        let state = self.lock();
        let mut content = state.content.clone();
        for (table, key, before) in state.unsynced.iter().rev() {
            match before {
                Some(value) => content.of_mut(*table).insert(key.clone(), value.clone()),
                None => content.of_mut(*table).remove(key),
            };
        }
        Arc::new(Self::new(content))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, change: Change) {
        match change {
            Change::Put(table, key, value) => self.set(table, key, Some(value)),
            Change::Merge(table, key, value) => {
                let before = self.content.of(table).get(&key).map(Vec::as_slice);
                let merged = rules::merge(table, before.into_iter().chain([&value[..]]));
                self.set(table, key, Some(merged));
            }
            Change::Delete(table, key) => self.set(table, key, None),
            Change::DeleteRange(table, range) => {
                let keys: Vec<Vec<u8>> = self
                    .content
                    .of(table)
                    .range::<[u8], _>(bounds(&range))
                    .map(|(key, _)| key.clone())
                    .collect();
                keys.into_iter().for_each(|key| self.set(table, key, None));
            }
        }
    }

    fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        let items = self.content.of_mut(table);
        let before = match value {
            Some(value) => items.insert(key.clone(), value),
            None => items.remove(&key),
        };
        self.unsynced.push((table, key, before));
    }
}

/// Open database.
#[derive(Debug)]
pub(in crate::store) struct Database {
    stored: Arc<Stored>,
    disk: MemoryDisk,
    expiry: rules::Expiry,
    /// As in RocksDB: after a failed write, all writes fail until the database is opened again.
    has_failed: AtomicBool,
}

impl Database {
    /// Returns `None` if the database is open already.
    pub(super) fn open(stored: Arc<Stored>, disk: MemoryDisk, expiry: rules::Expiry) -> Option<Self> {
        let was_open = std::mem::replace(&mut stored.lock().is_open, true);
        (!was_open).then(|| Self { stored, disk, expiry, has_failed: AtomicBool::new(false) })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.stored.lock().is_open = false;
    }
}

pub(in crate::store) struct View<'a> {
    database: &'a Database,
    dir: &'a Path,
}

#[derive(Debug, Default)]
pub(in crate::store) struct Batch(Vec<Change>);

#[derive(Debug)]
enum Change {
    Put(Table, Vec<u8>, Vec<u8>),
    Merge(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
    DeleteRange(Table, Range),
}

pub(in crate::store) struct Cursor(Arc<Items>);

impl<'a> View<'a> {
    pub(in crate::store) fn new(database: &'a Database, dir: &'a Path) -> Self {
        Self { database, dir }
    }

    fn items(&self, table: Table) -> Arc<Items> {
        Arc::clone(self.database.stored.lock().content.of(table))
    }

    pub(in crate::store) fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.database.stored.lock().content.of(table).get(key).cloned()
    }

    pub(in crate::store) fn get_all<K: AsRef<[u8]>>(&self, table: Table, keys: &[K]) -> Vec<Option<Vec<u8>>> {
        let items = self.items(table);
        keys.iter().map(|key| items.get(key.as_ref()).cloned()).collect()
    }

    pub(in crate::store) fn scan(
        &self,
        table: Table,
        range: &Range,
        look: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        look_at(self.items(table).range::<[u8], _>(bounds(range)), look)
    }

    pub(in crate::store) fn scan_back(
        &self,
        table: Table,
        range: &Range,
        look: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        look_at(self.items(table).range::<[u8], _>(bounds(range)).rev(), look)
    }

    pub(in crate::store) fn cursor(&self, table: Table) -> Cursor {
        Cursor(self.items(table))
    }

    pub(in crate::store) fn write(&self, batch: Batch) -> Result<(), Error> {
        self.check_space()?;
        let mut state = self.database.stored.lock();
        batch.0.into_iter().for_each(|change| state.write(change));
        Ok(())
    }

    pub(in crate::store) fn sync(&self) -> Result<(), Error> {
        self.check_space()?;
        self.database.stored.lock().unsynced.clear();
        Ok(())
    }

    fn check_space(&self) -> Result<(), Error> {
        if self.database.has_failed.load(Ordering::Relaxed) {
            return Err(cannot_write(self.dir, &io::Error::other("an earlier write failed")));
        }
        self.database.disk.check_space().map_err(|error| {
            self.database.has_failed.store(true, Ordering::Relaxed);
            cannot_write(self.dir, &error)
        })
    }

    pub(in crate::store) fn bytes(&self) -> u64 {
        let state = self.database.stored.lock();
        let items = Table::ALL.into_iter().flat_map(|table| state.content.of(table).iter());
        items.map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// Removes expired points. The removal is permanent at once: nothing reads an expired point.
    pub(in crate::store) fn compact(&self, table: Table) {
        if table == Table::Points {
            let mut state = self.database.stored.lock();
            state.content.of_mut(table).retain(|key, _| !self.database.expiry.is_expired(key));
        }
    }

    pub(in crate::store) fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        let content = self.database.stored.content();
        self.database.disk.write_database(dir, content).map_err(|error| cannot_write(dir, &error))
    }
}

impl Batch {
    pub(in crate::store) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.push(Change::Put(table, key.to_vec(), value.to_vec()));
    }

    pub(in crate::store) fn merge(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.push(Change::Merge(table, key.to_vec(), value.to_vec()));
    }

    pub(in crate::store) fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.push(Change::Delete(table, key.to_vec()));
    }

    pub(in crate::store) fn delete_range(&mut self, table: Table, range: &Range) {
        self.0.push(Change::DeleteRange(table, range.clone()));
    }
}

impl Cursor {
    pub(in crate::store) fn from(&self, from: &[u8], mut look: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) {
        let from = (Bound::Included(from), Bound::Unbounded);
        let _end = self.0.range::<[u8], _>(from).try_for_each(|(key, value)| look(key, value));
    }
}

fn look_at<'a>(
    items: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    mut look: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Error>,
) -> Result<(), Error> {
    for (key, value) in items {
        if look(key, value)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Returns the bounds of a range. A range that ends before its begin is empty.
fn bounds((from, to): &Range) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(from), Bound::Excluded(to.max(from)))
}

fn cannot_write(dir: &Path, error: &io::Error) -> Error {
    Error::Write { path: dir.to_owned(), detail: error.to_string() }
}
