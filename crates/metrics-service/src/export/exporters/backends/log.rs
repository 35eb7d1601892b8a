//! `log`: one line in nimbus's log for each entry of the queue. It shows that metrics are exported,
//! and stores nothing.

use async_trait::async_trait;
use tracing::info;

use super::payload::Payload;
use crate::export::exporters::{ExportCounts, ExportError, MetricExporter, PayloadSource, options};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::ExportKey;
use stormkeeper_metrics::{MetaType, protocol::MetricMeta};

/// Exporter `log`; see the [module](self).
#[derive(Debug)]
pub struct LogExporter {
    options: options::LogOptions,
}

impl LogExporter {
    /// Exporter for the levels of the options.
    pub fn new(options: options::LogOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl MetricExporter for LogExporter {
    fn name(&self) -> &str {
        "log"
    }

    fn levels(&self) -> &[MetaType] {
        &self.options.levels
    }

    async fn register_metrics(&self, metas: &[MetricMeta]) -> Result<(), ExportError> {
        info!(metrics = metas.len(), "exporting new metrics");
        Ok(())
    }

    async fn export(&self, key: &ExportKey, source: &dyn PayloadSource) -> Result<ExportCounts, ExportError> {
        let mut payload = Payload::new(source, &self.options.levels);
        let mut counts = [0_u64; MetaType::ALL.len()];
        while let Some(page) = payload.next().await? {
            for (meta, _) in page {
                counts[usize::from(meta.name.meta().number()) - 1] += 1;
            }
        }
        let points = counts.iter().sum();
        let levels = summary(&counts);
        info!(
            cluster = self.options.cluster,
            topology = %key.topology,
            minute = %key.minute,
            kind = key.kind.word(),
            part = key.part + 1,
            parts = key.parts,
            metrics = points,
            levels,
            "exporting the metrics of a minute"
        );
        Ok(ExportCounts { points, refused: 0 })
    }

    async fn send_event(&self, event: &metric_store::HistoryEvent) -> Result<(), ExportError> {
        info!(cluster = self.options.cluster, ?event, "exporting an event");
        Ok(())
    }
}

/// Lists the levels with metrics, and the number of their metrics.
fn summary(counts: &[u64]) -> String {
    let levels = MetaType::ALL.iter().zip(counts).filter(|(_, n)| **n > 0);
    levels.map(|(level, n)| format!("{n} {}", level.word())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lists_only_levels_with_metrics() {
        assert_eq!(summary(&[3, 0, 0, 0, 1, 0, 0, 0]), "3 task, 1 topology");
        assert_eq!(summary(&[0; 8]), "");
    }
}
