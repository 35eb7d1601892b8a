//! Recovery of the reports in an orphaned spool.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Cut, Launch,
    counter_file::{self, COUNTERS},
    cut_file::{self, NAMES, StoredReport},
    lines,
};
use stormkeeper_metrics::{Leaf, MetricId, MetricName, Minute, Point, Snapshot, point::Counter};
use stormkeeper_model::Timestamp;

/// The possibly uncommitted reports of a dead worker, and the names of their metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Remains {
    /// The reports in order of their sequence numbers, without gaps. The last may be computed from
    /// the counter files, if the worker died before it collected that report.
    pub cuts: Vec<Cut>,
    /// The names of the metrics in the reports.
    pub names: BTreeMap<MetricId, MetricName>,
    /// Errors for the log, one for each unreadable file: its counts are lost, unless a counter file
    /// contains them.
    pub problems: Vec<String>,
}

/// Recovers the reports of a dead worker from its spool.
///
/// # Errors
/// If the directory cannot be read. An unreadable file is one of [`Remains::problems`].
pub fn read(dir: &Path, launch: &Launch) -> io::Result<Remains> {
    let mut recovered = Remains::default();
    let (mut cuts, mut counters, mut last_number) = (Vec::<StoredReport>::new(), Vec::new(), 0);
    let mut written = None;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let Some((_, last)) = cut_file::numbers(&name) {
            last_number = last_number.max(last);
            match cut_file::read_file(&entry.path()) {
                Ok(stored) => cuts.push(stored),
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
    recovered.names = lines::read(&dir.join(NAMES))?.into_iter().flatten().collect();
    let cuts = drop_joined_parts(cuts);
    let unreported = unreported(cuts.last(), &counters, launch, (last_number, written));
    recovered.names.extend(counters.into_iter().map(|(id, name, _)| (id, name)));
    recovered.cuts = cuts.into_iter().map(|stored| stored.cut).chain(unreported).collect();
    close_gaps(&mut recovered);
    Ok(recovered)
}

/// Sorts reports by sequence number, and drops those that a joined report contains.
fn drop_joined_parts(mut cuts: Vec<StoredReport>) -> Vec<StoredReport> {
    // Of two reports with the same start, the longer one first.
    cuts.sort_by_key(|stored| (stored.cut.first, std::cmp::Reverse(stored.cut.snapshot.number)));
    let mut end = 0;
    cuts.retain(|stored| {
        let number = stored.cut.snapshot.number;
        let is_new = number > end;
        end = end.max(number);
        is_new
    });
    cuts
}

/// Computes the missing last report: the counts after the last readable report.
fn unreported(
    last: Option<&StoredReport>,
    counters: &[(MetricId, MetricName, u64)],
    launch: &Launch,
    (last_number, written): (u64, Option<SystemTime>),
) -> Option<Cut> {
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
    (!leaves.is_empty()).then(|| Cut {
        first: last.map_or(0, |last| last.cut.snapshot.number) + 1,
        snapshot: Snapshot {
            topology: launch.topology.clone(),
            worker: launch.worker.clone(),
            number: last_number + 1,
            minute: Minute::of(written),
            started: launch.started,
            leaves,
        },
    })
}

/// Extends each report so that it begins where the report before ended: reports in between are
/// lost, and the leader ingests only a report that follows directly on the last one that it has.
fn close_gaps(recovered: &mut Remains) {
    let mut end = None;
    for cut in &mut recovered.cuts {
        if let Some(end) = end.filter(|end| cut.first != end + 1) {
            let last_lost = cut.first.saturating_sub(1);
            recovered.problems.push(format!("reports {} to {last_lost} are lost", end + 1));
            cut.first = end + 1;
        }
        end = Some(cut.snapshot.number);
    }
}
