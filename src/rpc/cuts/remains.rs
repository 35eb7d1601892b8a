//! What a worker that is gone has left.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Cut, Launch,
    counter_file::{self, COUNTERS},
    cut_file::{self, NAMES, Stored},
    lines,
};
use crate::{
    metrics::{Leaf, MetricId, MetricName, Minute, Point, Snapshot, point::Counter},
    model::Timestamp,
};

/// The cuts that a worker left and that may not be safe, and the names in them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Remains {
    /// The cuts by number, without gaps; the last may be one that it did not live to take.
    pub cuts: Vec<Cut>,
    /// The names of the metrics in them.
    pub names: BTreeMap<MetricId, MetricName>,
    /// What could not be read, for the log: counts in there are lost, unless a counters' file has
    /// them.
    pub problems: Vec<String>,
}

/// Reads what is in the metrics' directory of a worker that is gone.
///
/// # Errors
/// When the directory cannot be read. A file that cannot is a problem of [`Remains`].
pub fn read(dir: &Path, launch: &Launch) -> io::Result<Remains> {
    let mut remains = Remains::default();
    let (mut cuts, mut counters, mut last_number) = (Vec::<Stored>::new(), Vec::new(), 0);
    let mut written = None;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let Some((_, last)) = cut_file::numbers(&name) {
            last_number = last_number.max(last);
            match cut_file::read_file(&entry.path()) {
                Ok(stored) => cuts.push(stored),
                Err(error) => remains.problems.push(error.to_string()),
            }
        } else if let Some(task) = name.strip_prefix(COUNTERS) {
            match counter_file::read(dir, task) {
                Ok(some) => counters.extend(some),
                Err(error) => remains.problems.push(format!("{name}: {error}")),
            }
            written = written.max(entry.metadata()?.modified().ok());
        }
    }
    remains.names = lines::read(&dir.join(NAMES))?.into_iter().flatten().collect();
    let cuts = without_parts(cuts);
    let missing = missing(cuts.last(), &counters, launch, (last_number, written));
    remains.names.extend(counters.into_iter().map(|(id, name, _)| (id, name)));
    remains.cuts = cuts.into_iter().map(|stored| stored.cut).chain(missing).collect();
    close_gaps(&mut remains);
    Ok(remains)
}

/// Cuts by number, without those that others hold.
fn without_parts(mut cuts: Vec<Stored>) -> Vec<Stored> {
    // Of two that begin alike, the longer one first.
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

/// What was counted after the last cut that can be read.
fn missing(
    last: Option<&Stored>,
    counters: &[(MetricId, MetricName, u64)],
    launch: &Launch,
    (last_number, written): (u64, Option<SystemTime>),
) -> Option<Cut> {
    let before = |id: &MetricId| last.and_then(|last| last.totals.get(id)).copied().unwrap_or(0);
    let leaf = |(id, _, total): &(MetricId, MetricName, u64)| {
        // A cut may hold more than was written to the counters' file, never the other way round.
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

/// Lets each cut begin where the one before ended: what stood between them is lost, and the
/// leader takes only what follows on what it has.
fn close_gaps(remains: &mut Remains) {
    let mut end = None;
    for cut in &mut remains.cuts {
        if let Some(end) = end.filter(|end| cut.first != end + 1) {
            remains.problems.push(format!("cuts {} to {} are lost", end + 1, cut.first.saturating_sub(1)));
            cut.first = end + 1;
        }
        end = Some(cut.snapshot.number);
    }
}
