//! `opentsdb`: posts each number as a point to `/api/put` of OpenTSDB 2, or of a server that
//! takes its place, such as VictoriaMetrics.
//!
//! - A batch is a JSON array, gzipped, with a Content-Length: OpenTSDB takes no chunked bodies
//!   unless it is told to.
//! - A server that is away, slow, overloaded or of a wrong address leaves the entry in the queue.
//!   A point that it will never take is counted, and the log says why for the first.
//! - Points are known by metric, tags and time: what comes again replaces what is there, or
//!   stands beside it: `docs/metrics-plugins.md` says how to read that.
//! - What happens to topologies goes to `/api/annotation`, when that is asked for.

mod annotation;
mod point;
mod verdict;

use std::io::Write as _;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use tracing::warn;

use self::{
    point::{DataPoint, Shape},
    verdict::Verdict,
};
use super::{
    http::{Poster, url},
    payload::Payload,
};
use crate::plugin::{Error, ExportError, MetricExporter, PayloadSource, Sent, options};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::UploadKey;
use stormkeeper_metrics::MetaType;

/// How often a batch is sent of which the server takes only a part.
const ATTEMPTS: usize = 4;

/// How often batches of one entry are halved to find the points that the server refuses without
/// saying which: enough for a dozen of them. Then whole batches count as refused.
const SEARCHES_MAX: usize = 100;

/// See the [module](self).
#[derive(Debug)]
pub struct OpenTsdb {
    options: options::OpenTsdb,
    shape: Shape,
    poster: Poster,
    /// For events, unless they are not sent.
    annotations: Option<Poster>,
}

/// What became of an entry so far.
#[derive(Debug, Default)]
struct Tally {
    sent: Sent,
    n_searches: usize,
    /// What the server said of the first point that it refused.
    said: Option<String>,
}

/// What became of a batch that was sent at once.
enum Put {
    /// All of it, but for so many that will never be taken, is stored.
    Stored {
        refused: u64,
        said: Option<String>,
    },
    TooLong,
    /// Nothing is stored, because of some points that the server does not name.
    Mixed {
        said: String,
    },
}

impl OpenTsdb {
    /// One that posts to the server of the options.
    ///
    /// # Errors
    /// [`Error`] for a URL or tags that cannot work.
    pub fn new(options: options::OpenTsdb) -> Result<Self, Error> {
        let server = url(&options.url, "http://127.0.0.1:4242")?;
        let door = |path: &str| {
            let mut url = server.clone();
            url.set_path(&format!("{}{path}", server.path().trim_end_matches('/')));
            url.set_query(None);
            url
        };
        let mut put = door("/api/put");
        put.set_query(Some("details"));
        let shape = Shape::new(&options)?;
        let poster = Poster::new(put, options.timeout)?;
        let annotations = options.annotates.then(|| poster.to(door("/api/annotation")));
        Ok(Self { options, shape, poster, annotations })
    }

    #[cfg(test)]
    fn hurried(mut self) -> Self {
        self.poster = self.poster.hurried();
        self.annotations = self.annotations.map(Poster::hurried);
        self
    }

    /// Sends a batch, in halves while it is too long for the server, or while nobody knows
    /// which of its points the server does not take.
    async fn put(&self, points: &[DataPoint], tally: &mut Tally) -> Result<(), ExportError> {
        let mut waiting = vec![points];
        while let Some(points) = waiting.pop() {
            match self.put_at_once(points).await? {
                Put::Stored { refused, said } => tally.add(points.len() as u64, refused, said),
                Put::TooLong if points.len() > 1 => waiting.extend(halves(points)),
                Put::TooLong => tally.add(1, 1, Some("413: one point is too long".to_owned())),
                Put::Mixed { .. } if points.len() > 1 && tally.n_searches < SEARCHES_MAX => {
                    tally.n_searches += 1;
                    waiting.extend(halves(points));
                }
                Put::Mixed { said } => tally.add(points.len() as u64, points.len() as u64, Some(said)),
            }
        }
        Ok(())
    }

    /// Sends a batch until the server took what it will ever take of it.
    async fn put_at_once(&self, points: &[DataPoint]) -> Result<Put, ExportError> {
        let body = gzip(points)?;
        let mut backoff = self.poster.backoff();
        let mut attempt = 1;
        loop {
            let answer = self.poster.post(&headers(Some("gzip")), body.clone()).await?;
            match verdict::of(&answer) {
                Verdict::Stored { refused, said } => return Ok(Put::Stored { refused, said }),
                Verdict::TooLong => return Ok(Put::TooLong),
                Verdict::Mixed { said } => return Ok(Put::Mixed { said }),
                Verdict::Fault => return Err(self.poster.fault(&answer)),
                Verdict::NotNow { n, said } if attempt == ATTEMPTS => {
                    return Err(ExportError::Throttled { url: self.poster.url().to_owned(), n, said });
                }
                // All of it goes again: what is there is replaced by the same.
                Verdict::NotNow { .. } => tokio::time::sleep(backoff.next_delay()).await,
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

    async fn upload(&self, key: &UploadKey, source: &dyn PayloadSource) -> Result<Sent, ExportError> {
        let mut payload = Payload::new(source, &self.options.levels);
        let mut tally = Tally::default();
        let mut waiting = Vec::new();
        while let Some(page) = payload.next().await? {
            for (meta, point) in &page {
                waiting.extend(self.shape.points(&meta.name, key.minute, point));
                while waiting.len() >= self.options.batch {
                    let rest = waiting.split_off(self.options.batch);
                    self.put(&std::mem::replace(&mut waiting, rest), &mut tally).await?;
                }
            }
        }
        if !waiting.is_empty() {
            self.put(&waiting, &mut tally).await?;
        }
        if let Some(said) = tally.said {
            // One line for an entry, however many they are.
            warn!(%key, refused = tally.sent.refused, first = said, "OpenTSDB refuses points for good");
        }
        Ok(tally.sent)
    }

    async fn send_event(&self, event: &metric_store::Event) -> Result<(), ExportError> {
        let (Some(poster), Some(body)) = (&self.annotations, annotation::of(event)) else { return Ok(()) };
        poster.post_all(&headers(None), Bytes::from(body.to_string())).await
    }
}

impl Tally {
    /// `n` points were sent, of which some were refused.
    fn add(&mut self, n: u64, refused: u64, said: Option<String>) {
        // A server that counts otherwise than we do cannot have refused more than it got.
        let refused = refused.min(n);
        self.sent.points += n - refused;
        self.sent.refused += refused;
        if refused > 0 && self.said.is_none() {
            self.said = Some(said.unwrap_or_default());
        }
    }
}

/// The later half first: what waits is taken from the end.
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

/// The points as a JSON array, gzipped. A batch takes about a millisecond.
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
