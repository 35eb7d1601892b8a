//! `file`: JSON lines, appended to `metrics.jsonl` in a directory, and synced to disk before they are
//! acknowledged.
//!
//! An interrupted entry is written again as a whole, so lines may be repeated: lines with the same
//! time and id are the same number, and the later one is valid. A line `export` ends each complete
//! entry.

mod line;
mod rotating_lines;

use std::sync::Arc;

use async_trait::async_trait;

use self::rotating_lines::RotatingLines;
use super::payload::Payload;
use crate::export::exporters::{ExportCounts, ExportError, MetricExporter, PayloadSource, options};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::ExportKey;
use stormkeeper_metrics::{MetaType, protocol::MetricMeta};
use stormkeeper_runtime::blocking;

/// Exporter `file`; see the [module](self).
#[derive(Debug)]
pub struct FileExporter {
    options: Arc<options::FileOptions>,
    slot: rotating_lines::WriterSlot,
}

impl FileExporter {
    /// Exporter to the directory of the options.
    pub fn new(options: options::FileOptions) -> Self {
        Self { options: Arc::new(options), slot: rotating_lines::WriterSlot::default() }
    }

    /// Opens the file, and repairs an incomplete last line.
    async fn open(&self) -> Result<RotatingLines, ExportError> {
        let (options, slot) = (Arc::clone(&self.options), self.slot.clone());
        blocking::run(move || RotatingLines::open(&options, &slot)).await
    }

    /// Appends the lines that `render` makes, and syncs them to disk.
    async fn write<F>(&self, render: F) -> Result<(), ExportError>
    where
        F: FnOnce(&mut Vec<u8>) -> Result<(), ExportError> + Send + 'static,
    {
        let mut file = self.open().await?;
        blocking::run(move || {
            let mut lines = Vec::new();
            render(&mut lines)?;
            file.append(&lines)?;
            file.sync()
        })
        .await
    }
}

#[async_trait]
impl MetricExporter for FileExporter {
    fn name(&self) -> &str {
        "file"
    }

    fn levels(&self) -> &[MetaType] {
        &self.options.levels
    }

    async fn init(&self) -> Result<(), ExportError> {
        self.open().await.map(|_| ())
    }

    async fn register_metrics(&self, metas: &[MetricMeta]) -> Result<(), ExportError> {
        let wanted = |meta: &&MetricMeta| self.options.levels.contains(&meta.name.meta());
        let metas: Vec<MetricMeta> = metas.iter().filter(wanted).cloned().collect();
        if metas.is_empty() {
            return Ok(());
        }
        let options = Arc::clone(&self.options);
        self.write(move |lines| metas.iter().try_for_each(|meta| line::meta(&options.cluster, meta, lines)))
            .await
    }

    async fn export(&self, key: &ExportKey, source: &dyn PayloadSource) -> Result<ExportCounts, ExportError> {
        let mut file = self.open().await?;
        let mut payload = Payload::new(source, &self.options.levels);
        let mut n_points = 0;
        while let Some(page) = payload.next().await? {
            n_points += page.len() as u64;
            let (key, options) = (key.clone(), Arc::clone(&self.options));
            let written = blocking::run(move || {
                let mut lines = Vec::new();
                page.iter().try_for_each(|(meta, point)| {
                    line::point(&options.cluster, &key, meta, point, &mut lines)
                })?;
                file.append(&lines)?;
                Ok::<_, ExportError>(file)
            });
            file = written.await?;
        }
        let (key, options) = (key.clone(), Arc::clone(&self.options));
        blocking::run(move || {
            let mut lines = Vec::new();
            line::export(&options.cluster, &key, n_points, &mut lines)?;
            file.append(&lines)?;
            file.sync()
        })
        .await?;
        Ok(ExportCounts { points: n_points, refused: 0 })
    }

    async fn send_event(&self, event: &metric_store::HistoryEvent) -> Result<(), ExportError> {
        let (event, options) = (event.clone(), Arc::clone(&self.options));
        self.write(move |lines| line::event(&options.cluster, &event, lines)).await
    }
}

#[cfg(test)]
mod tests;
