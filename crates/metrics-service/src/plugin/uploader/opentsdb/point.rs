//! Points as OpenTSDB wants them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plugin::{Error, options, series};
use stormkeeper_metrics::{MetricName, Minute, Point};

/// A number of a metric at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DataPoint {
    /// `{prefix}.{group}.{name}`, and the number's name unless it is the metric's principal one.
    pub(super) metric: String,
    /// Seconds since 1970.
    pub(super) timestamp: u64,
    /// The number.
    pub(super) value: serde_json::Value,
    /// What it is of, and what the configuration adds.
    pub(super) tags: BTreeMap<String, String>,
}

/// What all points have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    prefix: String,
    tags: BTreeMap<String, String>,
}

impl Shape {
    /// As the options say.
    ///
    /// # Errors
    /// Tags that points have already, or more than the server takes.
    pub(super) fn new(options: &options::OpenTsdb) -> Result<Self, Error> {
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

    /// The numbers of a metric in a minute.
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

/// The text with each character that OpenTSDB does not take replaced by `_`; never empty.
///
/// It takes letters of any script, but looks at 16 bits at a time, so none beyond U+FFFF.
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
