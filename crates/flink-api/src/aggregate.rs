//! Aggregates of one metric over jobs, task managers or subtasks.

use serde_json::{Map, Value};

/// Aggregate of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// Least number.
    Min,
    /// Greatest number.
    Max,
    /// Mean.
    Avg,
    /// Sum.
    Sum,
    /// Mean distance from the mean in percent of the mean, at most 100: 0 if all numbers are equal.
    Skew,
}

impl Aggregate {
    /// All aggregates, in the order of Flink's answers.
    pub const ALL: [Self; 5] = [Self::Min, Self::Max, Self::Avg, Self::Sum, Self::Skew];

    /// Name in queries and answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Sum => "sum",
            Self::Skew => "skew",
        }
    }

    /// Returns the aggregate of `numbers`; `None` without any.
    fn of(self, numbers: &[f64]) -> Option<f64> {
        let mean = sum(numbers) / numbers.len() as f64;
        let value = match self {
            _ if numbers.is_empty() => return None,
            Self::Min => numbers.iter().copied().fold(f64::MAX, f64::min),
            Self::Max => numbers.iter().copied().fold(f64::MIN, f64::max),
            Self::Avg => mean,
            Self::Sum => sum(numbers),
            Self::Skew => skew(numbers, mean),
        };
        Some(value)
    }
}

/// Sum that stays finite, as JSON has no infinite numbers.
fn sum(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>().clamp(f64::MIN, f64::MAX)
}

fn skew(numbers: &[f64], mean: f64) -> f64 {
    let distances: Vec<f64> = numbers.iter().map(|number| (number - mean).abs()).collect();
    let share = sum(&distances) / numbers.len() as f64 / mean.abs();
    // Without a mean there is nothing to compare with.
    if share.is_finite() { (100.0 * share).min(100.0) } else { 0.0 }
}

/// Returns the element of an answer for one metric; `None` if no number was found.
pub(crate) fn element(id: &str, numbers: &[f64], wanted: &[Aggregate]) -> Option<Value> {
    let mut element = Map::from_iter([("id".to_owned(), Value::from(id))]);
    for aggregate in Aggregate::ALL.iter().filter(|aggregate| wanted.contains(aggregate)) {
        element.insert(aggregate.word().to_owned(), aggregate.of(numbers)?.into());
    }
    (!numbers.is_empty()).then_some(Value::Object(element))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn aggregates_are_floats_in_the_order_of_flink() {
        let element = element("x", &[1.0, 2.0, 6.0], &Aggregate::ALL).expect("numbers");
        let expected = r#"{"id":"x","min":1.0,"max":6.0,"avg":3.0,"sum":9.0,"skew":66.66666666666666}"#;
        assert_eq!(element.to_string(), expected);
    }

    #[test]
    fn only_wanted_aggregates_are_in_the_answer() {
        let wanted = [Aggregate::Sum, Aggregate::Max];
        assert_eq!(element("x", &[4.0], &wanted), Some(json!({"id": "x", "max": 4.0, "sum": 4.0})));
        assert_eq!(element("x", &[], &wanted), None);
    }

    #[test]
    fn skew_of_equal_numbers_or_without_a_mean_is_zero_and_never_above_a_hundred() {
        assert_eq!(Aggregate::Skew.of(&[5.0, 5.0]), Some(0.0));
        assert_eq!(Aggregate::Skew.of(&[0.0, 0.0]), Some(0.0));
        assert_eq!(Aggregate::Skew.of(&[0.0, 0.0, 0.0, 9.0]), Some(100.0));
    }

    #[test]
    fn sum_of_large_numbers_is_a_number() {
        assert_eq!(Aggregate::Sum.of(&[f64::MAX, f64::MAX]), Some(f64::MAX));
    }
}
