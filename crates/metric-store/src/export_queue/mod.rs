//! Export queue, without its disk.
//!
//! ```text
//!             close            next                 ack by the last exporter
//!  reserved ────────▶ ready ────────▶ leased ─────────────────────────────▶ gone
//!                       ▲                 │
//!                       └─ nack, timeout ┘   for each exporter separately; after a pause
//! ```
//!
//! The persisted state changes only by [`Change`]s: the functions that plan changes do not modify
//! the queue, and [`Queue::commit`] applies changes that are on disk. Leases (*leased*) are not
//! on disk: after a crash the entry is ready again.

mod leases;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{
    ExportKey, ExportKind, ExportLease, ExporterStatus, QueueStatus,
    record::{Progress, Queued, Reserved},
};
use leases::Leases;
use stormkeeper_metrics::Minute;
use stormkeeper_model::{TopologyId, clock::Monotonic};

/// Maximum number of points of an undivided entry, as in JStorm. A larger one is divided: first the
/// points of the topology and its components, then the others in parts of about this size.
pub(super) const POINTS_PER_EXPORT: u64 = 10_000;

/// Maximum number of entries in the queue, which also bounds its memory.
pub(super) const ENTRIES_MAX: usize = 100_000;

/// Maximum number of entries that one closing makes; the next closing makes the others.
const CLOSED_AT_ONCE_MAX: usize = 10_000;

/// One change of the persisted state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Amount of data in a minute of a topology.
    Reserve(Minute, TopologyId, Reserved),
    /// The minute is closed.
    Release(Minute, TopologyId),
    /// An entry is added or changed.
    Put(Queued),
    /// An entry is removed.
    Remove(u64),
    /// New progress of an exporter.
    Progress(String, Progress),
    /// An exporter is removed.
    Retire(String),
    /// Next number to use.
    Next(u64),
}

/// Times of leases.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeasePolicy {
    pub(super) timeout: std::time::Duration,
    pub(super) pause: std::time::Duration,
}

/// Limits of the queue, set by the leader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) per_topology_max: u64,
    pub(super) bytes_max: u64,
}

/// All entries that wait for export.
#[derive(Debug, Default)]
pub(super) struct Queue {
    reserved: BTreeMap<(Minute, TopologyId), Reserved>,
    entries: BTreeMap<u64, Queued>,
    exporters: BTreeMap<String, Progress>,
    next: u64,
    bytes: u64,
    leases: Leases,
}

impl Queue {
    /// Applies a change that is on disk.
    pub(super) fn commit(&mut self, change: Change) {
        match change {
            Change::Reserve(minute, topology, reserved) => {
                self.reserved.insert((minute, topology), reserved);
            }
            Change::Release(minute, topology) => {
                self.reserved.remove(&(minute, topology));
            }
            Change::Put(entry) => {
                self.bytes += entry.bytes;
                self.next = self.next.max(entry.key.number + 1);
                if let Some(before) = self.entries.insert(entry.key.number, entry) {
                    self.bytes -= before.bytes;
                }
            }
            Change::Remove(number) => {
                if let Some(before) = self.entries.remove(&number) {
                    self.bytes -= before.bytes;
                }
                self.leases.forget(number);
            }
            Change::Progress(exporter, progress) => {
                self.exporters.insert(exporter, progress);
            }
            Change::Retire(exporter) => {
                self.exporters.remove(&exporter);
                self.leases.retire(&exporter);
            }
            Change::Next(next) => self.next = self.next.max(next),
        }
    }

    /// Plans more data for a minute.
    pub(super) fn reserve(&self, minute: Minute, topology: &TopologyId, added: Reserved) -> Change {
        let before = self.reserved.get(&(minute, topology.clone())).copied().unwrap_or_default();
        Change::Reserve(
            minute,
            topology.clone(),
            Reserved {
                n_top: before.n_top.saturating_add(added.n_top),
                n_rest: before.n_rest.saturating_add(added.n_rest),
                bytes: before.bytes.saturating_add(added.bytes),
            },
        )
    }

