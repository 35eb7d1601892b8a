//! Contract of every backend. Each case runs on a disk and in memory.

use std::{ops::ControlFlow, path::Path};

use super::{CheckpointSource, OldDatabase, Store};
use crate::{
    Error,
    key::{self, Range, Setting, Table},
    point_merge, record,
    tests::site::Site,
};
use stormkeeper_metrics::{
    MetricId, Minute, Point, Window,
    point::{Counter, Gauge},
};
use stormkeeper_model::LogPosition;

mod content;
mod durability;
mod swap;

macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod on_disk {
            $(#[test]
            fn $case() {
                super::$case(&crate::tests::site::Site::on_disk());
            })+
        }
        mod in_memory {
            $(#[test]
            fn $case() {
                super::$case(&crate::tests::site::Site::in_memory());
            })+
        }
    };
}
use contract;

/// Table of most cases; its values are not merged.
const TABLE: Table = Table::Log;

fn open(site: &Site, dir: &Path) -> Store {
    try_open(site, dir).expect("it opens")
}

fn try_open(site: &Site, dir: &Path) -> Result<Store, Error> {
    Store::open(dir, &site.options())
}

/// Writes one batch.
fn write(store: &Store, fill: impl FnOnce(&mut super::Batch<'_>)) -> Result<(), Error> {
    store.with(|view| {
        let mut batch = view.batch();
        fill(&mut batch);
        view.write(batch)
    })
}

fn put(store: &Store, items: &[(&str, &str)]) {
    write(store, |batch| {
        items.iter().for_each(|(key, value)| batch.put(TABLE, key.as_bytes(), value.as_bytes()));
    })
    .expect("written");
}

fn sync(store: &Store) {
    store.with(|view| view.sync()).expect("synced");
}

fn range(from: &str, to: &str) -> Range {
    (from.into(), to.into())
}

/// Returns all keys of [`TABLE`], concatenated with their values.
fn all(store: &Store) -> Vec<String> {
    scan(store, &range("", "~"))
}

fn item(key: &[u8], value: &[u8]) -> String {
    [key, value].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn scan(store: &Store, range: &Range) -> Vec<String> {
    let mut items = Vec::new();
    store
        .with(|view| {
            view.scan(TABLE, range, |key, value| {
                items.push(item(key, value));
                Ok(ControlFlow::Continue(()))
            })
        })
        .expect("read");
    items
}

fn scan_back(store: &Store, range: &Range) -> Vec<String> {
    let mut items = Vec::new();
    store
        .with(|view| {
            view.scan_back(TABLE, range, |key, value| {
                items.push(item(key, value));
                Ok(ControlFlow::Continue(()))
            })
        })
        .expect("read");
    items
}
