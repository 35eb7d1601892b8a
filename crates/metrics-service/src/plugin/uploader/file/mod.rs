//! `file`: JSON lines, appended to `metrics.jsonl` in a directory, on the disk before they are
//! acknowledged.
//!
//! What was cut short comes again as a whole, so a line may stand there twice: those with the
//! same time and id are of the same number, and the later one is right. The line `upload` ends
//! each entry that is complete.

mod journal;
mod line;

use std::sync::Arc;

use async_trait::async_trait;

use self::journal::Journal;
use super::payload::Payload;
use crate::plugin::{ExportError, MetricExporter, PayloadSource, Sent, options};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::UploadKey;
use stormkeeper_metrics::{MetaType, protocol::MetricMeta};
use stormkeeper_runtime::blocking;

/// See the [module](self).
#[derive(Debug)]
pub struct FileUploader {
    options: Arc<options::File>,
    busy: journal::Busy,
}

impl FileUploader {
    /// One that writes in the directory of the options.
    pub fn new(options: options::File) -> Self {
        Self { options: Arc::new(options), busy: journal::Busy::default() }
    }

    /// Opens the file, which mends it when its last line is torn.
    async fn open(&self) -> Result<Journal, ExportError> {
        let (options, busy) = (Arc::clone(&self.options), self.busy.clone());
        blocking::run(move || Journal::open(&options, &busy)).await
    }

    /// Appends what `render` makes and has it on the disk.
    async fn write<F>(&self, render: F) -> Result<(), ExportError>
    where
        F: FnOnce(&mut Vec<u8>) -> Result<(), ExportError> + Send + 'static,
    {
        let mut journal = self.open().await?;
        blocking::run(move || {
            let mut lines = Vec::new();
            render(&mut lines)?;
            journal.append(&lines)?;
            journal.sync()
        })
        .await
    }
}

#[async_trait]
impl MetricExporter for FileUploader {
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
        self.write(move |lines| metas.iter().try_for_each(|meta| line::meta(meta, lines))).await
    }

    async fn upload(&self, key: &UploadKey, source: &dyn PayloadSource) -> Result<Sent, ExportError> {
        let mut journal = self.open().await?;
        let mut payload = Payload::new(source, &self.options.levels);
        let mut n_points = 0;
        while let Some(page) = payload.next().await? {
            n_points += page.len() as u64;
            let key = key.clone();
            let written = blocking::run(move || {
                let mut lines = Vec::new();
                page.iter().try_for_each(|(meta, point)| line::point(&key, meta, point, &mut lines))?;
                journal.append(&lines)?;
                Ok::<_, ExportError>(journal)
            });
            journal = written.await?;
        }
        let key = key.clone();
        blocking::run(move || {
            let mut lines = Vec::new();
            line::upload(&key, n_points, &mut lines)?;
            journal.append(&lines)?;
            journal.sync()
        })
        .await?;
        Ok(Sent { points: n_points, refused: 0 })
    }

    async fn send_event(&self, event: &metric_store::Event) -> Result<(), ExportError> {
        let event = event.clone();
        self.write(move |lines| line::event(&event, lines)).await
    }
}

#[cfg(test)]
mod tests;
