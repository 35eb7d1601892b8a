//! Collects metric reports and keeps them in the spool.

use std::{collections::BTreeMap, io};

use tracing::{info, warn};

use super::{Metrics, gauges::WorkerGauges};
use stormkeeper_metric_shipping::spool::{Spool, SpooledReport};
use stormkeeper_metrics::{CollectRequest, MetricId, MetricReport, Minute};

/// Collects reports and writes them to the spool.
#[derive(Debug)]
pub(super) struct ReportWriter {
    metrics: Metrics,
    gauges: WorkerGauges,
    pub(super) dir: Spool,
    number: u64,
    generation: u64,
    // Minute of the last report with gauges.
    gauges_minute: Option<Minute>,
    // Report that was collected and is not yet on disk.
    unwritten: Option<(SpooledReport, BTreeMap<MetricId, u64>)>,
    n_failures: u64,
}

impl ReportWriter {
    pub(super) fn new(metrics: &Metrics) -> io::Result<Self> {
        Ok(Self {
            gauges: WorkerGauges::new(metrics),
            dir: Spool::create(metrics.dir())?,
            metrics: metrics.clone(),
            number: 0,
            generation: 0,
            gauges_minute: None,
            unwritten: None,
            n_failures: 0,
        })
    }

    /// Collects a report for `minute` and writes it to disk. Returns its sequence number. A report
    /// that cannot be written is retried by the next call; later counts go to the next report. Blocks.
    pub(super) fn collect_and_write(&mut self, minute: Minute) -> Option<u64> {
        if self.unwritten.is_none() {
            self.unwritten = self.collect(minute);
        }
        let (report, totals) = self.unwritten.take()?;
        match self.write(&report, &totals) {
            Ok(()) => Some(report.report.number),
            Err(error) => {
                self.n_failures += 1;
                if self.n_failures.is_power_of_two() {
                    warn!(%error, so_far = self.n_failures, "cannot write a metric report to disk; retrying with the next report");
                }
                self.unwritten = Some((report, totals));
                None
            }
        }
    }

    fn collect(&mut self, minute: Minute) -> Option<(SpooledReport, BTreeMap<MetricId, u64>)> {
        let with_gauges = self.gauges_minute.is_none_or(|gauges_minute| minute > gauges_minute);
        if with_gauges {
            self.gauges.read();
            self.gauges_minute = Some(minute);
        }
        let registry = self.metrics.registry();
        let request = CollectRequest { minute, now: self.metrics.clock().monotonic(), with_gauges };
        let leaves = registry.collect(request);
        if leaves.is_empty() {
            return None;
        }
        for (name, leaf) in registry.debugged(&leaves) {
            info!(%minute, %name, point = ?leaf.point, "metric");
        }
        self.number += 1;
        let launch = self.metrics.launch();
        let report = MetricReport {
            topology: launch.topology.clone(),
            worker: launch.worker.clone(),
            number: self.number,
            minute,
            started: launch.started,
            leaves,
        };
        Some((
            SpooledReport { first: self.number, report },
            registry.collected_totals().into_iter().collect(),
        ))
    }

    fn write(&mut self, report: &SpooledReport, totals: &BTreeMap<MetricId, u64>) -> io::Result<()> {
        let (generation, names) = self.metrics.registry().names_since(self.generation);
        for (id, name) in names {
            self.dir.add_name(id, &name)?;
        }
        self.generation = generation;
        self.dir.write(report, totals)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tests::options;
    use stormkeeper_metrics::{Control, Point};
    use stormkeeper_model::{Timestamp, clock::Clock};

    #[test]
    fn unwritable_report_is_retried_and_gauges_are_in_the_first_report_of_a_minute() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let metrics = Metrics::start(&options(dir.path()), Control::default(), &clock).expect("started");
        let name = "3@1@t-1-100@split@4@default@sys@Emitted".parse().expect("a name");
        let emitted = metrics.registry().counter(name);
        let mut writer = ReportWriter::new(&metrics).expect("made");
        let away = dir.path().join("away");
        emitted.add(2);
        fs::rename(metrics.dir(), &away).expect("moved");
        assert_eq!(writer.collect_and_write(Minute(1)), None, "the spool directory is gone");
        emitted.add(3);
        fs::rename(&away, metrics.dir()).expect("moved back");
        assert_eq!(writer.collect_and_write(Minute(2)), Some(1), "the report that was retried");
        assert_eq!(writer.collect_and_write(Minute(2)), Some(2));
        emitted.add(4);
        assert_eq!(writer.collect_and_write(Minute(2)), Some(3));
        let reports = [1, 2, 3].map(|number| writer.dir.read(number, number).expect("written").report);
        let counted = |report: &MetricReport| {
            let counts = report.leaves.iter().filter_map(|leaf| match &leaf.point {
                Point::Counter(counter) => Some(counter.count),
                Point::Gauge(_) | Point::Meter(_) | Point::Histogram(_) | Point::Timer(_) => None,
            });
            counts.sum::<u64>()
        };
        assert_eq!(reports.each_ref().map(counted), [2, 3, 4]);
        assert_eq!(reports.each_ref().map(|report| report.minute.0), [1, 2, 2]);
        let has_gauges =
            |report: &MetricReport| report.leaves.iter().any(|leaf| matches!(leaf.point, Point::Gauge(_)));
        assert_eq!(reports.each_ref().map(has_gauges), [true, true, false]);
    }
}
