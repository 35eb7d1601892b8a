//! Families of this nimbus: its role, its metric store, its exporters, and what the page lacks.

use super::LEVELS;
use crate::Handle;
use stormkeeper_access::refusals::RefusalKind;
use stormkeeper_coordination::cluster::observer::Observation;
use stormkeeper_exposition::{
    Description, Family, SampleValue,
    cluster::{self as c, labels},
    measured::Level,
};
use stormkeeper_metrics_service::{ExporterState, MetricsStatus};

/// Returns the families of this nimbus.
pub(super) fn families(
    nimbus: &Handle,
    observation: Option<&Observation>,
    status: &MetricsStatus,
    omitted: &[(Level, usize)],
) -> Vec<Family> {
    let age = observation.map(|observation| nimbus.view_age(observation));
    let is_ready = age.is_some_and(|age| age <= nimbus.options().session_timeout);
    let omitted = LEVELS.map(|level| {
        let n = omitted.iter().find(|(left, _)| *left == level).map_or(0, |(_, n)| *n);
        (labels([("level", level.word())]), n.into())
    });
    let refusals = nimbus.gate().refusals();
    let refused = RefusalKind::ALL.map(|kind| (labels([("kind", kind.word())]), refusals.of(kind).into()));
    let version = labels([("version", env!("CARGO_PKG_VERSION"))]);
    let mut families = vec![
        Family::labelled(&c::BUILD_INFO, [(version, true.into())]),
        Family::labelled(&c::SERIES_OMITTED, omitted),
        Family::labelled(&c::REFUSED_REQUESTS, refused),
        Family::single(&c::NIMBUS_EXPOSED, nimbus.options().exposed.is_some().into()),
        Family::single(&c::NIMBUS_READY, is_ready.into()),
        Family::single(&c::NIMBUS_LEADING, nimbus.takes_writes().into()),
        Family::single(&c::NIMBUS_METRIC_STORE_OPEN, status.closed.is_none().into()),
        Family::single(&c::NIMBUS_METRICS_PROBLEM, status.problem.is_some().into()),
    ];
    if let Some(age) = age {
        families.push(Family::single(&c::VIEW_AGE, age.as_secs_f64().into()));
    }
    if let Some(lag) = nimbus.metrics_lag_entries().get(nimbus.id()) {
        families.push(Family::single(&c::NIMBUS_METRIC_LOG_LAG, (*lag).into()));
    }
    if let Some(record) = observation.and_then(|observation| observation.view.nimbuses.get(nimbus.id())) {
        families.push(Family::single(&c::NIMBUS_DISK_PROBLEM, record.disk_problem.is_some().into()));
        families.push(Family::single(&c::NIMBUS_BLOBS_MISSING, record.blobs_missing.into()));
    }
    families.extend(of_exporters(status));
    families
}

/// Returns the families of the export queue and the exporters. Only the leader exports.
fn of_exporters(status: &MetricsStatus) -> Vec<Family> {
    let mut families = Vec::new();
    if let Some(queue) = &status.queue {
        families.push(Family::single(&c::EXPORT_QUEUE_BYTES, queue.bytes.into()));
        let backlogs = queue
            .exporters
            .iter()
            .map(|(name, of)| (labels([("exporter", name.as_str())]), of.pending.into()));
        families.push(Family::labelled(&c::EXPORTER_BACKLOG, backlogs));
    }
    let family = |about: &Description, value: &dyn Fn(&ExporterState) -> SampleValue| {
        let samples =
            status.exporters.iter().map(|(name, of)| (labels([("exporter", name.as_str())]), value(of)));
        Family::labelled(about, samples)
    };
    families.extend([
        family(&c::EXPORTER_POINTS, &|of| of.points.into()),
        family(&c::EXPORTER_REJECTED, &|of| of.rejected.into()),
        family(&c::EXPORTER_FAILURES, &|of| of.failures.into()),
    ]);
    families
}
