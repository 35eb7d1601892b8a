//! Reporter of the self metrics, once a minute.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tracing::{debug, info};

use super::instruments::{NimbusInstruments, topology};
use crate::{cluster::ClusterAccess, ingest::Ingest, replication::Replication, store_access::StoreAccess};
use stormkeeper_metric_shipping::ingest_client::IngestTransport;
use stormkeeper_metric_store::{MetricStore, QueueStatus};
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute, Point,
    batch::SequenceRange,
    protocol::{IngestResponse, RegisterRequest, Registered, Registration},
    registry::CollectRequest,
};
use stormkeeper_model::{Timestamp, WorkerId};
use stormkeeper_runtime::{error_chain, proc::Usage};

/// Maximum number of reports that wait for a leader; one more removes the oldest. An hour: longer
/// than a cluster is without a leader.
const WAITING_REPORTS_MAX: usize = 60;

/// Minimum wait: a wait that ends a moment too early, as clocks are not exact, must not become a
/// busy loop.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// Self metrics of this nimbus.
#[derive(Debug)]
pub(crate) struct SelfMetrics {
    pub(crate) cluster: ClusterAccess,
    pub(crate) store: StoreAccess,
    pub(crate) replication: Arc<Replication>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) transport: Arc<dyn IngestTransport>,
    pub(crate) instruments: NimbusInstruments,
    /// Reads the resource usage of this process.
    pub(crate) usage: fn() -> Option<Usage>,
    /// Longest wait for a time of day, as the clock may be set.
    pub(crate) clock_check: Duration,
}

/// Previous readings, for the difference since then.
#[derive(Debug, Default)]
struct Readings {
    usage: Option<(Usage, Timestamp)>,
    dropped: Option<u64>,
}

/// Reports of this launch that wait for the leader.
struct SelfReporter {
    own: Arc<SelfMetrics>,
    worker: WorkerId,
    sequence: u64,
    waiting: VecDeque<MetricBatch>,
}

/// Collects and sends self metrics for as long as the nimbus runs.
pub(crate) async fn report(own: Arc<SelfMetrics>) {
    let store = own.store.wait_until_open().await;
    let started = own.cluster.clock.now();
    let worker = format!("{}-{}", own.cluster.me, started.as_millis());
    let Ok(worker) = worker.parse::<WorkerId>() else {
        info!(worker, "the id of this nimbus is too long for a launch id; it reports no self metrics");
        return;
    };
    let mut reporter = SelfReporter { own: Arc::clone(&own), worker, sequence: 0, waiting: VecDeque::new() };
    let mut before = Readings::default();
    loop {
        let minute = Minute::of(own.cluster.clock.now());
        // A clock that is set back only makes this minute longer.
        while Minute::of(own.cluster.clock.now()) <= minute {
            let wait = minute.end().since(own.cluster.clock.now());
            tokio::time::sleep(wait.clamp(WAIT_MIN, own.clock_check)).await;
        }
        own.read_gauges(&store, &mut before).await;
        reporter.collect(minute);
        if let Err(reason) = reporter.send_waiting(&store).await {
            debug!(
                reason,
                waiting = reporter.waiting.len(),
                "could not send self metrics; retrying next minute"
            );
        }
    }
}

impl SelfMetrics {
    async fn read_gauges(&self, store: &MetricStore, before: &mut Readings) {
        let (instruments, now) = (&self.instruments, self.cluster.clock.now());
        // Three small files of `/proc`, which are in memory.
        if let Some(usage) = (self.usage)() {
            instruments.memory.set(usage.resident_bytes as f64);
            instruments.files.set(usage.n_descriptors as f64);
            if let Some((last, at)) = before.usage {
                let (used, took) = (usage.cpu.saturating_sub(last.cpu), now.since(at));
                if !took.is_zero() {
                    instruments.cpu.set(100.0 * used.as_secs_f64() / took.as_secs_f64());
                }
            }
            before.usage = Some((usage, now));
        }
        instruments.store_queue.set(self.ingest.n_in_flight() as f64);
        if let Ok(status) = store.status().await {
            instruments.store_bytes.set(status.bytes as f64);
        }
        if let Ok(queue) = store.queue_status().await {
            let (waiting, dropped) = own_exports(self.replication.as_leader().is_ok(), &queue, before);
            instruments.export_queue.set(waiting as f64);
            instruments.dropped.add(dropped);
        }
        instruments.view_age.set(self.cluster.view_age().as_millis() as f64);
    }
}

