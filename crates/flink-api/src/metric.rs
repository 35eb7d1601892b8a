//! Metrics of one job, task manager, vertex or subtask, and Flink's answers about them.

use std::{borrow::Cow, collections::BTreeSet, fmt, sync::Arc};

use serde_json::{Value as Json, json};

use crate::{Aggregate, aggregate};

/// MetricNumber of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricNumber {
    /// A count.
    Whole(u64),
    /// Any other number. Finite.
    Real(f64),
}

impl MetricNumber {
    /// Returns the value as a number.
    pub fn number(self) -> f64 {
        match self {
            Self::Whole(count) => count as f64,
            Self::Real(number) => number,
        }
    }
}

impl fmt::Display for MetricNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(count) => count.fmt(f),
            Self::Real(number) => number.fmt(f),
        }
    }
}

/// Reading of a metric, which has one value or, for a distribution, several.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// One value.
    Single(MetricNumber),
    /// A value for each of [`Distribution::SUFFIXES`].
    Distribution(Box<Distribution>),
}

/// Values of a histogram, in the order of [`Distribution::SUFFIXES`].
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution(pub [f64; 11]);

impl Distribution {
    /// Ends of the names of the values, after the name of the histogram and `_`.
    pub const SUFFIXES: [&'static str; 11] =
        ["min", "max", "mean", "median", "stddev", "p75", "p90", "p95", "p98", "p99", "p999"];
}

/// Metrics by name.
///
/// A histogram is one entry, although it has eleven names: a table of 20,000 tasks fits into
/// memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricTable(Vec<(Arc<str>, Reading)>);

impl FromIterator<(Arc<str>, Reading)> for MetricTable {
    /// Keeps the first of several readings with one name.
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Reading)>>(readings: I) -> Self {
        let mut readings: Vec<_> = readings.into_iter().collect();
        readings.sort_by(|a, b| a.0.cmp(&b.0));
        readings.dedup_by(|later, first| later.0 == first.0);
        readings.shrink_to_fit();
        Self(readings)
    }
}

impl MetricTable {
    /// Returns the value of a name.
    pub fn get(&self, name: &str) -> Option<MetricNumber> {
        if let Some(Reading::Single(value)) = self.reading(name) {
            return Some(*value);
        }
        let (histogram, suffix) = name.rsplit_once('_')?;
        let at = Distribution::SUFFIXES.iter().position(|known| *known == suffix)?;
        match self.reading(histogram)? {
            Reading::Distribution(values) => Some(MetricNumber::Real(values.0[at])),
            Reading::Single(_) => None,
        }
    }

    fn reading(&self, name: &str) -> Option<&Reading> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// Returns all names, sorted by metric.
    pub fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.0.iter().flat_map(|(name, reading)| {
            let suffixes: &[&str] = match reading {
                Reading::Single(_) => &[],
                Reading::Distribution(_) => &Distribution::SUFFIXES,
            };
            let single = suffixes.is_empty().then(|| Cow::Borrowed(&**name));
            single
                .into_iter()
                .chain(suffixes.iter().map(move |suffix| Cow::Owned(format!("{name}_{suffix}"))))
        })
    }

    /// Number of metrics.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without metrics.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns the names that `name` gives to the metrics of each table.
fn list<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Json {
    names.into_iter().map(|name| json!({ "id": name.as_ref() })).collect()
}

/// Answer about one table: all names, or the values of the wanted names that exist.
pub fn of_one(table: Option<&MetricTable>, wanted: Option<&[&str]>) -> Json {
    let Some(table) = table else { return json!([]) };
    match wanted {
        None => list(table.names()),
        Some(wanted) => values(wanted, |name| table.get(name)),
    }
}

/// Answer about the subtasks of a vertex, whose names begin with the number of the subtask and a
/// dot.
pub fn of_subtasks(tables: &[Option<&MetricTable>], wanted: Option<&[&str]>) -> Json {
    match wanted {
        None => {
            let of = |(n, table): (usize, &Option<&MetricTable>)| -> Vec<String> {
                table.iter().flat_map(|table| table.names()).map(|name| format!("{n}.{name}")).collect()
            };
            list(tables.iter().enumerate().flat_map(of))
        }
        Some(wanted) => values(wanted, |name| {
            let (n, name) = name.split_once('.')?;
            (*tables.get(n.parse::<usize>().ok()?)?)?.get(name)
        }),
    }
}

