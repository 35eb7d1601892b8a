//! Recovery of the reports in an orphaned spool.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Launch, SpooledReport,
    counter_file::{self, COUNTERS},
    name_log,
    report_file::{self, EncodedRecord, NAMES},
};
use stormkeeper_metrics::{Leaf, MetricId, MetricName, MetricReport, Minute, Point, point::Counter};
use stormkeeper_model::Timestamp;

/// The possibly uncommitted reports of a dead worker, and the names of their metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// The reports in order of their sequence numbers, without gaps. The last may be computed from
    /// the counter files, if the worker died before it collected that report.
    pub reports: Vec<SpooledReport>,
    /// The names of the metrics in the reports.
    pub names: BTreeMap<MetricId, MetricName>,
    /// Errors for the log, one for each unreadable file: its counts are lost, unless a counter file
    /// contains them.
    pub problems: Vec<String>,
}

/// Recovers the reports of a dead worker from its spool.
///
/// # Errors
/// If the directory cannot be read. An unreadable file is one of [`Recovered::problems`].
pub fn recover(dir: &Path, launch: &Launch) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    let (mut reports, mut counters, mut last_number) = (Vec::<EncodedRecord>::new(), Vec::new(), 0);
    let mut written = None;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let Some((_, last)) = report_file::numbers(&name) {
            last_number = last_number.max(last);
            match report_file::read_file(&entry.path()) {
                Ok(stored) => reports.push(stored),
                Err(error) => recovered.problems.push(error.to_string()),
            }
        } else if let Some(task) = name.strip_prefix(COUNTERS) {
            match counter_file::read(dir, task) {
                Ok(some) => counters.extend(some),
                Err(error) => recovered.problems.push(format!("{name}: {error}")),
            }
            written = written.max(entry.metadata()?.modified().ok());
        }
    }
    recovered.names = name_log::read(&dir.join(NAMES))?.into_iter().flatten().collect();
    let reports = drop_joined_parts(reports);
    let unreported = unreported(reports.last(), &counters, launch, (last_number, written));
    recovered.names.extend(counters.into_iter().map(|(id, name, _)| (id, name)));
    recovered.reports = reports.into_iter().map(|stored| stored.spooled).chain(unreported).collect();
    close_gaps(&mut recovered);
    Ok(recovered)
}

/// Sorts reports by sequence number, and drops those that a joined report contains.
fn drop_joined_parts(mut reports: Vec<EncodedRecord>) -> Vec<EncodedRecord> {
    // Of two reports with the same start, the longer one first.
    reports.sort_by_key(|stored| (stored.spooled.first, std::cmp::Reverse(stored.spooled.report.number)));
    let mut end = 0;
    reports.retain(|stored| {
        let number = stored.spooled.report.number;
        let is_new = number > end;
        end = end.max(number);
        is_new
    });
    reports
}

/// Computes the missing last report: the counts after the last readable report.
fn unreported(
    last: Option<&EncodedRecord>,
    counters: &[(MetricId, MetricName, u64)],
    launch: &Launch,
    (last_number, written): (u64, Option<SystemTime>),
) -> Option<SpooledReport> {
    let before = |id: &MetricId| last.and_then(|last| last.totals.get(id)).copied().unwrap_or(0);
    let leaf = |(id, _, total): &(MetricId, MetricName, u64)| {
        // The last report may contain counts that were never written to the counter file: then
        // nothing is missing.
        let count = total.saturating_sub(before(id));
        let point = Point::Counter(Counter { count });
        (count > 0).then_some(Leaf { id: *id, point, total: Some(*total) })
    };
    let leaves: Vec<Leaf> = counters.iter().filter_map(leaf).collect();
    let since_epoch = written?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let written = Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
    (!leaves.is_empty()).then(|| SpooledReport {
        // The numbers are read from names and contents of files, and may be of any size.
        first: last.map_or(0, |last| last.spooled.report.number).saturating_add(1),
        report: MetricReport {
            topology: launch.topology.clone(),
            worker: launch.worker.clone(),
            number: last_number.saturating_add(1),
            minute: Minute::of(written),
            started: launch.started,
            leaves,
        },
    })
}

/// Extends each report so that it begins where the report before ended: reports in between are
/// lost, and the leader ingests only a report that follows directly on the last one that it has.
fn close_gaps(recovered: &mut Recovered) {
    let mut end = None;
    for spooled in &mut recovered.reports {
        let next = end.map(|end: u64| end.saturating_add(1));
        if let Some(next) = next.filter(|next| spooled.first != *next) {
            let last_lost = spooled.first.saturating_sub(1);
            recovered.problems.push(format!("reports {next} to {last_lost} are lost"));
            spooled.first = next;
        }
        end = Some(spooled.report.number);
    }
}
