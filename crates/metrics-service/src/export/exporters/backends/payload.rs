//! Iteration over a payload.

use crate::export::exporters::{ExportError, PayloadSource};
use stormkeeper_metrics::{MetaType, MetricId, Point, protocol::MetricMeta};

/// Pages of a payload, without the levels that are not exported.
pub(super) struct Payload<'a> {
    source: &'a dyn PayloadSource,
    levels: &'a [MetaType],
    /// Id after which the next page begins; `None` after the last page.
    next: Option<Option<MetricId>>,
}

impl<'a> Payload<'a> {
    /// Iteration from the first page.
    pub(super) fn new(source: &'a dyn PayloadSource, levels: &'a [MetaType]) -> Self {
        Self { source, levels, next: Some(None) }
    }

    /// Returns the next page, which may be empty; `None` after the last.
    ///
    /// # Errors
    /// If the page cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<(MetricMeta, Point)>>, ExportError> {
        let Some(after) = self.next else { return Ok(None) };
        let page = self.source.page(after).await?;
        // A page that does not advance ends the iteration, which would be endless otherwise.
        self.next = page.next.filter(|next| Some(*next) > after).map(Some);
        Ok(Some(
            page.points.into_iter().filter(|(meta, _)| self.levels.contains(&meta.name.meta())).collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::export::exporters::backends::tests::fixture::metrics;
    use stormkeeper_metric_store::PayloadPage;

    /// Source that returns the same page for ever.
    struct Circle;

    #[async_trait]
    impl PayloadSource for Circle {
        async fn page(&self, _after: Option<MetricId>) -> Result<PayloadPage, ExportError> {
            Ok(PayloadPage { points: metrics(), next: Some(MetricId(7)) })
        }
    }

    #[tokio::test]
    async fn payload_that_does_not_advance_ends_and_has_only_exported_levels() {
        let mut payload = Payload::new(&Circle, &[MetaType::Task]);
        let mut sizes = Vec::new();
        while let Some(page) = payload.next().await.expect("readable") {
            sizes.push(page.len());
            assert!(sizes.len() < 5, "endless iteration");
        }
        assert_eq!(sizes, [2, 2], "once, and once more before the iteration is known not to advance");
    }
}
