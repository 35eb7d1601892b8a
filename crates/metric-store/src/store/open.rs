//! Configuration of RocksDB, and the meaning of its errors.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, CompactionDecision, DB, DBCompressionType, ErrorKind,
    LogLevel, MergeOperands, Options as DbOptions,
};

use super::{Store, View};
use crate::{
    Error, Retention,
    key::{self, Setting, Table},
    record::{self, FORMAT},
    stored,
};
use stormkeeper_metrics::Window;

/// Size of the buffer that a column family collects in memory before it writes a file. With four
/// families and at most three buffers of the largest, about 256 MiB.
const BUFFER_BYTES: usize = 64 << 20;
const SMALL_BUFFER_BYTES: usize = 16 << 20;

/// Size of the write-ahead log at which rarely written families write their files, so that it ends.
const WAL_BYTES_MAX: u64 = 256 << 20;

/// Number of RocksDB's own text logs; they contain hardly anything, see below.
const TEXT_LOGS_KEPT: usize = 1;

/// Maximum number of open files; a larger database opens them on demand.
const OPEN_FILES_MAX: i32 = 512;

impl Store {
    pub(super) fn open_at(&self, path: &Path) -> Result<DB, Error> {
        let opened = match self.try_open(path, DBCompressionType::Lz4) {
            // The bundled RocksDB is compiled without LZ4.
            Err(error) if error.to_string().contains("not linked") => {
                self.try_open(path, DBCompressionType::None)
            }
            opened => opened,
        };
        let db = opened.map_err(|error| open_error(&self.dir, &error))?;
        check_format(&db, &self.dir)?;
        Ok(db)
    }

    fn try_open(&self, path: &Path, compression: DBCompressionType) -> Result<DB, rocksdb::Error> {
        let mut options = DbOptions::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_keep_log_file_num(TEXT_LOGS_KEPT);
        // Debian's library is built with assertions, one of which ends the process when the text
        // log is written a second time on a full disk. Important problems are in our own errors.
        options.set_log_level(LogLevel::Fatal);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_background_jobs(2);
        // Spreads the writing of files, so that a sync of the log does not wait for it.
        options.set_bytes_per_sync(1 << 20);
        // Avoids a thread that wakes up while nothing happens.
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        let cache = Cache::new_lru_cache(self.cache_bytes)?;
        let families = Table::ALL
            .map(|table| ColumnFamilyDescriptor::new(table.name(), self.family(table, &cache, compression)));
        DB::open_cf_descriptors(&options, path, families)
    }

    fn family(&self, table: Table, cache: &Cache, compression: DBCompressionType) -> DbOptions {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = DbOptions::default();
        options.set_compression_type(compression);
        options.set_level_compaction_dynamic_level_bytes(true);
        match table {
            Table::State | Table::Log => options.set_write_buffer_size(SMALL_BUFFER_BYTES),
            Table::Latest => {
                options.set_write_buffer_size(SMALL_BUFFER_BYTES);
                options.set_merge_operator_associative("last minute", |_, old, new: &MergeOperands| {
                    Some(stored::merge_latest(old.into_iter().chain(new)))
                });
            }
            Table::Points => {
                options.set_write_buffer_size(BUFFER_BYTES);
                blocks.set_bloom_filter(10.0, false);
                options.set_merge_operator_associative("points", |_, old, new: &MergeOperands| {
                    Some(stored::merge(old.into_iter().chain(new)))
                });
                let (now, retention) = (Arc::clone(&self.now), self.retention);
                options.set_compaction_filter("retention", move |_, key: &[u8], _: &[u8]| {
                    compaction_decision(key, &now, &retention)
                });
            }
        }
        options.set_block_based_table_factory(&blocks);
        options
    }
}

fn compaction_decision(key: &[u8], now: &AtomicU32, retention: &Retention) -> CompactionDecision {
    match key::parse_point(key) {
        Some((_, window, bucket)) if is_expired(window, bucket.0, now.load(Ordering::Relaxed), retention) => {
            CompactionDecision::Remove
        }
        // An unknown key belongs to another version, which may need it.
        Some(_) | None => CompactionDecision::Keep,
    }
}

fn is_expired(window: Window, bucket: u32, now: u32, retention: &Retention) -> bool {
    bucket.saturating_add(window.minutes()).saturating_add(retention.minutes(window)) < now
}

/// Writes the format into a new database, and rejects a database of a later format.
fn check_format(db: &DB, dir: &Path) -> Result<(), Error> {
    let view = View::new(db, dir);
    let key = key::setting(Setting::Format);
    match view.get(Table::State, &key)? {
        None => {
            let mut batch = view.batch();
            batch.put(Table::State, &key, &record::encode(&FORMAT));
            view.write(batch)?;
            view.sync()
        }
        Some(bytes) => {
            let found: u32 = record::decode("the format", &bytes)?;
            if found > FORMAT {
                return Err(Error::Version { path: dir.to_owned(), found, known: FORMAT });
            }
            Ok(())
        }
    }
}

/// Classifies an error of RocksDB, which has only a kind and a text.
fn open_error(dir: &Path, error: &rocksdb::Error) -> Error {
    let (path, detail) = (dir.to_owned(), error.to_string());
    let is_lock = detail.contains("lock file") || detail.contains("lock hold by current process");
    match error.kind() {
        ErrorKind::IOError if is_lock => Error::Locked { path },
        ErrorKind::Corruption => Error::Corrupt { path, detail },
        // A file of the database is missing, or the column families are not ours.
        ErrorKind::IOError if detail.contains("No such file") => Error::Corrupt { path, detail },
        ErrorKind::InvalidArgument | ErrorKind::NotFound => Error::Corrupt { path, detail },
        ErrorKind::NotSupported
        | ErrorKind::IOError
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::ColumnFamilyDropped
        | ErrorKind::Unknown => Error::Open { path, detail },
    }
}
