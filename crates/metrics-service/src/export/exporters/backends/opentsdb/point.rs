//! Points in OpenTSDB's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spelling::{spell, spell_group, spell_name};
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
    /// Labels of the metric, the cluster, and the configured tags.
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
        let mut tags: BTreeMap<String, String> =
            options.tags.iter().map(|(key, value)| (spell(key), spell(value))).collect();
        if let Some(taken) = tags.keys().find(|key| series::LABELS.contains(&key.as_str())) {
            return Err(Error::TagTaken(taken.clone()));
        }
        // An operator's own tag wins: series that exist keep their names.
        tags.entry(series::CLUSTER.to_owned()).or_insert_with(|| spell(&options.cluster));
        if tags.len() + series::LABELS_MAX > options.max_tags {
            // The tag of the cluster is not an additional one, whoever has set it.
            let (extra, needed) = (tags.len() - 1, series::LABELS_MAX + 1);
            return Err(Error::TooManyTags { extra, needed, max: options.max_tags });
        }
        Ok(Self { prefix: spell(&options.prefix), tags })
    }

    /// Returns the points of a metric in a minute.
    pub(super) fn points(
        &self,
        name: &MetricName,
        minute: Minute,
        point: &Point,
    ) -> impl Iterator<Item = DataPoint> + use<> {
        let metric = spell_name(name.name(), series::NUMBERS);
        let metric = format!("{}.{}.{metric}", self.prefix, spell_group(name.group()));
        let mut tags = self.tags.clone();
        let labels = series::labels(name).into_iter();
        tags.extend(labels.map(|(label, value)| (label.to_owned(), spell(&value))));
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
