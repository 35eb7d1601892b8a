//! A committed entry of the metric log is on every later leader, unless an unclean takeover
//! discarded the entry and was recorded.

use std::collections::BTreeSet;

use super::Invariant;
use crate::{metric_log::MetricLogEvent, model::ClusterModel};
use stormkeeper_coordination::cluster::metric_log::UncleanTakeover;
use stormkeeper_model::{LogPosition, Term};

#[derive(Debug, Default)]
pub(super) struct Committed {
    committed: BTreeSet<LogPosition>,
    /// Committed entries that recorded unclean takeovers discarded.
    discarded: BTreeSet<LogPosition>,
    /// Term of the last unclean takeover.
    unclean: Option<Term>,
}

impl Committed {
    /// Exempts the entries that a recorded unclean takeover discards: all that the log with which it
    /// continues is missing. They need not be after its log end, as the logs may have diverged before.
    fn discard(&mut self, takeover: UncleanTakeover, log: &BTreeSet<LogPosition>) {
        self.unclean = Some(takeover.term);
        let is_kept = |at: &LogPosition| *at > takeover.discarded_through || log.contains(at);
        let (kept, discarded) = std::mem::take(&mut self.committed).into_iter().partition(is_kept);
        self.committed = kept;
        self.discarded.extend::<BTreeSet<LogPosition>>(discarded);
    }

    fn commit(&mut self, log: &[LogPosition], high_watermark: LogPosition) {
        // A deposed leader may repeat a high watermark whose entries were discarded meanwhile.
        let new = log.iter().filter(|at| **at <= high_watermark && !self.discarded.contains(at));
        self.committed.extend(new.copied().collect::<Vec<_>>());
    }
}

impl Invariant for Committed {
    fn name(&self) -> &'static str {
        "committed"
    }

    fn metric_log(&mut self, _model: &ClusterModel, event: &MetricLogEvent) -> Result<(), String> {
        match event {
            MetricLogEvent::Published { nimbus, state, log } => {
                let entries: BTreeSet<LogPosition> = log.iter().copied().collect();
                if let Some(takeover) = state.unclean_takeover.filter(|it| self.unclean < Some(it.term)) {
                    self.discard(takeover, &entries);
                }
                if let Some(at) = self.committed.iter().find(|at| !entries.contains(at)) {
                    return Err(format!("{nimbus} leads and is missing the committed entry {at}"));
                }
                self.commit(log, state.high_watermark);
            }
            MetricLogEvent::Answered { log, high_watermark, .. } => self.commit(log, *high_watermark),
            MetricLogEvent::Renamed { .. } | MetricLogEvent::Removed { .. } => {}
        }
        Ok(())
    }
}
