//! Walking through a payload.

use crate::plugin::{ExportError, PayloadSource};
use stormkeeper_metrics::{MetaType, MetricId, Point, protocol::MetricMeta};

/// The pages of a payload, without the levels that are not wanted.
pub(super) struct Payload<'a> {
    source: &'a dyn PayloadSource,
    levels: &'a [MetaType],
    /// Where the next page begins; nothing when the last was read.
    next: Option<Option<MetricId>>,
}

impl<'a> Payload<'a> {
    /// From the beginning.
    pub(super) fn new(source: &'a dyn PayloadSource, levels: &'a [MetaType]) -> Self {
        Self { source, levels, next: Some(None) }
    }

    /// The next page, which may be empty; nothing after the last.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<(MetricMeta, Point)>>, ExportError> {
        let Some(after) = self.next else { return Ok(None) };
        let page = self.source.page(after).await?;
        // A page that does not go on ends the walk, or it would not end at all.
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
    use crate::plugin::uploader::tests::fixture::metrics;
    use stormkeeper_metric_store::PayloadPage;

    /// The same page again and again.
    struct Circle;

    #[async_trait]
    impl PayloadSource for Circle {
        async fn page(&self, _after: Option<MetricId>) -> Result<PayloadPage, ExportError> {
            Ok(PayloadPage { points: metrics(), next: Some(MetricId(7)) })
        }
    }

    #[tokio::test]
    async fn a_walk_that_does_not_go_on_ends_and_has_only_what_is_wanted() {
        let mut payload = Payload::new(&Circle, &[MetaType::Task]);
        let mut sizes = Vec::new();
        while let Some(page) = payload.next().await.expect("readable") {
            sizes.push(page.len());
            assert!(sizes.len() < 5, "it does not end");
        }
        assert_eq!(sizes, [2, 2], "once, and once more before it is seen to stand still");
    }
}
