//! Walking through a payload.

use crate::{
    metrics::{MetaType, MetricId, Point},
    plugin::{PayloadSource, UploadError},
    rpc::metrics::Meta,
};

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
    pub(super) async fn next(&mut self) -> Result<Option<Vec<(Meta, Point)>>, UploadError> {
        let Some(after) = self.next else { return Ok(None) };
        let page = self.source.page(after).await?;
        // A page that does not go on ends the walk, or it would not end at all.
        self.next = page.next.filter(|next| Some(*next) > after).map(Some);
        Ok(Some(
            page.points.into_iter().filter(|(meta, _)| self.levels.contains(&meta.name.meta())).collect(),
        ))
    }
}
