//! Value of a metric over an interval of time.

use serde::{Deserialize, Serialize};

use super::{Buckets, MetricType, Minute};

/// The value of one metric in one time bucket, of one task or of many.
///
/// Points of the same type merge by [`Point::merge`], which is associative and commutative: points
/// of two tasks give the point of their component, points of ten minutes that of the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Point {
    /// See [`Counter`].
    Counter(Counter),
    /// See [`Gauge`].
    Gauge(Gauge),
    /// See [`Meter`].
    Meter(Meter),
    /// See [`Histogram`].
    Histogram(Histogram),
    /// See [`Timer`].
    Timer(Timer),
}

/// Number of events. Exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Number of events in the bucket.
    pub count: u64,
}

/// Value at the latest reading in the bucket, and the bounds of all readings.
///
/// Gauges of several tasks add up, and count their readings: where a mean is more useful, the sum
/// is divided for display.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    /// The minute of the latest reading.
    pub at: Minute,
    /// Sum of the values of that minute.
    pub sum: f64,
    /// Number of readings in that minute. May be 0 in a metric batch, for a reading that another
    /// point of the same minute replaces.
    pub n: u64,
    /// Minimum of all single readings.
    pub min: f64,
    /// Maximum of all single readings.
    pub max: f64,
}

/// Number of events, and events per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Meter {
    /// Number of events in the bucket. Exact.
    pub count: u64,
    /// First minute covered.
    pub from: Minute,
    /// Last minute covered; the rates are those at its end.
    pub at: Minute,
    /// Events per second, averaged over about one minute.
    pub m1: f64,
    /// Events per second, averaged over about five minutes.
    pub m5: f64,
    /// Events per second, averaged over about fifteen minutes.
    pub m15: f64,
}

/// Distribution of values: a base-2 exponential histogram of schema 5, with exact count, sum,
/// minimum and maximum.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Number of values. Exact, also when values are sampled.
    pub count: u64,
    /// Sum of the values.
    pub sum: f64,
    /// Minimum; 0 without values.
    pub min: f64,
    /// Maximum; 0 without values.
    pub max: f64,
    /// Number of sampled values that are 0 or less.
    pub zeros: u64,
    /// Number of sampled values in (2^(i/32), 2^((i+1)/32)], by i.
    pub buckets: Buckets,
}

/// Distribution of durations in µs, and events per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timer {
    /// Durations in µs.
    pub histogram: Histogram,
    /// Rates of the events.
    pub meter: Meter,
}

/// Error: a point contains an infinite number or NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a point contains a number that is infinite or not a number")]
pub struct NotFinite;

/// A sum that stays finite, however large its terms.
fn sum(a: f64, b: f64) -> f64 {
    (a + b).clamp(f64::MIN, f64::MAX)
}

impl Point {
    /// Checks that all numbers are finite, as stored points must be.
    ///
    /// # Errors
    /// [`NotFinite`] if a number is infinite or NaN.
    pub fn check(&self) -> Result<(), NotFinite> {
        let histogram = |h: &Histogram| h.sum.is_finite() && h.min.is_finite() && h.max.is_finite();
        let meter = |m: &Meter| m.m1.is_finite() && m.m5.is_finite() && m.m15.is_finite();
        let finite = match self {
            Self::Counter(_) => true,
            Self::Gauge(gauge) => gauge.sum.is_finite() && gauge.min.is_finite() && gauge.max.is_finite(),
            Self::Meter(m) => meter(m),
            Self::Histogram(h) => histogram(h),
            Self::Timer(timer) => histogram(&timer.histogram) && meter(&timer.meter),
        };
        if finite { Ok(()) } else { Err(NotFinite) }
    }

    /// The point's type.
    pub fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Meter(_) => MetricType::Meter,
            Self::Histogram(_) => MetricType::Histogram,
            Self::Timer(_) => MetricType::Timer,
        }
    }

    /// Adds another point of the same metric, of another task or of another time. Returns false,
    /// and adds nothing, if the types differ.
    pub fn merge(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Counter(mine), Self::Counter(other)) => {
                mine.count = mine.count.saturating_add(other.count)
            }
            (Self::Gauge(mine), Self::Gauge(other)) => mine.merge(other),
            (Self::Meter(mine), Self::Meter(other)) => mine.merge(other),
            (Self::Histogram(mine), Self::Histogram(other)) => mine.merge(other),
            (Self::Timer(mine), Self::Timer(other)) => {
                mine.histogram.merge(&other.histogram);
                mine.meter.merge(&other.meter);
            }
            (Self::Counter(_) | Self::Gauge(_) | Self::Meter(_) | Self::Histogram(_) | Self::Timer(_), _) => {
                return false;
            }
        }
        true
    }
}

