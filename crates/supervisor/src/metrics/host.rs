//! Usage metrics of a supervisor's host, once a minute.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tracing::{debug, info};

use stormkeeper_metric_shipping::{
    ingest_client::IngestTransport,
    sender::{Enqueued, FlushOutcome, ReportSender, flush},
    spool::SpooledReport,
};
use stormkeeper_metrics::{
    Builtin, Leaf, MetricId, MetricName, MetricReport, Minute, Point, Subject, builtin, name::SUPERVISOR,
    point::Gauge,
};
use stormkeeper_model::{
    SupervisorId, Timestamp, TopologyId, WorkerId,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{
    blocking,
    proc::{self, HostUsage},
};

/// Maximum number of minutes that wait for a leader. Later minutes are discarded then: the state
/// of the host two hours ago and more is worth as much as its state since.
const MINUTES_MAX: usize = 120;

/// Measures one host.
#[derive(Debug)]
pub(super) struct HostMetrics {
    topology: TopologyId,
    subject: Subject,
    launch: WorkerId,
    started: Timestamp,
    dir: PathBuf,
    number: u64,
    before: Option<(Monotonic, HostUsage)>,
    sender: ReportSender,
    transport: Arc<dyn IngestTransport>,
    clock: Clock,
}

impl HostMetrics {
    pub(super) fn new(
        host: &str,
        supervisor: &SupervisorId,
        dir: PathBuf,
        transport: Arc<dyn IngestTransport>,
        clock: Clock,
    ) -> Self {
        let topology: TopologyId = SUPERVISOR.parse().expect("it is an id");
        let started = clock.now();
        // Differs for each start, so that reports are numbered from 1.
        let mut name: String = supervisor.as_str().chars().take(100).collect();
        name.push_str(&format!("-{}-{:06x}", started.as_millis(), fastrand::u32(..1 << 24)));
        Self {
            subject: Subject::Worker { host: host.to_owned(), port: 0 },
            launch: name.parse().expect("an id, digits and dashes make an id"),
            started,
            dir,
            number: 0,
            before: None,
            sender: ReportSender::new(topology.clone()),
            topology,
            transport,
            clock,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        self.before = self.read().await.map(|(now, host, _)| (now, host));
        loop {
            let now = self.clock.now();
            let minute = Minute::of(now);
            let left = minute.end().as_millis().saturating_sub(now.as_millis()).max(1);
            tokio::time::sleep(Duration::from_millis(left)).await;
            self.measure(minute).await;
            self.sender.resend_stored(self.clock.monotonic());
            if let FlushOutcome::Incomplete(reason) =
                flush(&mut self.sender, &*self.transport, &self.clock).await
            {
                debug!(reason, "metric reports of this host are not committed yet; trying again in a minute");
            }
            drop(self.sender.take_committed());
        }
    }

    async fn read(&self) -> Option<(Monotonic, HostUsage, Option<f64>)> {
        let dir = self.dir.clone();
        let (host, disk) = blocking::run(move || (proc::of_host(), proc::of_disk(&dir))).await;
        let now = self.clock.monotonic();
        host.inspect_err(|error| debug!(%error, "cannot read the usage of this host"))
            .ok()
            .map(|host| (now, host, disk.ok()))
    }

    async fn measure(&mut self, minute: Minute) {
        if self.sender.len() >= MINUTES_MAX {
            info!(%minute, "too many metric reports wait for a leader; discarding this host's usage of the minute");
            return;
        }
        let Some((now, host, disk)) = self.read().await else { return };
        let mut readings: Vec<(&Builtin, f64)> = Vec::new();
        readings.extend(disk.map(|disk| (&builtin::SUPERVISOR_DISK_USAGE, disk)));
        if host.memory_bytes > 0 {
            let used = host.memory_bytes.saturating_sub(host.available_bytes) as f64;
            readings.push((&builtin::SUPERVISOR_MEMORY_USAGE, used / host.memory_bytes as f64));
        }
        if let Some((then, before)) = self.before.replace((now, host)) {
            readings.extend(rates(&before, &host, now.since(then)));
        }
        let names: Vec<(MetricId, MetricName)> =
            readings.iter().filter_map(|(metric, _)| self.name(metric)).collect();
        let leaf = |(metric, value): &(&Builtin, f64)| {
            let (id, _) = self.name(metric)?;
            Some(Leaf { id, point: Point::Gauge(Gauge::reading(minute, *value)?), total: None })
        };
        let leaves: Vec<Leaf> = readings.iter().filter_map(leaf).collect();
        self.sender.learn(&self.launch, &names);
        let number = self.number + 1;
        let (topology, worker, started) = (self.topology.clone(), self.launch.clone(), self.started);
        let report = MetricReport { topology, worker, number, minute, started, leaves };
        match self.sender.add(SpooledReport { first: number, report }) {
            Enqueued::Queued => self.number = number,
            added @ (Enqueued::Committed | Enqueued::UnknownNames(_) | Enqueued::Full) => {
                info!(%minute, ?added, "metric report rejected; discarding this host's usage of the minute");
            }
        }
    }

    /// Returns `None` if the host's name is not valid in a metric name.
    fn name(&self, metric: &Builtin) -> Option<(MetricId, MetricName)> {
        let name = metric.of(self.topology.clone(), self.subject.clone()).ok()?;
        Some((MetricId::of(&name.to_string(), 0), name))
    }
}

/// Usage per second between two readings.
fn rates(before: &HostUsage, now: &HostUsage, passed: Duration) -> Vec<(&'static Builtin, f64)> {
    let secs = passed.as_secs_f64();
    let mut rates = Vec::new();
    // Counters of a device that was removed or reset go back: there is no rate then.
    let total = now.total_ticks.saturating_sub(before.total_ticks);
    if total > 0 {
        let busy = now.busy_ticks.saturating_sub(before.busy_ticks) as f64;
        rates.push((&builtin::SUPERVISOR_CPU_USED_RATIO, (100.0 * busy / total as f64).min(100.0)));
    }
    if secs > 0.0 {
        let speed = |now: u64, before: u64| now.saturating_sub(before) as f64 / secs;
        rates.push((&builtin::SUPERVISOR_NET_RECV_SPEED, speed(now.received_bytes, before.received_bytes)));
        rates.push((&builtin::SUPERVISOR_NET_SEND_SPEED, speed(now.sent_bytes, before.sent_bytes)));
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn minutes_without_a_leader_wait_up_to_a_bound() {
        use stormkeeper_coordination::{cluster::store::Store, tree::memory::MemoryTree};
        use stormkeeper_metric_shipping::ingest_client::IngestClient;
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let transport = Arc::new(IngestClient::new(Store::new(MemoryTree::new().connect())).expect("made"));
        let id = "s".parse().expect("valid");
        let mut host = HostMetrics::new("h", &id, std::env::temp_dir(), transport, clock);
        for minute in 0..MINUTES_MAX + 3 {
            host.measure(Minute(u32::try_from(minute).expect("few"))).await;
        }
        assert_eq!((host.sender.len(), host.number), (MINUTES_MAX, MINUTES_MAX as u64));
    }

    #[test]
    fn rates_between_two_readings_are_never_negative() {
        let before =
            HostUsage { busy_ticks: 10, total_ticks: 100, received_bytes: 50, ..HostUsage::default() };
        let now =
            HostUsage { busy_ticks: 60, total_ticks: 300, received_bytes: 20, sent_bytes: 30, ..before };
        let rates = rates(&before, &now, Duration::from_secs(10));
        let values: Vec<(&str, f64)> = rates.iter().map(|(metric, value)| (metric.name, *value)).collect();
        assert_eq!(values, [("CpuUsedRatio", 25.0), ("NetRecvSpeed", 0.0), ("NetSendSpeed", 3.0)]);
    }
}
