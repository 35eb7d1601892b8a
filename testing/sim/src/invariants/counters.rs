//! Counters at every level equal what the simulated tasks and workers counted, and no report counts
//! twice.

use std::collections::BTreeMap;

use crate::counters::{Bounds, Counters};
use stormkeeper_metrics::{MetricId, MetricName};

/// Difference between a metric store and the counts of the simulated workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Counts are missing, which may be in reports that are not committed yet.
    Missing(String),
    /// More was stored than was counted, which no later report changes.
    TooMany(String),
}

/// Compares the counters of one metric store; returns the first difference, those that last first.
pub(crate) fn check_counters(
    counted: &Counters,
    nimbus: &str,
    stored: &BTreeMap<MetricName, (MetricId, u64)>,
) -> Result<(), Difference> {
    let mut missing = None;
    for (name, Bounds { min, max }) in counted.bounds() {
        let (id, found) = stored.get(&name).map_or((None, 0), |(id, found)| (Some(*id), *found));
        // Without the metric, no batch with it was stored or all were discarded.
        let id = id.unwrap_or_else(|| MetricId::of(&name.to_string(), 0));
        let min = min.saturating_sub(counted.discarded(id));
        let text = || format!("{nimbus} has {found} of {name}, and {min} to {max} were counted");
        if found > max {
            return Err(Difference::TooMany(text()));
        }
        // The last in the order of names: a task is more telling than the cluster.
        if found < min {
            missing = Some(text());
        }
    }
    missing.map_or(Ok(()), |missing| Err(Difference::Missing(missing)))
}

/// Checks that the external store has no more of a counter than was counted: a minute that is
/// exported again must not count twice. The last minutes may be missing there.
pub(crate) fn check_exports(counted: &Counters) -> Result<(), Difference> {
    let exports = counted.exports();
    for (name, Bounds { max, .. }) in counted.bounds() {
        let found = exports.get(&name).copied().unwrap_or(0);
        if found > max {
            let text = format!("the external store has {found} of {name}, and {max} were counted");
            return Err(Difference::TooMany(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        counters::{Counts, TaskCounts},
        metric_log::MetricLogEvent,
    };
    use stormkeeper_coordination::cluster::metric_log::{MetricLogState, UncleanTakeover};
    use stormkeeper_metrics::{Minute, Point, point::Counter};
    use stormkeeper_model::{LogPosition, Port, TaskId, Term, Timestamp};
    use stormkeeper_worker::fake_worker::WORKER_COUNTER;

    fn counted() -> Counters {
        let mut counters = Counters::default();
        let task = |task, emitted| TaskCounts {
            component: "split".parse().expect("an id"),
            task: TaskId(task),
            emitted,
            failed: 1,
        };
        counters.count(&Counts {
            topology: "t-1-1".parse().expect("an id"),
            worker: "w1".parse().expect("an id"),
            host: "h".to_owned(),
            port: Port(6700),
            tasks: vec![task(1, 5), task(2, 7)],
            own: 9,
            reported: 4,
        });
        counters
    }

    /// The counters of a store that has every count.
    fn stored(counted: &Counters) -> BTreeMap<MetricName, (MetricId, u64)> {
        let id = |name: &MetricName| MetricId::of(&name.to_string(), 0);
        counted.bounds().into_iter().map(|(name, of)| (name.clone(), (id(&name), of.max))).collect()
    }

    fn with(counted: &Counters, name: &str, n: u64) -> Result<(), Difference> {
        let mut stored = stored(counted);
        let name: MetricName = name.parse().expect("a name");
        stored.get_mut(&name).expect("it is counted").1 = n;
        check_counters(counted, "nimbus-1", &stored)
    }

    #[test]
    fn counters_on_every_level_are_compared() {
        let counted = counted();
        let stored = stored(&counted);
        assert_eq!(check_counters(&counted, "nimbus-1", &stored), Ok(()));
        // Emitted and transferred on six levels, failed on four, the counter of the worker on three;
        // two tasks have their own streams.
        assert_eq!(stored.len(), 2 * 8 + 5 + 3);
        for (name, (_, n)) in &stored {
            let found = with(&counted, &name.to_string(), n + 1);
            assert!(matches!(&found, Err(Difference::TooMany(_))), "{name}: {found:?}");
            let found = with(&counted, &name.to_string(), n - 1);
            assert!(matches!(&found, Err(Difference::Missing(_))), "{name}: {found:?}");
        }
    }

    #[test]
    fn external_store_has_no_more_than_was_counted() {
        let mut counted = counted();
        let own = |name: &MetricName| name.short_name() == WORKER_COUNTER;
        let bounds = counted.bounds().into_iter().find(|(name, _)| own(name));
        let (name, Bounds { max, .. }) = bounds.expect("counted");
        counted.exported(Minute(7), &[(name.clone(), max)]);
        counted.exported(Minute(7), &[(name.clone(), max)]);
        assert_eq!(check_exports(&counted), Ok(()), "a minute that is exported again is replaced");
        counted.exported(Minute(8), &[(name, 1)]);
        assert!(matches!(check_exports(&counted), Err(Difference::TooMany(_))));
    }

    #[test]
    fn unreported_counts_of_a_killed_worker_itself_may_be_missing() {
        let mut counted = counted();
        counted.killed(&"w1".parse().expect("an id"));
        let is_own = |of: &MetricName| of.short_name() == WORKER_COUNTER && of.topology().as_str() == "t-1-1";
        let name = counted.bounds().into_keys().find(is_own).expect("counted").to_string();
        assert_eq!(with(&counted, &name, 4), Ok(()));
        assert!(matches!(with(&counted, &name, 3), Err(Difference::Missing(_))));
    }

    #[test]
    fn batches_that_an_unclean_takeover_discarded_may_be_missing() {
        let mut counted = counted();
        let topology = counted
            .bounds()
            .into_keys()
            .find(|of| of.short_name() == "Emitted" && of.topology().as_str() == "t-1-1")
            .expect("counted");
        let (id, at) = (MetricId::of(&topology.to_string(), 0), |index| LogPosition { term: 1, index });
        let n = stored(&counted)[&topology].1;
        counted.stored(at(3), &[(id, Point::Counter(Counter { count: 2 }))]);
        counted.stored(at(4), &[(id, Point::Counter(Counter { count: 1 }))]);
        assert!(matches!(with(&counted, &topology.to_string(), n - 1), Err(Difference::Missing(_))));
        let unclean_takeover = Some(UncleanTakeover {
            term: Term(2),
            log_end: at(3),
            discarded_through: at(4),
            at: Timestamp::EPOCH,
        });
        let state = MetricLogState { unclean_takeover, ..MetricLogState::default() };
        counted.metric_log(&MetricLogEvent::Published { nimbus: "n".to_owned(), state, log: vec![at(3)] });
        assert_eq!(with(&counted, &topology.to_string(), n - 1), Ok(()));
        assert!(matches!(with(&counted, &topology.to_string(), n - 2), Err(Difference::Missing(_))));
        assert!(matches!(with(&counted, &topology.to_string(), n + 1), Err(Difference::TooMany(_))));
    }
}
