//! `opentsdb`: posts each number as a point to `/api/put` of OpenTSDB 2, or of a compatible server,
//! such as VictoriaMetrics.
//!
//! - A batch is a JSON array, gzipped, with a Content-Length: OpenTSDB rejects chunked bodies by
//!   default. Before a point counts as rejected by a server that does not name its bad points, the
//!   point is sent plainly; a server that accepts it so gets all bodies plainly from then on.
//! - If the server is down, slow, overloaded, or at a wrong address, the entry stays in the queue.
//!   Points that the server will never accept are counted, and the reason of the first is logged.
//! - Points are identified by metric, tags and time: a repeated point replaces the stored one, or is
//!   stored beside it: `docs/exporters.md` explains how to read such points.
//! - Events of topologies are sent to `/api/annotation` if configured.

mod annotation;
mod encoding;
mod point;
mod response;
mod spelling;

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use tracing::warn;

use self::{
    encoding::Encoding,
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
    /// True once the server has rejected gzip and accepted the same points plainly.
    is_plain: AtomicBool,
    /// Server's text for the last rejected points. Held for one assignment.
    last_rejection: Mutex<Option<String>>,
}

/// Counts of one entry.
#[derive(Debug, Default)]
struct Tally {
    sent: ExportCounts,
    n_searches: usize,
    /// True if plain bodies were tried.
    is_plain_tried: bool,
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
    /// Nothing is stored: the server does not accept gzip, and says so.
    EncodingRejected {
        error: ExportError,
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
        let (is_plain, last_rejection) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { options, template, poster, annotations, is_plain, last_rejection })
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
            let encoding = self.encoding();
            match self.put_with_retries(points, encoding).await? {
                BatchOutcome::Stored { refused, message } => tally.add(points.len() as u64, refused, message),
                BatchOutcome::TooLong if points.len() > 1 => waiting.extend(halves(points)),
                BatchOutcome::TooLong => tally.add(1, 1, Some("413: one point is too long".to_owned())),
                BatchOutcome::EncodingRejected { error } => match self.accepts_plain(points).await? {
                    true => waiting.push(points),
                    false => return Err(error),
                },
                BatchOutcome::RejectedUnnamed { message } => {
                    let searches_on = points.len() > 1 && tally.n_searches < SEARCHES_MAX;
                    // At the first rejection, and again before any point is given up.
                    let tries_plain = encoding == Encoding::Gzip && !(searches_on && tally.is_plain_tried);
                    tally.is_plain_tried |= tries_plain;
                    if tries_plain && self.accepts_plain(points).await? {
                        waiting.push(points);
                    } else if searches_on {
                        tally.n_searches += 1;
                        waiting.extend(halves(points));
                    } else {
                        tally.add(points.len() as u64, points.len() as u64, Some(message));
                    }
                }
            }
        }
        Ok(())
    }

    fn encoding(&self) -> Encoding {
        match self.is_plain.load(Ordering::Relaxed) {
            true => Encoding::Plain,
            false => Encoding::Gzip,
        }
    }

    /// Sends as many of these points as a plain body may have, after the server has rejected all of
    /// them gzipped. If it accepts them, and rejects the same ones gzipped, all further bodies are
    /// plain.
    async fn accepts_plain(&self, all: &[DataPoint]) -> Result<bool, ExportError> {
        let mut points = all;
        let outcome = loop {
            match self.put_with_retries(points, Encoding::Plain).await {
                Ok(BatchOutcome::TooLong) if points.len() > 1 => points = halves(points)[1],
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(BatchOutcome::Stored { .. }) => {}
            Ok(_) | Err(ExportError::Answered { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        // These may be good points of a batch that was rejected for another one.
        let is_part = points.len() < all.len();
        if is_part && let BatchOutcome::Stored { .. } = self.put_with_retries(points, Encoding::Gzip).await? {
            return Ok(false);
        }
        warn!(
            url = self.poster.url(),
            "the server rejects gzip and accepts plain bodies; sending plain bodies from now on"
        );
        self.is_plain.store(true, Ordering::Relaxed);
        Ok(true)
    }

    /// Sends a batch until the server has stored all points that it will ever accept.
    async fn put_with_retries(
        &self,
        points: &[DataPoint],
        encoding: Encoding,
    ) -> Result<BatchOutcome, ExportError> {
        let Some(body) = encoding.body(points)? else { return Ok(BatchOutcome::TooLong) };
        let headers = encoding.headers();
        let mut backoff = self.poster.backoff();
        let mut attempt = 1;
        loop {
            let answer = self.poster.post(&headers, body.clone()).await?;
            match response::of(&answer) {
                PutResponse::Stored { refused, message } => {
                    return Ok(BatchOutcome::Stored { refused, message });
                }
                PutResponse::TooLong => return Ok(BatchOutcome::TooLong),
                PutResponse::RejectedUnnamed { message } => {
                    return Ok(BatchOutcome::RejectedUnnamed { message });
                }
                PutResponse::EncodingRejected if encoding == Encoding::Gzip => {
                    return Ok(BatchOutcome::EncodingRejected { error: self.poster.error_of(&answer) });
                }
                PutResponse::EncodingRejected | PutResponse::Unexpected => {
                    return Err(self.poster.error_of(&answer));
                }
                PutResponse::RetryLater { n, message } if attempt == ATTEMPTS => {
                    return Err(ExportError::Throttled { url: self.poster.url(), n, message });
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
                first = message.as_str(),
                "OpenTSDB rejected points for good; they are dropped"
            );
            *self.last_rejection.lock().expect("nobody panics with it") = Some(message);
        }
        Ok(tally.sent)
    }

    async fn send_event(&self, event: &metric_store::HistoryEvent) -> Result<(), ExportError> {
        let annotation = annotation::of(&self.options.cluster, event);
        let (Some(poster), Some(body)) = (&self.annotations, annotation) else { return Ok(()) };
        poster.post_all(&Encoding::Plain.headers(), Bytes::from(body.to_string())).await
    }

    fn last_rejection(&self) -> Option<String> {
        self.last_rejection.lock().expect("nobody panics with it").clone()
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

#[cfg(test)]
mod tests;
