//! A quarantined database is never deleted, and a database with committed entries that its
//! successor is missing is quarantined.

use std::collections::BTreeSet;

use super::Invariant;
use crate::{
    metric_log::{MetricLogEvent, is_quarantine},
    model::ClusterModel,
};
use stormkeeper_model::LogPosition;

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// All entries that were ever committed.
    committed: BTreeSet<LogPosition>,
}

impl Invariant for Quarantine {
    fn name(&self) -> &'static str {
        "quarantine"
    }

    fn metric_log(&mut self, _model: &ClusterModel, event: &MetricLogEvent) -> Result<(), String> {
        let mut commit = |log: &[LogPosition], high_watermark| {
            self.committed.extend(log.iter().filter(|at| **at <= high_watermark));
        };
        match event {
            MetricLogEvent::Published { state, log, .. } => commit(log, state.high_watermark),
            MetricLogEvent::Answered { high_watermark, log, .. } => commit(log, *high_watermark),
            MetricLogEvent::Removed { nimbus, name, .. } if is_quarantine(name) => {
                return Err(format!("{nimbus} removes the quarantined database {name}"));
            }
            MetricLogEvent::Renamed { nimbus, from, to, .. } if is_quarantine(from) => {
                return Err(format!("{nimbus} renames the quarantined database {from} to {to}"));
            }
            // Any other directory is a copy that was not installed.
            MetricLogEvent::Removed { nimbus, name, log, kept } if matches!(&**name, "db" | "before") => {
                let kept: BTreeSet<_> = kept.iter().collect();
                if let Some(at) = log.iter().find(|at| self.committed.contains(at) && !kept.contains(at)) {
                    return Err(format!(
                        "{nimbus} removes a database with the committed entry {at}, which its current database \
                         is missing"
                    ));
                }
            }
            MetricLogEvent::Renamed { .. } | MetricLogEvent::Removed { .. } => {}
        }
        Ok(())
    }
}
