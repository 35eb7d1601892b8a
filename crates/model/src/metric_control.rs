//! Changes that operators made to the metrics of a running topology.

use serde::{Deserialize, Serialize};

/// Changes on top of the `topology.*` settings of metrics. Workers apply them while they run.
/// Names are the last parts of metric names, such as `EmitTime`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricControl {
    /// Metrics that are enabled although the settings disable them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enabled: Vec<String>,
    /// Metrics that are disabled. A metric in both lists is enabled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<String>,
    /// Share of values that are sorted into a histogram's buckets, in place of
    /// `topology.metric.sample.rate`. Always finite, because JSON has no other numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<f64>,
    /// Metrics that each worker writes to its log with every report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub debug: Vec<String>,
}

// The rate is never NaN.
impl Eq for MetricControl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_fields_are_written_and_unknown_fields_are_ignored() {
        let control = MetricControl { enabled: vec!["EmitTime".to_owned()], ..MetricControl::default() };
        let text = serde_json::to_string(&control).expect("JSON");
        assert_eq!(text, r#"{"enabled":["EmitTime"]}"#);
        assert_eq!(serde_json::from_str::<MetricControl>(&text).expect("read"), control);
        let newer = r#"{"sample_rate":0.5,"unknown":1}"#;
        let read: MetricControl = serde_json::from_str(newer).expect("read");
        assert_eq!(read.sample_rate, Some(0.5));
    }
}