/// Returns the number of entries that wait for export by this nimbus, and of those dropped since the
/// last reading. Each nimbus has a copy of the queue, and only the leader exports from its copy.
fn own_exports(is_leading: bool, queue: &QueueStatus, before: &mut Readings) -> (usize, u64) {
    let total = queue.exporters.values().map(|exporter| exporter.dropped).sum::<u64>();
    let dropped = total.saturating_sub(before.dropped.replace(total).unwrap_or(total));
    if is_leading { (queue.ready, dropped) } else { (0, 0) }
}

impl SelfReporter {
    fn collect(&mut self, minute: Minute) {
        let now = self.own.cluster.clock.monotonic();
        let leaves = self.own.instruments.registry.collect(CollectRequest { minute, now, with_gauges: true });
        let points: Vec<(MetricId, Point)> = leaves.into_iter().map(|leaf| (leaf.id, leaf.point)).collect();
        self.sequence += 1;
        let reports =
            vec![SequenceRange { worker: self.worker.clone(), first: self.sequence, last: self.sequence }];
        // A launch reports at the end of the minute only: no other launch of this nimbus has a
        // reading of the same minute.
        let readings = Vec::new();
        self.waiting.push_back(MetricBatch { topology: topology(), minute, reports, points, readings });
        if self.waiting.len() > WAITING_REPORTS_MAX {
            // The metric store counts the missing report.
            self.waiting.pop_front();
        }
    }

    /// Sends the waiting reports to the leader, the oldest first.
    async fn send_waiting(&mut self, store: &MetricStore) -> Result<(), String> {
        while let Some(batch) = self.waiting.front() {
            let mut answer = self.send(store, batch).await?;
            if let IngestResponse::UnknownMetrics { .. } = answer {
                self.register(store).await?;
                // Ids that the leader has assigned differently come with the next report.
                answer = self.send(store, batch).await?;
            }
            match answer {
                // Self metrics are not kept until they are committed: a leader that is lost with its
                // disk costs a minute of self metrics.
                IngestResponse::Accepted { .. } => {}
                IngestResponse::Overlapping { .. } => {}
                IngestResponse::Rejected { reason } => {
                    info!(reason, "the leader rejected self metrics; discarded")
                }
                IngestResponse::UnknownMetrics { .. } => {
                    info!("the leader does not know the self metrics after their registration; discarded");
                }
                IngestResponse::RetryLater { reason } => return Err(reason),
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    async fn send(&self, store: &MetricStore, batch: &MetricBatch) -> Result<IngestResponse, String> {
        if let Ok((_, term)) = self.own.replication.as_leader() {
            let stored = self.own.ingest.ingest_batch(store, term, batch.clone()).await;
            return stored.map_err(|refusal| refusal.to_string());
        }
        let client = &self.own.transport;
        let leader = client.leader().await.map_err(|error| error_chain(&error))?;
        client.ingest(&leader, batch).await.map_err(|error| error_chain(&error))
    }

    async fn register(&self, store: &MetricStore) -> Result<(), String> {
        let registry = &self.own.instruments.registry;
        let (_, names) = registry.names_since(0);
        let registrations =
            names.iter().map(|(id, name)| Registration { name: name.to_string(), id: *id }).collect();
        let request = RegisterRequest { topology: topology(), registrations };
        let answer = match self.own.replication.as_leader() {
            Ok((_, term)) => store.register(term, request).await.map_err(|error| error_chain(&error))?,
            Err(_) => {
                let client = &self.own.transport;
                let leader = client.leader().await.map_err(|error| error_chain(&error))?;
                client.register(&leader, &request).await.map_err(|error| error_chain(&error))?
            }
        };
        for ((old, name), registered) in names.iter().zip(answer.results) {
            match registered {
                Registered::Accepted(new) if new == *old => {}
                Registered::Accepted(new) => drop(registry.rename(*old, new)),
                Registered::Rejected(reason) => {
                    info!(%name, reason, "the leader rejected a self metric; not reported")
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stormkeeper_metric_store::ExporterStatus;

    use super::*;

    #[test]
    fn only_the_leader_reports_the_export_queue_and_drops() {
        let queue = |ready, dropped| QueueStatus {
            ready,
            exporters: BTreeMap::from([(
                "log".to_owned(),
                ExporterStatus { dropped, ..ExporterStatus::default() },
            )]),
            ..QueueStatus::default()
        };
        let mut before = Readings::default();
        assert_eq!(own_exports(false, &queue(7, 3), &mut before), (0, 0));
        assert_eq!(own_exports(true, &queue(7, 3), &mut before), (7, 0), "dropped before it led");
        assert_eq!(own_exports(true, &queue(6, 5), &mut before), (6, 2));
        assert_eq!(own_exports(false, &queue(6, 9), &mut before), (0, 0));
        assert_eq!(own_exports(true, &queue(5, 10), &mut before), (5, 1));
    }
}
