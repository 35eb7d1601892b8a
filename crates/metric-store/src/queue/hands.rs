//! Leases of the export queue, in memory only: entries in flight per exporter, and entries that
//! pause after a nack.

use std::{
    collections::{BTreeMap, btree_map},
    time::Duration,
};

use super::LeasePolicy;
use stormkeeper_model::clock::Monotonic;

/// Maximum number of times that a pause doubles.
const DOUBLINGS_MAX: u32 = 6;

/// Maximum size of the reason of a nack, in bytes.
const REASON_BYTES_MAX: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<String, ExporterLeases>);

#[derive(Debug, Default)]
struct ExporterLeases {
    leases: BTreeMap<u64, Lease>,
    /// End of the exporter's pause, set by each nack: nothing is leased before.
    paused_until: Option<Monotonic>,
    n_nacks: u64,
    last_nack: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    state: State,
    attempts: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Uploading { until: Monotonic },
    Paused { until: Monotonic },
}

impl Leases {
    /// Returns whether the exporter may lease one more entry. Leases that timed out are nacked first.
    pub(super) fn can_lease(&mut self, exporter: &str, now: Monotonic, policy: LeasePolicy) -> bool {
        let Some(exporter) = self.0.get_mut(exporter) else { return policy.leases_max > 0 };
        let late: Vec<u64> = exporter
            .leases
            .iter()
            .filter_map(|(index, lease)| match lease.state {
                State::Uploading { until } if until <= now => Some(*index),
                State::Uploading { .. } | State::Paused { .. } => None,
            })
            .collect();
        for index in late {
            exporter.nack(index, now, policy, "the upload timed out");
        }
        exporter.paused_until.is_none_or(|until| until <= now) && exporter.n_leased() < policy.leases_max
    }

    /// Returns whether `index` is neither leased to the exporter nor paused for it.
    pub(super) fn is_available(&self, exporter: &str, index: u64, now: Monotonic) -> bool {
        match self.0.get(exporter).and_then(|exporter| exporter.leases.get(&index)) {
            None => true,
            Some(Lease { state: State::Paused { until }, .. }) => *until <= now,
            Some(Lease { state: State::Uploading { .. }, .. }) => false,
        }
    }

    /// Leases `index` to the exporter. Returns the number of its earlier leases.
    pub(super) fn lease(&mut self, exporter: &str, index: u64, now: Monotonic, policy: LeasePolicy) -> u32 {
        let state = State::Uploading { until: now.plus(policy.timeout) };
        match self.0.entry(exporter.to_owned()).or_default().leases.entry(index) {
            btree_map::Entry::Vacant(place) => {
                place.insert(Lease { state, attempts: 0 });
                0
            }
            btree_map::Entry::Occupied(mut lease) => {
                lease.get_mut().state = state;
                lease.get().attempts
            }
        }
    }

    pub(super) fn nack(
        &mut self,
        exporter: &str,
        index: u64,
        now: Monotonic,
        policy: LeasePolicy,
        reason: &str,
    ) {
        if let Some(exporter) = self.0.get_mut(exporter) {
            exporter.nack(index, now, policy, reason);
        }
    }

    pub(super) fn release(&mut self, exporter: &str, index: u64) {
        if let Some(exporter) = self.0.get_mut(exporter) {
            exporter.leases.remove(&index);
        }
    }

    pub(super) fn forget(&mut self, index: u64) {
        for exporter in self.0.values_mut() {
            exporter.leases.remove(&index);
        }
    }

    pub(super) fn retire(&mut self, exporter: &str) {
        self.0.remove(exporter);
    }

    /// Returns the exporter's number of leases, its number of nacks, and the reason of the last nack.
    pub(super) fn of(&self, exporter: &str) -> (usize, u64, Option<String>) {
        self.0
            .get(exporter)
            .map(|exporter| (exporter.n_leased(), exporter.n_nacks, exporter.last_nack.clone()))
            .unwrap_or_default()
    }
}

impl ExporterLeases {
    fn n_leased(&self) -> usize {
        self.leases.values().filter(|lease| matches!(lease.state, State::Uploading { .. })).count()
    }

    /// Nacks `index`. No effect unless `index` is leased: the lease may have timed out before.
    fn nack(&mut self, index: u64, now: Monotonic, policy: LeasePolicy, reason: &str) {
        let Some(lease) = self.leases.get_mut(&index) else { return };
        if matches!(lease.state, State::Paused { .. }) {
            return;
        }
        let pause: Duration = policy.pause * 2_u32.pow(lease.attempts.min(DOUBLINGS_MAX));
        lease.attempts = lease.attempts.saturating_add(1);
        lease.state = State::Paused { until: now.plus(pause) };
        self.paused_until = Some(now.plus(policy.pause));
        self.n_nacks += 1;
        self.last_nack = Some(reason.chars().take(REASON_BYTES_MAX / 4).collect());
    }
}
