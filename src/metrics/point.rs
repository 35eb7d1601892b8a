//! What a metric has to say about a stretch of time.

use serde::{Deserialize, Serialize};

use super::{Buckets, MetricType, Minute};

/// The value of one metric in one bucket of time, of one task or of many.
///
/// Points of the same kind merge by [`Point::merge`], which is associative and commutative:
/// points of two tasks give that of their component, points of ten minutes that of the window.
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

/// How often something happened. Exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// So often.
    pub count: u64,
}

/// How something stood, when it was last read in the bucket, and between which bounds.
///
/// Gauges of several tasks add up, and say how many they are: what is better shown as their
/// mean is divided when it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    /// The minute of the latest reading.
    pub at: Minute,
    /// The sum of what was read then.
    pub sum: f64,
    /// How many were read then.
    pub n: u64,
    /// The least of all single readings.
    pub min: f64,
    /// The greatest of all single readings.
    pub max: f64,
}

/// How often something happens per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Meter {
    /// How often it happened in the bucket. Exact.
    pub count: u64,
    /// The first minute that it covers.
    pub from: Minute,
    /// The last minute that it covers; the rates are of its end.
    pub at: Minute,
    /// Per second, averaged over about one minute.
    pub m1: f64,
    /// Over about five minutes.
    pub m5: f64,
    /// Over about fifteen minutes.
    pub m15: f64,
}

/// How values are distributed: a base-2 exponential histogram of schema 5, with exact count,
/// sum, least and greatest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many values there were. Exact, also when they are sampled.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The least; 0 without values.
    pub min: f64,
    /// The greatest; 0 without values.
    pub max: f64,
    /// How many of the sampled values were 0 or less.
    pub zeros: u64,
    /// How many of the sampled values lie in (2^(i/32), 2^((i+1)/32)], by i.
    pub buckets: Buckets,
}

/// How long something takes, in µs, and how often it happens per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timer {
    /// How long.
    pub histogram: Histogram,
    /// How often.
    pub meter: Meter,
}

/// A point holds a number that is infinite or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a point holds a number that is infinite or not a number")]
pub struct NotFinite;

/// A sum that stays a number, however great its parts.
fn sum(a: f64, b: f64) -> f64 {
    (a + b).clamp(f64::MIN, f64::MAX)
}

impl Point {
    /// Whether it holds finite numbers only, as all that is stored must.
    ///
    /// # Errors
    /// [`NotFinite`] when it does not.
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

    /// Its kind.
    pub fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Meter(_) => MetricType::Meter,
            Self::Histogram(_) => MetricType::Histogram,
            Self::Timer(_) => MetricType::Timer,
        }
    }

    /// Adds another point of the same metric, of another task or of another time. One of
    /// another kind is left out, which answers `false`.
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

impl Gauge {
    /// One reading. What is not finite has no place in a gauge: `None`.
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

    /// Per second, over all that it covers.
    pub fn mean(&self) -> f64 {
        let minutes = u64::from(self.at.0.saturating_sub(self.from.0)) + 1;
        self.count as f64 / (minutes * 60) as f64
    }
}

impl Histogram {
    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            (self.min, self.max) = (other.min, other.max);
        } else {
            self.min = self.min.min(other.min);
            self.max = self.max.max(other.max);
        }
        self.count = self.count.saturating_add(other.count);
        self.sum = sum(self.sum, other.sum);
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.buckets.merge(&other.buckets);
    }

    /// Takes in a value but for the buckets: count, sum and bounds.
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
}