    /// Plans entries for all minutes up to `through`, and drops the oldest entries beyond the limits.
    /// Returns the changes, the number of new entries, and the topology of each dropped entry, once
    /// for each exporter that had not acknowledged it.
    pub(super) fn close(&self, through: Minute, limits: Limits) -> (Vec<Change>, usize, Vec<TopologyId>) {
        let (mut changes, mut added) = (Vec::new(), Vec::new());
        for ((minute, topology), reserved) in self.reserved.range(..) {
            if *minute > through || added.len() >= CLOSED_AT_ONCE_MAX {
                break;
            }
            changes.push(Change::Release(*minute, topology.clone()));
            if !self.exporters.is_empty() {
                self.divide(*minute, topology, *reserved, &mut added);
            }
        }
        let n_added = added.len();
        let dropped = self.beyond_limits(&added, limits);
        let mut progress = self.exporters.clone();
        let mut dropped_topologies = Vec::new();
        let is_dropped = |entry: &Queued| dropped.binary_search(&entry.key.number).is_ok();
        for entry in self.entries.values().chain(&added).filter(|entry| is_dropped(entry)) {
            for (exporter, progress) in &mut progress {
                if !entry.acked.contains(exporter) {
                    progress.n_dropped += 1;
                    dropped_topologies.push(entry.key.topology.clone());
                }
            }
        }
        if let Some(last) = added.last() {
            changes.push(Change::Next(last.key.number + 1));
        }
        changes.extend(added.into_iter().filter(|entry| !is_dropped(entry)).map(Change::Put));
        changes.extend(
            dropped.iter().filter(|number| self.entries.contains_key(number)).copied().map(Change::Remove),
        );
        if !dropped_topologies.is_empty() {
            changes.extend(
                progress.into_iter().map(|(exporter, progress)| Change::Progress(exporter, progress)),
            );
        }
        (changes, n_added, dropped_topologies)
    }

    /// Adds the entries of one minute of a topology to `added`.
    fn divide(&self, minute: Minute, topology: &TopologyId, reserved: Reserved, added: &mut Vec<Queued>) {
        let Reserved { n_top, n_rest, bytes } = reserved;
        let n_points = n_top + n_rest;
        if n_points == 0 {
            return;
        }
        let parts = |n: u64| u32::try_from(n.div_ceil(POINTS_PER_EXPORT)).unwrap_or(u32::MAX);
        let pieces: Vec<(ExportKind, u64, u32)> = match (n_top, n_rest) {
            (_, 0) => vec![(ExportKind::Topology, n_top, parts(n_top))],
            (0, _) => vec![(ExportKind::Task, n_rest, parts(n_rest))],
            _ if n_points <= POINTS_PER_EXPORT => vec![(ExportKind::All, n_points, 1)],
            _ => vec![(ExportKind::Topology, n_top, parts(n_top)), (ExportKind::Task, n_rest, parts(n_rest))],
        };
        for (kind, n, parts) in pieces {
            for part in 0..parts {
                let number = added.last().map_or(self.next, |last| last.key.number + 1);
                let key = ExportKey { number, topology: topology.clone(), minute, kind, part, parts };
                let n_points = n / u64::from(parts);
                let bytes = bytes / (n_top + n_rest).max(1) * n_points;
                added.push(Queued { key, n_points, bytes, acked: Vec::new() });
            }
        }
    }

    /// Returns the numbers of the entries beyond the limits, sorted.
    fn beyond_limits(&self, added: &[Queued], limits: Limits) -> Vec<u64> {
        let all = || self.entries.values().chain(added);
        let mut per_topology: BTreeMap<&TopologyId, u64> = BTreeMap::new();
        for entry in all() {
            *per_topology.entry(&entry.key.topology).or_default() += 1;
        }
        let mut n_entries = self.entries.len() + added.len();
        let mut bytes: u64 = all().map(|entry| entry.bytes).sum();
        let mut dropped = Vec::new();
        for entry in all() {
            let n = per_topology.get_mut(&entry.key.topology).expect("counted above");
            if *n > limits.per_topology_max || n_entries > ENTRIES_MAX || bytes > limits.bytes_max {
                *n -= 1;
                n_entries -= 1;
                bytes -= entry.bytes;
                dropped.push(entry.key.number);
            }
        }
        dropped
    }

    /// Plans the acknowledgement of `number` by an exporter. Returns no change if the exporter
    /// acknowledged it before, or if the entry does not exist any more.
    pub(super) fn ack(&self, exporter: &str, number: u64) -> Vec<Change> {
        let (Some(progress), Some(entry)) = (self.exporters.get(exporter), self.entries.get(&number)) else {
            return Vec::new();
        };
        if entry.acked.iter().any(|known| known == exporter) {
            return Vec::new();
        }
        let mut entry = entry.clone();
        entry.acked.push(exporter.to_owned());
        let progress = Progress { n_acked: progress.n_acked + 1, ..*progress };
        vec![
            Change::Progress(exporter.to_owned(), progress),
            self.put_or_remove(entry, self.exporters.keys()),
        ]
    }

