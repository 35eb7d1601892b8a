//! `opentsdb`: posts each number as a point to `/api/put` of OpenTSDB 2, or of a compatible server,
//! such as VictoriaMetrics.
//!
//! - A batch is a JSON array, gzipped, with a Content-Length: OpenTSDB rejects chunked bodies by
//!   default.
//! - If the server is down, slow, overloaded, or at a wrong address, the entry stays in the queue.
//!   Points that the server will never accept are counted, and the reason of the first is logged.
//! - Points are identified by metric, tags and time: a repeated point replaces the stored one, or is
//!   stored beside it: `docs/exporters.md` explains how to read such points.
//! - Events of topologies are sent to `/api/annotation` if configured.

mod annotation;
mod point;
mod response;

use std::io::Write as _;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use tracing::warn;

use self::{
    point::{DataPoint, PointTemplate},
    response::PutResponse,
};
use super::{
    http::{HttpPoster, url},
    payload::Payload,
};
use crate::export::exporters::{Error, ExportCounts, ExportError, MetricExporter, PayloadSource, options};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::ExportKey;
use stormkeeper_metrics::MetaType;

/// Maximum number of attempts to send a batch of which the server accepts only a part.
const ATTEMPTS: usize = 4;

/// Maximum number of batches of one entry that are halved to find the points that the server rejects
/// without naming them: enough for a dozen such points. Then whole batches count as rejected.
const SEARCHES_MAX: usize = 100;

/// Exporter `opentsdb`; see the [module](self).
#[derive(Debug)]
pub struct OpenTsdb {
    options: options::OpenTsdbOptions,
    template: PointTemplate,
    poster: HttpPoster,
    /// Client for events, if they are sent.
    annotations: Option<HttpPoster>,
}

/// Counts of one entry.
#[derive(Debug, Default)]
struct Tally {
    sent: ExportCounts,
    n_searches: usize,
    /// Server's text for the first rejected point.
    message: Option<String>,
}

/// Result of one batch, after retries.
enum BatchOutcome {
    /// The batch is stored, except points that will never be accepted.
    Stored {
        refused: u64,
        message: Option<String>,
    },
    TooLong,
    /// Nothing is stored, because of bad points that the server does not name.
    RejectedUnnamed {
        message: String,
    },
}

impl OpenTsdb {
    /// Exporter to the server of the options.
    ///
    /// # Errors
    /// [`Error`] for a URL or tags that cannot work.
    pub fn new(options: options::OpenTsdbOptions) -> Result<Self, Error> {
        let server = url(&options.url, "http://127.0.0.1:4242")?;
        let endpoint = |path: &str| {
            let mut url = server.clone();
            url.set_path(&format!("{}{path}", server.path().trim_end_matches('/')));
            url.set_query(None);
            url
        };
        let mut put = endpoint("/api/put");
        put.set_query(Some("details"));
        let template = PointTemplate::new(&options)?;
        let poster = HttpPoster::new(put, options.timeout)?;
        let annotations = options.annotates.then(|| poster.to(endpoint("/api/annotation")));
        Ok(Self { options, template, poster, annotations })
    }

    #[cfg(test)]
    fn with_short_pauses(mut self) -> Self {
        self.poster = self.poster.with_short_pauses();
        self.annotations = self.annotations.map(HttpPoster::with_short_pauses);
        self
    }

    /// Sends a batch. Halves it while it is too long for the server, or while the points that the
    /// server rejects are unknown.
    async fn put(&self, points: &[DataPoint], tally: &mut Tally) -> Result<(), ExportError> {
        let mut waiting = vec![points];
        while let Some(points) = waiting.pop() {
            match self.put_with_retries(points).await? {
                BatchOutcome::Stored { refused, message } => tally.add(points.len() as u64, refused, message),
                BatchOutcome::TooLong if points.len() > 1 => waiting.extend(halves(points)),
                BatchOutcome::TooLong => tally.add(1, 1, Some("413: one point is too long".to_owned())),
                BatchOutcome::RejectedUnnamed { .. }
                    if points.len() > 1 && tally.n_searches < SEARCHES_MAX =>
                {
                    tally.n_searches += 1;
                    waiting.extend(halves(points));
                }
                BatchOutcome::RejectedUnnamed { message } => {
                    tally.add(points.len() as u64, points.len() as u64, Some(message))
                }
            }
        }
        Ok(())
    }

