//! Maps by the root of a tree.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// Map by the root of a tree.
pub(super) type RootMap<V> = HashMap<u64, V, BuildHasherDefault<RootHasher>>;

/// Hash of a root: the root, which is random.
#[derive(Debug, Default)]
pub(super) struct RootHasher(u64);

impl Hasher for RootHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("roots are u64");
    }

    fn write_u64(&mut self, root: u64) {
        self.0 = root;
    }
}