    fn put_or_remove<'a>(&self, entry: Queued, mut exporters: impl Iterator<Item = &'a String>) -> Change {
        if exporters.all(|exporter| entry.acked.contains(exporter)) {
            Change::Remove(entry.key.number)
        } else {
            Change::Put(entry)
        }
    }

    /// Plans the acknowledgement of the metas up to the `through`th by an exporter.
    pub(super) fn ack_metas(&self, exporter: &str, through: u64) -> Vec<Change> {
        let Some(progress) = self.exporters.get(exporter) else { return Vec::new() };
        let metas = progress.metas.max(through);
        vec![Change::Progress(exporter.to_owned(), Progress { metas, ..*progress })]
    }

    /// Plans a new list of exporters. A new exporter begins with the oldest entry.
    pub(super) fn set_exporters(&self, names: &[String]) -> Vec<Change> {
        let mut changes = Vec::new();
        for name in names.iter().filter(|name| !self.exporters.contains_key(*name)) {
            changes.push(Change::Progress(name.clone(), Progress::default()));
        }
        for name in self.exporters.keys().filter(|name| !names.contains(name)) {
            changes.push(Change::Retire(name.clone()));
        }
        for entry in self.entries.values() {
            if let Change::Remove(number) = self.put_or_remove(entry.clone(), names.iter()) {
                changes.push(Change::Remove(number));
            }
        }
        changes
    }

    /// Plans the removal of a topology.
    pub(super) fn forget(&self, topology: &TopologyId) -> Vec<Change> {
        let reserved = self.reserved.keys().filter(|(_, of)| of == topology);
        let entries = self.entries.values().filter(|entry| entry.key.topology == *topology);
        reserved
            .map(|(minute, of)| Change::Release(*minute, of.clone()))
            .chain(entries.map(|entry| Change::Remove(entry.key.number)))
            .collect()
    }

    /// Returns the names of the exporters.
    pub(super) fn exporters(&self) -> impl Iterator<Item = &str> {
        self.exporters.keys().map(String::as_str)
    }

    /// Returns the number of the last meta that an exporter acknowledged; `None` if it is no exporter.
    pub(super) fn metas_known_by(&self, exporter: &str) -> Option<u64> {
        self.exporters.get(exporter).map(|progress| progress.metas)
    }

    /// Leases the oldest available entry to an exporter.
    pub(super) fn next(
        &mut self,
        exporter: &str,
        now: Monotonic,
        policy: LeasePolicy,
    ) -> Option<ExportLease> {
        if !self.exporters.contains_key(exporter) || !self.leases.can_lease(exporter, now, policy) {
            return None;
        }
        let is_available = |entry: &&Queued| {
            !entry.acked.iter().any(|known| known == exporter)
                && self.leases.is_available(exporter, entry.key.number, now)
        };
        let entry = self.entries.values().find(is_available)?;
        let attempts = self.leases.lease(exporter, entry.key.number, now, policy);
        Some(ExportLease {
            key: entry.key.clone(),
            attempts,
            points: entry.n_points,
            timeout: policy.timeout,
        })
    }

    /// Nacks `number`, which an exporter could not export.
    pub(super) fn nack(
        &mut self,
        exporter: &str,
        number: u64,
        now: Monotonic,
        policy: LeasePolicy,
        reason: &str,
    ) {
        self.leases.nack(exporter, number, now, policy, reason);
    }

    /// Releases the lease of `number`; its acknowledgement is on disk.
    pub(super) fn release(&mut self, exporter: &str, number: u64) {
        self.leases.release(exporter, number);
    }

    /// Takes over the leases of the queue before a reload, as after a replacement of the database.
    pub(super) fn carry_over_leases(&mut self, before: &mut Self) {
        self.leases = std::mem::take(&mut before.leases);
    }

    pub(super) fn status(&self) -> QueueStatus {
        let of = |(name, progress): (&String, &Progress)| {
            let pending = self.entries.values().filter(|entry| !entry.acked.contains(name)).count();
            let (leased, nacked, last_nack) = self.leases.of(name);
            let status = ExporterStatus {
                pending,
                leased,
                acked: progress.n_acked,
                dropped: progress.n_dropped,
                nacked,
                last_nack,
            };
            (name.clone(), status)
        };
        QueueStatus {
            reserved: self.reserved.len(),
            ready: self.entries.len(),
            bytes: self.bytes,
            oldest: self.entries.values().next().map(|entry| entry.key.minute),
            exporters: self.exporters.iter().map(of).collect(),
        }
    }
}
