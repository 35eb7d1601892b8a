//! `alimonitor`: posts forms to an Alimonitor agent on this host.
//!
//! A request is a form of two fields: `name`, the monitor, and `msg`, a JSON object:
//!
//! ```text
//! {"cluster": "default", "collection_flag": 0, "error_info": "",
//!  "MSG": [{"name": "5@1@wc-1@@0@sys@Emitted", "time": 1700000040, "count": 7}, …]}
//! ```
//!
//! A flag other than 0 means that the metrics could not be read, and `error_info` has the reason;
//! then `MSG` is empty. No request is sent for an entry without metrics. The agent accepts only
//! named numbers, so neither metas nor events are sent.

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
    http::{HttpPoster, url},
    payload::Payload,
};
use crate::export::exporters::{
    Error, ExportCounts, ExportError, MetricExporter, PayloadSource, options, series,
};
use stormkeeper_metric_store::ExportKey;
use stormkeeper_metrics::{MetaType, MetricName, Minute, Point};

/// Maximum number of metrics in one request: about 100 KB, which any agent accepts.
const BATCH: usize = 200;

/// Flag of a message with metrics.
const FLAG_FINE: i32 = 0;

/// Flag of a message without metrics, because they cannot be read.
const FLAG_UNREADABLE: i32 = 1;

/// Exporter `alimonitor`; see the [module](self).
#[derive(Debug)]
pub struct Alimonitor {
    options: options::AlimonitorOptions,
    poster: HttpPoster,
}

#[derive(Serialize)]
struct Message<'a> {
    cluster: &'a str,
    collection_flag: i32,
    error_info: &'a str,
    #[serde(rename = "MSG")]
    msg: &'a [Value],
}

impl Alimonitor {
    /// Exporter to the URL of the options.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Http`].
    pub fn new(options: options::AlimonitorOptions) -> Result<Self, Error> {
        let url = url(&options.url, "http://127.0.0.1:15776/passive")?;
        let poster = HttpPoster::new(url, options.timeout)?;
        Ok(Self { options, poster })
    }

    #[cfg(test)]
    pub(super) fn with_short_pauses(mut self) -> Self {
        self.poster = self.poster.with_short_pauses();
        self
    }

    async fn send(&self, flag: i32, error: &str, metrics: &[Value]) -> Result<(), ExportError> {
        let cluster = &self.options.cluster;
        let message = Message { cluster, collection_flag: flag, error_info: error, msg: metrics };
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

    async fn send_all(
        &self,
        key: &ExportKey,
        source: &dyn PayloadSource,
    ) -> Result<ExportCounts, ExportError> {
        let mut payload = Payload::new(source, &self.options.levels);
        let mut sent = ExportCounts::default();
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

    async fn export(&self, key: &ExportKey, source: &dyn PayloadSource) -> Result<ExportCounts, ExportError> {
        let done = self.send_all(key, source).await;
        if let Err(ExportError::Payload(error)) = &done {
            // Reports to the monitor why no metrics follow; a failure of the report changes nothing.
            if let Err(error) = self.send(FLAG_UNREADABLE, &error.to_string(), &[]).await {
                warn!(%error, "cannot report to alimonitor that the metrics are unreadable");
            }
        }
        done
    }
}

/// Returns a metric with its numbers as JSON, and the number of numbers.
fn metric(name: &MetricName, minute: Minute, point: &Point) -> (usize, Value) {
    let mut metric = Map::new();
    metric.insert("name".to_owned(), name.to_string().into());
    metric.insert("time".to_owned(), series::timestamp(minute).into());
    let numbers = series::of(name, point);
    metric.extend(numbers.iter().map(|number| (number.name.to_owned(), number.value.to_json())));
    (numbers.len(), Value::Object(metric))
}

/// Encodes fields as the body of a form.
fn form(fields: &[(&str, &str)]) -> Bytes {
    let mut url = Url::parse("form:").expect("a scheme is a URL");
    url.query_pairs_mut().extend_pairs(fields);
    Bytes::from(url.query().unwrap_or_default().to_owned())
}
