//! Tests with real processes.

mod rocksdb_smoke;
mod tree_contract;
