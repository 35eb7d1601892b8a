//! What operators changed about the metrics of a running topology.

use serde::{Deserialize, Serialize};

/// Changes on top of the `topology.*` settings of metrics; workers follow them while they
/// run. Names are the last parts of metrics' names, such as `EmitTime`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricControl {
    /// Metrics that are measured although settings disable them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enabled: Vec<String>,
    /// Metrics that are not measured. One that is in both lists is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<String>,
    /// The share of values that go into a histogram's buckets, in place of
    /// `topology.metric.sample.rate`. Always finite: what is not, no JSON holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<f64>,
    /// Metrics that each worker writes to its log with every cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub debug: Vec<String>,
}

// The rate is never NaN.
impl Eq for MetricControl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_changed_is_written_and_read() {
        let control = MetricControl { enabled: vec!["EmitTime".to_owned()], ..MetricControl::default() };
        let text = serde_json::to_string(&control).expect("JSON");
        assert_eq!(text, r#"{"enabled":["EmitTime"]}"#);
        assert_eq!(serde_json::from_str::<MetricControl>(&text).expect("read"), control);
        let newer = r#"{"sample_rate":0.5,"unknown":1}"#;
        let read: MetricControl = serde_json::from_str(newer).expect("read");
        assert_eq!(read.sample_rate, Some(0.5));
    }
}