    /// Sends a batch until the server has stored all points that it will ever accept.
    async fn put_with_retries(&self, points: &[DataPoint]) -> Result<BatchOutcome, ExportError> {
        let body = gzip(points)?;
        let mut backoff = self.poster.backoff();
        let mut attempt = 1;
        loop {
            let answer = self.poster.post(&headers(Some("gzip")), body.clone()).await?;
            match response::of(&answer) {
                PutResponse::Stored { refused, message } => {
                    return Ok(BatchOutcome::Stored { refused, message });
                }
                PutResponse::TooLong => return Ok(BatchOutcome::TooLong),
                PutResponse::RejectedUnnamed { message } => {
                    return Ok(BatchOutcome::RejectedUnnamed { message });
                }
                PutResponse::Unexpected => return Err(self.poster.error_of(&answer)),
                PutResponse::RetryLater { n, message } if attempt == ATTEMPTS => {
                    return Err(ExportError::Throttled { url: self.poster.url().to_owned(), n, message });
                }
                // The whole batch is sent again: stored points are replaced by equal ones.
                PutResponse::RetryLater { .. } => tokio::time::sleep(backoff.next_delay()).await,
            }
            attempt += 1;
        }
    }
}

#[async_trait]
impl MetricExporter for OpenTsdb {
    fn name(&self) -> &str {
        "opentsdb"
    }

    fn levels(&self) -> &[MetaType] {
        &self.options.levels
    }

    async fn export(&self, key: &ExportKey, source: &dyn PayloadSource) -> Result<ExportCounts, ExportError> {
        let mut payload = Payload::new(source, &self.options.levels);
        let mut tally = Tally::default();
        let mut waiting = Vec::new();
        while let Some(page) = payload.next().await? {
            for (meta, point) in &page {
                waiting.extend(self.template.points(&meta.name, key.minute, point));
                while waiting.len() >= self.options.batch {
                    let rest = waiting.split_off(self.options.batch);
                    self.put(&std::mem::replace(&mut waiting, rest), &mut tally).await?;
                }
            }
        }
        if !waiting.is_empty() {
            self.put(&waiting, &mut tally).await?;
        }
        if let Some(message) = tally.message {
            // One line per entry, whatever the number of points.
            warn!(
                %key,
                rejected = tally.sent.refused,
                first = message,
                "OpenTSDB rejected points for good; they are dropped"
            );
        }
        Ok(tally.sent)
    }

    async fn send_event(&self, event: &metric_store::HistoryEvent) -> Result<(), ExportError> {
        let (Some(poster), Some(body)) = (&self.annotations, annotation::of(event)) else { return Ok(()) };
        poster.post_all(&headers(None), Bytes::from(body.to_string())).await
    }
}

impl Tally {
    /// Counts `n` sent points, of which `refused` were rejected.
    fn add(&mut self, n: u64, refused: u64, message: Option<String>) {
        // A server that counts differently cannot have rejected more points than it received.
        let refused = refused.min(n);
        self.sent.points += n - refused;
        self.sent.refused += refused;
        if refused > 0 && self.message.is_none() {
            self.message = Some(message.unwrap_or_default());
        }
    }
}

/// Halves of a batch, the second one first: the next batch is taken from the end.
fn halves(points: &[DataPoint]) -> [&[DataPoint]; 2] {
    let (first, second) = points.split_at(points.len() / 2);
    [second, first]
}

fn headers(encoding: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(encoding.map(|encoding| (CONTENT_ENCODING, HeaderValue::from_static(encoding))));
    headers
}

/// Encodes the points as a gzipped JSON array. A batch takes about a millisecond.
fn gzip(points: &[DataPoint]) -> Result<Bytes, ExportError> {
    let unwritable = |source| ExportError::Unwritable { what: "a batch", form: "gzipped JSON", source };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut gzip, points).map_err(unwritable)?;
    gzip.flush()
        .and_then(|()| gzip.finish())
        .map(Bytes::from)
        .map_err(|error| unwritable(serde_json::Error::io(error)))
}

#[cfg(test)]
mod tests;
