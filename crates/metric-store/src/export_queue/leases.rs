//! Leases of the export queue, in memory only: the entry in flight of each exporter, and entries that
//! pause after a nack.

use std::{collections::BTreeMap, time::Duration};

use super::LeasePolicy;
use stormkeeper_model::{clock::Monotonic, text};

/// Maximum number of times that a pause doubles.
const DOUBLINGS_MAX: u32 = 6;

/// Maximum size of the reason of a nack, in bytes.
const REASON_BYTES_MAX: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<String, ExporterLeases>);

#[derive(Debug, Default)]
struct ExporterLeases {
    lease: Option<Lease>,
    /// Entries that the exporter nacked and has not acknowledged since.
    nacked: BTreeMap<u64, Nacked>,
    /// End of the exporter's pause, set by each nack: nothing is leased before.
    paused_until: Option<Monotonic>,
    n_nacks: u64,
    last_nack: Option<String>,
}

/// Entry in flight. An exporter exports one entry at a time.
#[derive(Debug, Clone, Copy)]
struct Lease {
    number: u64,
    until: Monotonic,
}

#[derive(Debug, Clone, Copy)]
struct Nacked {
    attempts: u32,
    paused_until: Monotonic,
}

impl Leases {
    /// Returns whether the exporter may lease an entry. A lease that timed out is nacked first.
    pub(super) fn can_lease(&mut self, exporter: &str, now: Monotonic, policy: LeasePolicy) -> bool {
        let Some(exporter) = self.0.get_mut(exporter) else { return true };
        if let Some(lease) = exporter.lease
            && lease.until <= now
        {
            exporter.nack(lease.number, now, policy, "the export timed out");
        }
        exporter.lease.is_none() && exporter.paused_until.is_none_or(|until| until <= now)
    }

    /// Returns whether `number` is not paused for the exporter.
    pub(super) fn is_available(&self, exporter: &str, number: u64, now: Monotonic) -> bool {
        let nacked = self.0.get(exporter).and_then(|exporter| exporter.nacked.get(&number));
        nacked.is_none_or(|nacked| nacked.paused_until <= now)
    }

    /// Leases `number` to the exporter, which has no lease. Returns the number of its earlier leases.
    pub(super) fn lease(&mut self, exporter: &str, number: u64, now: Monotonic, policy: LeasePolicy) -> u32 {
        let exporter = self.0.entry(exporter.to_owned()).or_default();
        exporter.lease = Some(Lease { number, until: now.plus(policy.timeout) });
        exporter.nacked.get(&number).map_or(0, |nacked| nacked.attempts)
    }

    pub(super) fn nack(
        &mut self,
        exporter: &str,
        number: u64,
        now: Monotonic,
        policy: LeasePolicy,
        reason: &str,
    ) {
        if let Some(exporter) = self.0.get_mut(exporter) {
            exporter.nack(number, now, policy, reason);
        }
    }

    pub(super) fn release(&mut self, exporter: &str, number: u64) {
        if let Some(exporter) = self.0.get_mut(exporter) {
            exporter.forget(number);
        }
    }

    pub(super) fn forget(&mut self, number: u64) {
        for exporter in self.0.values_mut() {
            exporter.forget(number);
        }
    }

    pub(super) fn retire(&mut self, exporter: &str) {
        self.0.remove(exporter);
    }

    /// Returns the exporter's number of leases (0 or 1), its number of nacks, and the reason of the
    /// last nack.
    pub(super) fn of(&self, exporter: &str) -> (usize, u64, Option<String>) {
        self.0
            .get(exporter)
            .map(|exporter| {
                (usize::from(exporter.lease.is_some()), exporter.n_nacks, exporter.last_nack.clone())
            })
            .unwrap_or_default()
    }
}

impl ExporterLeases {
    fn forget(&mut self, number: u64) {
        self.lease = self.lease.filter(|lease| lease.number != number);
        self.nacked.remove(&number);
    }

    /// Nacks `number`. No effect unless `number` is leased: the lease may have timed out before.
    fn nack(&mut self, number: u64, now: Monotonic, policy: LeasePolicy, reason: &str) {
        if self.lease.take_if(|lease| lease.number == number).is_none() {
            return;
        }
        let nacked = self.nacked.entry(number).or_insert(Nacked { attempts: 0, paused_until: now });
        let pause: Duration = policy.pause * 2_u32.pow(nacked.attempts.min(DOUBLINGS_MAX));
        nacked.attempts = nacked.attempts.saturating_add(1);
        nacked.paused_until = now.plus(pause);
        self.paused_until = Some(now.plus(policy.pause));
        self.n_nacks += 1;
        self.last_nack = Some(text::shortened(reason, REASON_BYTES_MAX).into_owned());
    }
}