fn values(wanted: &[&str], find: impl Fn(&str) -> Option<MetricNumber>) -> Json {
    let known = wanted.iter().filter_map(|name| Some((name, find(name)?)));
    known.map(|(name, value)| json!({ "id": name, "value": value.to_string() })).collect()
}

/// Answer about several tables: all names, or the aggregates of the wanted names that exist.
pub fn of_many(tables: &[&MetricTable], wanted: Option<&[&str]>, aggregates: &[Aggregate]) -> Json {
    let Some(wanted) = wanted else {
        return list(tables.iter().flat_map(|table| table.names()).collect::<BTreeSet<_>>());
    };
    let element = |name: &&str| {
        let numbers: Vec<f64> = tables.iter().filter_map(|table| Some(table.get(name)?.number())).collect();
        aggregate::element(name, &numbers, aggregates)
    };
    wanted.iter().filter_map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(n: u64) -> MetricTable {
        let mut values = [0.0; 11];
        values[9] = 99.5;
        let entries = [
            ("time", Reading::Distribution(Box::new(Distribution(values)))),
            ("count", Reading::Single(MetricNumber::Whole(n))),
            ("load", Reading::Single(MetricNumber::Real(0.5))),
            ("load", Reading::Single(MetricNumber::Real(7.0))),
        ];
        entries.into_iter().map(|(name, reading)| (Arc::from(name), reading)).collect()
    }

    #[test]
    fn names_of_a_histogram_have_the_suffixes_of_flink() {
        let (table, names) = (table(3), |table: &MetricTable| of_one(Some(table), None));
        let listed = names(&table);
        let ids: Vec<&str> =
            listed.as_array().expect("a list").iter().filter_map(|e| e["id"].as_str()).collect();
        assert_eq!(ids[..4], ["count", "load", "time_min", "time_max"]);
        assert_eq!(ids.len(), 13);
        let all = of_one(Some(&table), Some(&ids));
        assert_eq!(all.as_array().map(Vec::len), Some(13), "each name has a value: {all}");
    }

    #[test]
    fn values_are_strings_and_unknown_names_are_left_out() {
        let wanted = ["time_p99", "count", "load", "time", "time_p50", "nothing", ""];
        let expected = json!([
            {"id": "time_p99", "value": "99.5"},
            {"id": "count", "value": "3"},
            {"id": "load", "value": "0.5"},
        ]);
        assert_eq!(of_one(Some(&table(3)), Some(&wanted)), expected);
        assert_eq!(of_one(None, None), json!([]));
        assert_eq!(of_one(Some(&table(3)), Some(&[])), json!([]));
    }

    #[test]
    fn names_of_a_vertex_begin_with_the_subtask() {
        let (first, last) = (table(3), table(4));
        let tables = [Some(&first), None, Some(&last)];
        let names = of_subtasks(&tables, None);
        assert_eq!(names.as_array().map(Vec::len), Some(26));
        assert_eq!((&names[0], &names[13]), (&json!({"id": "0.count"}), &json!({"id": "2.count"})));
        let wanted =
            ["2.count", "0.count", "1.count", "3.count", "count", "x.count", "18446744073709551616.count"];
        let expected = json!([{"id": "2.count", "value": "4"}, {"id": "0.count", "value": "3"}]);
        assert_eq!(of_subtasks(&tables, Some(&wanted)), expected);
    }

    #[test]
    fn aggregates_are_over_the_tables_that_have_the_metric() {
        let (first, last, none) = (table(3), table(4), MetricTable::default());
        let tables = [&first, &last, &none];
        assert_eq!(of_many(&tables, None, &[]).as_array().map(Vec::len), Some(13));
        let answer = of_many(&tables, Some(&["count", "nothing"]), &[Aggregate::Sum, Aggregate::Avg]);
        assert_eq!(answer, json!([{"id": "count", "avg": 3.5, "sum": 7.0}]));
    }
}
