//! Backend on disk: configuration of RocksDB, and the meaning of its errors.

mod view;

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, CompactionDecision, DB, DBCompressionType, ErrorKind,
    LogLevel, MergeOperands, Options as DbOptions,
};

use super::rules::{self, Expiry};
use crate::{Error, key::Table};

pub(super) use view::{Batch, Cursor, View};

/// Open database.
pub(super) type Database = DB;

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

/// Opens the database in `path`, and creates it if there is none. Errors name `dir`.
pub(super) fn open(path: &Path, dir: &Path, expiry: &Expiry, cache_bytes: usize) -> Result<Database, Error> {
    let opened = match try_open(path, expiry, cache_bytes, DBCompressionType::Lz4) {
        // The bundled RocksDB is compiled without LZ4.
        Err(error) if error.to_string().contains("not linked") => {
            try_open(path, expiry, cache_bytes, DBCompressionType::None)
        }
        opened => opened,
    };
    opened.map_err(|error| open_error(dir, &error))
}

/// Returns whether `dir` contains a database, whole or damaged.
pub(super) fn has_database(dir: &Path) -> bool {
    dir.join("CURRENT").exists()
}

fn try_open(
    path: &Path,
    expiry: &Expiry,
    cache_bytes: usize,
    compression: DBCompressionType,
) -> Result<DB, rocksdb::Error> {
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
    let cache = Cache::new_lru_cache(cache_bytes)?;
    let families = Table::ALL
        .map(|table| ColumnFamilyDescriptor::new(table.name(), family(table, expiry, &cache, compression)));
    DB::open_cf_descriptors(&options, path, families)
}

fn family(table: Table, expiry: &Expiry, cache: &Cache, compression: DBCompressionType) -> DbOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = DbOptions::default();
    options.set_compression_type(compression);
    options.set_level_compaction_dynamic_level_bytes(true);
    match table {
        Table::State | Table::Log | Table::Latest => options.set_write_buffer_size(SMALL_BUFFER_BYTES),
        Table::Points => {
            options.set_write_buffer_size(BUFFER_BYTES);
            blocks.set_bloom_filter(10.0, false);
            let expiry = expiry.clone();
            options.set_compaction_filter("retention", move |_, key: &[u8], _: &[u8]| {
                if expiry.is_expired(key) { CompactionDecision::Remove } else { CompactionDecision::Keep }
            });
        }
    }
    if let Some(name) = rules::merge_operator(table) {
        options.set_merge_operator_associative(name, move |_, old, new: &MergeOperands| {
            Some(rules::merge(table, old.into_iter().chain(new)))
        });
    }
    options.set_block_based_table_factory(&blocks);
    options
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
