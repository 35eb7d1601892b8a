//! Effective metric settings: the topology's settings, overridden by operators' changes.

use stormkeeper_metrics::Control;
use stormkeeper_model::metric_control::MetricControl;

/// Returns the topology's `settings` with the operators' `changes` applied. A change wins over a
/// setting; enabled wins over disabled.
pub(crate) fn with_changes(settings: &Control, changes: Option<&MetricControl>) -> Control {
    let mut control = settings.clone();
    let Some(changes) = changes else { return control };
    for name in &changes.disabled {
        control.enabled.remove(name);
        control.disabled.insert(name.clone());
    }
    for name in &changes.enabled {
        control.disabled.remove(name);
        control.enabled.insert(name.clone());
    }
    if let Some(rate) = changes.sample_rate {
        control.sample_rate = rate;
    }
    control.debug.extend(changes.debug.iter().cloned());
    control
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_overrides_setting() {
        let words = |word: &str| vec![word.to_owned()];
        let settings = Control { enabled: ["EmitTime".to_owned()].into(), ..Control::default() };
        let changes = MetricControl {
            enabled: words("Acked"),
            disabled: vec!["EmitTime".to_owned(), "Acked".to_owned()],
            sample_rate: Some(0.5),
            debug: words("Emitted"),
        };
        let control = with_changes(&settings, Some(&changes));
        assert!(control.enabled.contains("Acked") && !control.enabled.contains("EmitTime"));
        assert!(control.disabled.contains("EmitTime") && !control.disabled.contains("Acked"));
        assert!((control.sample_rate - 0.5).abs() < f64::EPSILON);
        assert!(control.debug.contains("Emitted"));
        assert_eq!(with_changes(&settings, None), settings);
    }
}
