//! Small charts of the last minutes, for tables at a terminal.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use crate::cli::output::Table;
use stormkeeper_api_types::{
    client::{Client, MetricFilter, Page, Span},
    message::{MetricValue, Series},
};
use stormkeeper_metrics::{MetaType, Window};
use stormkeeper_model::Timestamp;

/// Heading of the column.
const HEADING: &str = "LAST 30 MIN";

/// Number of minutes that a chart shows.
const N_MINUTES: usize = 30;

/// Length of a minute.
const MINUTE_MS: u64 = 60_000;

/// Limit for the request: a table does not wait for its charts.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of points that are asked for; components beyond it have no chart.
const POINTS_MAX: usize = 5000;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Option of commands with tables of components.
#[derive(Debug, clap::Args)]
pub(super) struct TrendArgs {
    /// Add a chart of the last 30 minutes to each component, as at a terminal: tuples emitted, or executed
    /// where none are emitted
    #[arg(long)]
    trend: bool,
}

impl TrendArgs {
    /// Whether the column is shown.
    pub(super) fn is_on(&self) -> bool {
        self.trend || std::io::stdout().is_terminal()
    }
}

/// Charts of the components of a topology.
#[derive(Debug, Default)]
pub(super) struct Trends(BTreeMap<String, String>);

impl Trends {
    /// Reads the charts. What cannot be read is not shown.
    pub(super) async fn read(client: &Client, topology: &str) -> Self {
        let filter = MetricFilter {
            level: Some(MetaType::Component),
            // Emitted and Executed.
            name: Some("E*ed".to_owned()),
            ..MetricFilter::default()
        };
        let span = Span { from: Some(format!("-{N_MINUTES}m")), to: None };
        let page = Page { after: None, limit: Some(POINTS_MAX) };
        let points = client.metric_points(topology, Window::M1, &filter, &span, &page);
        match tokio::time::timeout(TIMEOUT, points).await {
            Ok(Ok(list)) => Self::of(&list.series, list.to_ms),
            Ok(Err(_)) | Err(_) => Self::default(),
        }
    }

    fn of(series: &[Series], end: Timestamp) -> Self {
        let mut charts: BTreeMap<String, BTreeMap<&str, Vec<Option<u64>>>> = BTreeMap::new();
        for Series { meta, points } in series {
            let Some(component) = &meta.component else { continue };
            let minutes = points.iter().map(|point| (point.from_ms, count(&point.value)));
            charts.entry(component.to_string()).or_default().insert(&meta.metric, minutes_of(minutes, end));
        }
        let chart = |counts: BTreeMap<&str, Vec<Option<u64>>>| {
            let emits = |counts: &&Vec<Option<u64>>| counts.iter().flatten().any(|n| *n > 0);
            let shown = counts.get("Emitted").filter(emits).or(counts.get("Executed"));
            shown.map(|counts| sparkline(counts))
        };
        Self(charts.into_iter().filter_map(|(component, counts)| Some((component, chart(counts)?))).collect())
    }

    /// Adds the charts as the last column of a table whose first column is the component.
    pub(super) fn add_to(&self, table: &mut Table) {
        if !self.0.is_empty() {
            table.append(HEADING, |component| self.0.get(component).cloned().unwrap_or_default());
        }
    }
}

fn count(value: &MetricValue) -> u64 {
    match value {
        MetricValue::Counter(counter) => counter.count,
        MetricValue::Meter(meter) => meter.count,
        MetricValue::Gauge(_) | MetricValue::Histogram(_) | MetricValue::Timer(_) => 0,
    }
}

/// Returns the counts of the minutes before `end`, the latest last. A minute without a point has none.
fn minutes_of(points: impl Iterator<Item = (Timestamp, u64)>, end: Timestamp) -> Vec<Option<u64>> {
    let last = end.as_millis().saturating_sub(1) / MINUTE_MS;
    let mut minutes = vec![None; N_MINUTES];
    for (from, count) in points {
        let age = last.checked_sub(from.as_millis() / MINUTE_MS).and_then(|age| usize::try_from(age).ok());
        let slot = age.and_then(|age| N_MINUTES.checked_sub(age + 1)).and_then(|at| minutes.get_mut(at));
        if let Some(slot) = slot {
            *slot = Some(count);
        }
    }
    // The minute that is not over has no point yet.
    if minutes.last() == Some(&None) {
        minutes.rotate_right(1);
    }
    minutes
}

/// Draws numbers as blocks, the largest as the highest; a missing one is blank.
pub(super) fn sparkline(values: &[Option<u64>]) -> String {
    let max = values.iter().flatten().max().copied().unwrap_or_default().max(1);
    let block = |value: &Option<u64>| match value {
        None => ' ',
        // Rounded up, so that what is not 0 does not look like it.
        Some(n) => BLOCKS[(u128::from(*n) * 7).div_ceil(u128::from(max)) as usize],
    };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_are_relative_to_the_largest_and_only_nothing_is_the_lowest() {
        assert_eq!(sparkline(&[Some(0), Some(1), Some(350), Some(700), None]), "▁▂▅█ ");
        assert_eq!(sparkline(&[Some(0), Some(0)]), "▁▁");
        assert_eq!(sparkline(&[Some(u64::MAX), Some(1)]), "█▂");
        assert_eq!(sparkline(&[]), "");
    }

    #[test]
    fn minutes_are_in_their_places_whatever_is_missing() {
        let minute = |n: u64| Timestamp::from_millis(n * MINUTE_MS);
        let minutes = |points: &[(u64, u64)], end| {
            minutes_of(points.iter().map(|(at, n)| (minute(*at), *n)), Timestamp::from_millis(end))
        };
        // The minute of the end is not over: 99 is the last whole one.
        let shown = minutes(&[(99, 7), (97, 5), (60, 1)], 100 * MINUTE_MS + 30_000);
        assert_eq!(shown.len(), N_MINUTES);
        assert_eq!(shown[N_MINUTES - 3..], [Some(5), None, Some(7)]);
        assert_eq!(shown.iter().flatten().count(), 2, "what is older is left out");
        let shown = minutes(&[(99, 7)], 100 * MINUTE_MS);
        assert_eq!(shown[N_MINUTES - 1], Some(7));
        assert_eq!(minutes(&[(200, 1)], 100 * MINUTE_MS).iter().flatten().count(), 0, "of another clock");
    }
}
