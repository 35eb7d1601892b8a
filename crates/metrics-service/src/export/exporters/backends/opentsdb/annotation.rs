//! Events of topologies as OpenTSDB's global annotations.
//!
//! OpenTSDB identifies a global annotation by its second alone, and keeps the last one of a second.
//! Moves of tasks, of which there are many at once, are not sent: they would replace the others.

use serde_json::{Value, json};

use stormkeeper_metric_store::HistoryEvent;

/// Returns the annotation of an event; `None` for an event that is not sent.
pub(super) fn of(cluster: &str, event: &HistoryEvent) -> Option<Value> {
    let (description, by) = match event {
        HistoryEvent::TopologyStarted { name, by, .. } => (format!("topology {name} started"), by),
        HistoryEvent::SampleRateChanged { topology, sample_rate, by, .. } => {
            (format!("topology {topology} samples {sample_rate} of its values"), by)
        }
        HistoryEvent::TopologyKilled { topology, by, reason, .. } => {
            (format!("topology {topology} killed: {reason}"), by)
        }
        HistoryEvent::TaskPlaced { .. } | HistoryEvent::TaskGone { .. } => return None,
    };
    let mut custom = json!({ "cluster": cluster, "topology": event.topology() });
    if let Some(by) = by {
        custom["by"] = by.clone().into();
    }
    Some(json!({
        "startTime": event.at().as_millis() / 1000,
        "description": description,
        "custom": custom,
    }))
}
