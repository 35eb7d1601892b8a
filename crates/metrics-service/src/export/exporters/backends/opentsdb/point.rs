//! Points in OpenTSDB's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::export::exporters::{Error, options, series};
use stormkeeper_metrics::{MetricName, Minute, Point};

/// One number of a metric at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DataPoint {
    /// `{prefix}.{group}.{name}`, and the number's name unless it is the principal one.
    pub(super) metric: String,
    /// Seconds since 1970.
    pub(super) timestamp: u64,
    /// Value of the number.
    pub(super) value: serde_json::Value,
    /// Labels of the metric, and the configured tags.
    pub(super) tags: BTreeMap<String, String>,
}

/// Parts that all points have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PointTemplate {
    prefix: String,
    tags: BTreeMap<String, String>,
}

impl PointTemplate {
    /// Template with the prefix and the tags of the options.
    ///
    /// # Errors
    /// If a tag is one that points have, or if there are more than the server accepts.
    pub(super) fn new(options: &options::OpenTsdbOptions) -> Result<Self, Error> {
        let tags: BTreeMap<String, String> =
            options.tags.iter().map(|(key, value)| (plain(key), plain(value))).collect();
        if let Some(taken) = tags.keys().find(|key| series::LABELS.contains(&key.as_str())) {
            return Err(Error::TagTaken(taken.clone()));
        }
        if tags.len() + series::LABELS_MAX > options.max_tags {
            let (extra, needed, max) = (tags.len(), series::LABELS_MAX, options.max_tags);
            return Err(Error::TooManyTags { extra, needed, max });
        }
        Ok(Self { prefix: plain(&options.prefix), tags })
    }

    /// Returns the points of a metric in a minute.
    pub(super) fn points(
        &self,
        name: &MetricName,
        minute: Minute,
        point: &Point,
    ) -> impl Iterator<Item = DataPoint> + use<> {
        let metric = plain(&format!("{}.{}.{}", self.prefix, name.group(), name.name()));
        let mut tags = self.tags.clone();
        let labels = series::labels(name).into_iter();
        tags.extend(labels.map(|(label, value)| (label.to_owned(), plain(&value))));
        let principal = series::principal(name.kind());
        series::of(name, point).into_iter().map(move |number| DataPoint {
            metric: match principal == Some(number.name) {
                true => metric.clone(),
                false => format!("{metric}.{}", number.name),
            },
            timestamp: series::timestamp(minute),
            value: number.value.to_json(),
            tags: tags.clone(),
        })
    }
}

/// Replaces each character that OpenTSDB rejects with `_`; never empty.
///
/// OpenTSDB accepts letters of any script, but examines 16 bits at a time, so none beyond U+FFFF.
pub(super) fn plain(text: &str) -> String {
    let takes = |c: char| match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'),
        false => c.is_alphabetic() && u32::from(c) <= 0xFFFF,
    };
    match text.is_empty() {
        true => "_".to_owned(),
        false => text.chars().map(|c| if takes(c) { c } else { '_' }).collect(),
    }
}
