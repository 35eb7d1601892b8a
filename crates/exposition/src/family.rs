//! Families: samples with one name, kind and unit, which all formats encode.

use std::{borrow::Cow, sync::Arc};

/// Labels of a sample, name and value. Samples of one subject share them.
pub type Labels = Arc<[(&'static str, String)]>;

/// Kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    /// Number that only grows; samples are named `{name}_total`.
    Counter,
    /// Number that holds now.
    Gauge,
    /// Distribution of values.
    Histogram,
}

/// Unit of a family; its name ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things of the kind that the name says.
    Things,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Share of a whole, 0 to 1.
    Ratio,
}

/// Name, kind, unit and help of a family.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Name, without the `_total` of a counter.
    pub name: Cow<'static, str>,
    /// Kind of the samples.
    pub kind: FamilyKind,
    /// Unit of the samples.
    pub unit: Unit,
    /// Meaning of the samples.
    pub help: Cow<'static, str>,
    /// Further sentence of the help, which many families share; may be empty.
    pub note: &'static str,
}

/// Samples with one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Description of the family.
    pub about: Arc<Description>,
    /// Samples, each with other labels.
    pub samples: Vec<Sample>,
}

/// Sample of a family.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Labels of the sample.
    pub labels: Labels,
    /// Value of the sample, of the kind of its family.
    pub value: SampleValue,
}

/// Value of a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum SampleValue {
    /// Whole number.
    Count(u64),
    /// Number.
    Real(f64),
    /// Distribution; only in histograms.
    Distribution(Box<Distribution>),
}

/// Distribution of values: the buckets of a native histogram, and those of a classic one.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Sum of the values.
    pub sum: f64,
    /// Number of values of 0 or less.
    pub zeros: u64,
    /// Number of values in (2^((i-1)/32), 2^(i/32)], by i, in ascending order.
    pub native: Vec<(i32, u64)>,
    /// Bounds of the classic buckets, in ascending order, without infinity.
    pub bounds: &'static [f64],
    /// Number of values up to each bound.
    pub cumulative: Vec<u64>,
}

impl Unit {
    /// Returns the unit as it ends a name; `None` for things.
    pub const fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Things => None,
            Self::Seconds => Some("seconds"),
            Self::Bytes => Some("bytes"),
            Self::Ratio => Some("ratio"),
        }
    }
}

impl FamilyKind {
    /// Returns the word of all formats.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Description {
    /// Returns a description of constant texts.
    pub const fn fixed(name: &'static str, kind: FamilyKind, unit: Unit, help: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), kind, unit, help: Cow::Borrowed(help), note: "" }
    }

    /// Returns the number of series of one sample in the text format.
    pub fn n_series(&self, bounds: &[f64]) -> usize {
        match self.kind {
            FamilyKind::Counter | FamilyKind::Gauge => 1,
            // The bounds, infinity, count and sum.
            FamilyKind::Histogram => bounds.len() + 3,
        }
    }
}

impl Family {
    /// Returns a family without samples.
    pub fn new(about: Arc<Description>) -> Self {
        Self { about, samples: Vec::new() }
    }

    /// Returns a family of one sample without labels.
    pub fn single(about: &Description, value: SampleValue) -> Self {
        Self::labelled(about, [(Labels::from([]), value)])
    }

    /// Returns a family of samples with labels.
    pub fn labelled(about: &Description, samples: impl IntoIterator<Item = (Labels, SampleValue)>) -> Self {
        let samples = samples.into_iter().map(|(labels, value)| Sample { labels, value });
        Self { about: Arc::new(about.clone()), samples: samples.collect() }
    }
}

impl From<u64> for SampleValue {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for SampleValue {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for SampleValue {
    fn from(is: bool) -> Self {
        Self::Count(u64::from(is))
    }
}

impl From<f64> for SampleValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}