impl Point {
    /// Minute of the point's reading: of the value of a gauge, or of the rates of a meter or timer.
    /// `None` for a point without one, which only counts.
    pub fn read_at(&self) -> Option<Minute> {
        let rated = |meter: &Meter| (meter.rates() != [0.0; 3]).then_some(meter.at);
        match self {
            Self::Counter(_) | Self::Histogram(_) => None,
            Self::Gauge(gauge) => (gauge.n > 0).then_some(gauge.at),
            Self::Meter(meter) => rated(meter),
            Self::Timer(timer) => rated(&timer.meter),
        }
    }

    /// Subtracts the reading of `other`, if it is of the same minute. Counts, histograms, and the
    /// bounds of a gauge stay: these values did occur.
    pub fn retract(&mut self, other: &Self) {
        match (self, other) {
            (Self::Gauge(mine), Self::Gauge(other)) if mine.at == other.at => {
                mine.sum = sum(mine.sum, -other.sum);
                mine.n = mine.n.saturating_sub(other.n);
            }
            (Self::Meter(mine), Self::Meter(other)) => mine.retract(other),
            (Self::Timer(mine), Self::Timer(other)) => mine.meter.retract(&other.meter),
            (Self::Counter(_) | Self::Gauge(_) | Self::Meter(_) | Self::Histogram(_) | Self::Timer(_), _) => {
            }
        }
    }
}

impl Gauge {
    /// A gauge with one reading; `None` if the value is not finite.
    pub fn reading(at: Minute, value: f64) -> Option<Self> {
        value.is_finite().then_some(Self { at, sum: value, n: 1, min: value, max: value })
    }

    fn merge(&mut self, other: &Self) {
        match other.at.cmp(&self.at) {
            std::cmp::Ordering::Greater => (self.at, self.sum, self.n) = (other.at, other.sum, other.n),
            std::cmp::Ordering::Equal => {
                self.sum = sum(self.sum, other.sum);
                self.n = self.n.saturating_add(other.n);
            }
            std::cmp::Ordering::Less => {}
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

impl Meter {
    pub(super) fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.from = self.from.min(other.from);
        match other.at.cmp(&self.at) {
            std::cmp::Ordering::Greater => {
                (self.at, self.m1, self.m5, self.m15) = (other.at, other.m1, other.m5, other.m15);
            }
            std::cmp::Ordering::Equal => {
                self.m1 = sum(self.m1, other.m1);
                self.m5 = sum(self.m5, other.m5);
                self.m15 = sum(self.m15, other.m15);
            }
            std::cmp::Ordering::Less => {}
        }
    }

    fn rates(&self) -> [f64; 3] {
        [self.m1, self.m5, self.m15]
    }

    fn retract(&mut self, other: &Self) {
        if self.at == other.at {
            self.m1 = sum(self.m1, -other.m1);
            self.m5 = sum(self.m5, -other.m5);
            self.m15 = sum(self.m15, -other.m15);
        }
    }

    /// Events per second, over all minutes covered.
    pub fn mean(&self) -> f64 {
        let minutes = u64::from(self.at.0.saturating_sub(self.from.0)) + 1;
        self.count as f64 / (minutes * 60) as f64
    }
}

impl Histogram {
    /// Adds the values of `other`.
    pub fn merge(&mut self, other: &Self) {
        // The number of values decides about the bounds alone: a histogram of another process may
        // have buckets and no values, and the result must not depend on the order of merges.
        if other.count > 0 && self.count == 0 {
            (self.min, self.max) = (other.min, other.max);
        } else if other.count > 0 {
            self.min = self.min.min(other.min);
            self.max = self.max.max(other.max);
        }
        self.count = self.count.saturating_add(other.count);
        self.sum = sum(self.sum, other.sum);
        self.zeros = self.zeros.saturating_add(other.zeros);
        if !other.buckets.is_empty() {
            self.buckets.merge(&other.buckets);
        }
    }

    /// Adds a value to count, sum and bounds, but not to the buckets.
    pub(super) fn count_value(&mut self, value: f64) {
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        } else {
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
        self.count = self.count.saturating_add(1);
        self.sum = sum(self.sum, value);
    }

    /// Adds `n` values of which only the sum is known, at least one, to count and sum; the bounds cover their
    /// mean.
    pub(super) fn count_many(&mut self, n: u64, total: f64) {
        self.count_value(total / n as f64);
        self.count = self.count.saturating_add(n - 1);
        // The mean was added; the rest follows.
        self.sum = sum(self.sum, total - total / n as f64);
    }
}
