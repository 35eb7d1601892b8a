//! `alimonitor`: posts forms to an agent of Alimonitor on this machine.
//!
//! A request is a form of two fields: `name`, the monitor, and `msg`, a JSON object:
//!
//! ```text
//! {"collection_flag": 0, "error_info": "", "MSG": [{"name": "5@1@wc-1@@0@sys@Emitted", "time": 1700000040, "count": 7}, …]}
//! ```
//!
//! A flag that is not 0 says that there was nothing to be measured with, and `error_info` why;
//! then `MSG` is empty. Nothing is sent for an entry without metrics. The agent takes numbers
//! only, each with its name, so that neither metas nor events are sent.

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::warn;

use super::{
    http::{Poster, url},
    payload::Payload,
};
use crate::plugin::{Error, ExportError, MetricExporter, PayloadSource, Sent, options, series};
use stormkeeper_metric_store::UploadKey;
use stormkeeper_metrics::{MetaType, MetricName, Minute, Point};

/// Metrics in one request: about 100 KB, which any agent takes.
const BATCH: usize = 200;

/// All is well.
const FLAG_FINE: i32 = 0;

/// The metrics could not be read.
const FLAG_UNREADABLE: i32 = 1;

/// See the [module](self).
#[derive(Debug)]
pub struct Alimonitor {
    options: options::Alimonitor,
    poster: Poster,
}

#[derive(Serialize)]
struct Message<'a> {
    collection_flag: i32,
    error_info: &'a str,
    #[serde(rename = "MSG")]
    msg: &'a [Value],
}

impl Alimonitor {
    /// One that posts to the URL of the options.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Http`].
    pub fn new(options: options::Alimonitor) -> Result<Self, Error> {
        let url = url(&options.url, "http://127.0.0.1:15776/passive")?;
        let poster = Poster::new(url, options.timeout)?;
        Ok(Self { options, poster })
    }

    #[cfg(test)]
    pub(super) fn hurried(mut self) -> Self {
        self.poster = self.poster.hurried();
        self
    }

    async fn send(&self, flag: i32, error: &str, metrics: &[Value]) -> Result<(), ExportError> {
        let message = Message { collection_flag: flag, error_info: error, msg: metrics };
        let message = serde_json::to_string(&message).map_err(|source| ExportError::Unwritable {
            what: "a message",
            form: "JSON",
            source,
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let body = form(&[("name", &self.options.monitor_name), ("msg", &message)]);
        self.poster.post_all(&headers, body).await
    }

    async fn send_all(&self, key: &UploadKey, source: &dyn PayloadSource) -> Result<Sent, ExportError> {
        let mut payload = Payload::new(source, &self.options.levels);
        let mut sent = Sent::default();
        while let Some(page) = payload.next().await? {
            let metrics: Vec<(usize, Value)> =
                page.iter().map(|(meta, point)| metric(&meta.name, key.minute, point)).collect();
            for batch in metrics.chunks(BATCH) {
                let values: Vec<Value> = batch.iter().map(|(_, value)| value.clone()).collect();
                self.send(FLAG_FINE, "", &values).await?;
                sent.points += batch.iter().map(|(n, _)| *n as u64).sum::<u64>();
            }
        }
        Ok(sent)
    }
}

#[async_trait]
impl MetricExporter for Alimonitor {
    fn name(&self) -> &str {
        "alimonitor"
    }

    fn levels(&self) -> &[MetaType] {
        &self.options.levels
    }

    async fn upload(&self, key: &UploadKey, source: &dyn PayloadSource) -> Result<Sent, ExportError> {
        let done = self.send_all(key, source).await;
        if let Err(ExportError::Payload(error)) = &done {
            // The monitor is to know that nothing comes; whether it took that changes nothing.
            if let Err(error) = self.send(FLAG_UNREADABLE, &error.to_string(), &[]).await {
                warn!(%error, "alimonitor could not be told that the metrics are unreadable");
            }
        }
        done
    }
}

/// A metric with its numbers, and how many these are.
fn metric(name: &MetricName, minute: Minute, point: &Point) -> (usize, Value) {
    let mut metric = Map::new();
    metric.insert("name".to_owned(), name.to_string().into());
    metric.insert("time".to_owned(), series::timestamp(minute).into());
    let numbers = series::of(name, point);
    metric.extend(numbers.iter().map(|number| (number.name.to_owned(), number.value.to_json())));
    (numbers.len(), Value::Object(metric))
}

/// Fields as the body of a form.
fn form(fields: &[(&str, &str)]) -> Bytes {
    let mut url = Url::parse("form:").expect("a scheme is a URL");
    url.query_pairs_mut().extend_pairs(fields);
    Bytes::from(url.query().unwrap_or_default().to_owned())
}
