//! Results, as rows of a table.

use std::{fmt, time::Duration};

/// A table in Markdown.
pub(crate) struct Report {
    title: &'static str,
    rows: Vec<[String; 3]>,
}

/// Several measurements of the same quantity.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Report {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// Adds a figure with a goal.
    pub(crate) fn row(&mut self, what: impl Into<String>, goal: &str, measured: impl fmt::Display) {
        self.rows.push([what.into(), goal.to_owned(), measured.to_string()]);
    }

    /// Adds a figure for comparison.
    pub(crate) fn floor(&mut self, what: impl Into<String>, measured: impl fmt::Display) {
        self.row(what, "–", measured);
    }

    pub(crate) fn print(&self) {
        println!("\n{}\n\n| what | goal | measured |\n| --- | --- | --- |", self.title);
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
    }
}

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Adds those of another series.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Number of samples.
    pub(crate) fn n(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Returns the median, the time below which 99 of 100 are, and the longest.
    pub(crate) fn percentiles(&self) -> String {
        let sorted = self.sorted();
        let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().max(1) - 1));
        let text = |percent| at(percent).map_or_else(String::new, |time| millis(*time));
        format!("median {}, 99 % below {}, all below {}", text(50), text(99), text(100))
    }

    fn sorted(&self) -> Vec<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sorted()[..] {
            [] => f.write_str("nothing"),
            [one] => f.write_str(&millis(one)),
            ref all @ [min, .., max] => {
                let (median, n) = (millis(all[all.len() / 2]), all.len());
                write!(f, "median {median}, {} to {} in {n} runs", millis(min), millis(max))
            }
        }
    }
}

/// Formats a time with its significant digits.
pub(crate) fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        _ if millis < 10.0 => format!("{millis:.2} ms"),
        _ if millis < 10_000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1000.0),
    }
}
