//! Byte encoding of points, in which the metric store keeps and merges them.
//!
//! ```text
//! tag  = version (high four bits), form (low four bits)
//! form   counter          count
//!        gauge            at n sum min max           one reading: at value
//!        meter            from at-from count m1 m5 m15      all rates 0: from at-from count
//!        histogram        count sum min max zeros n (index-step count)*
//!        timer            histogram, then meter with its rates
//! ```
//!
//! Integers are varints (seven bits a byte, the lowest first), floating-point numbers are eight
//! bytes, the lowest first. Buckets come in ascending order; the first index is in zigzag, each
//! later index as its distance from the one before, less one.

use super::{
    Buckets, MetricType, Minute, Point,
    point::{Counter, Gauge, Histogram, Meter, NotFinite, Timer},
};

const VERSION: u8 = 1;

const COUNTER: u8 = 1;
const GAUGE: u8 = 2;
const METER: u8 = 3;
const HISTOGRAM: u8 = 4;
const TIMER: u8 = 5;
const GAUGE_OF_ONE: u8 = 6;
const METER_WITHOUT_RATES: u8 = 7;

/// Error for bytes that do not encode a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end too early.
    #[error("the bytes of a point end too early")]
    Short,
    /// Bytes follow the point.
    #[error("{0} bytes follow a point")]
    Trailing(usize),
    /// A newer program wrote the bytes.
    #[error("a point has the unknown format version {0}: a newer program wrote it")]
    Version(u8),
    /// The form is unknown.
    #[error("a point has the unknown form {0}")]
    Form(u8),
    /// A number is out of its range.
    #[error("a number in a point is out of its range")]
    Range,
    /// A number is infinite or NaN.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// Two points of one metric are of different kinds.
    #[error("a {found:?} cannot be merged into a {kept:?}")]
    Kind {
        /// Type of the metric.
        kept: MetricType,
        /// Type of the other point.
        found: MetricType,
    },
}

/// Encodes a point.
pub fn encode(point: &Point) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    encode_into(point, &mut bytes);
    bytes
}

/// Appends the encoding of a point to `bytes`.
pub fn encode_into(point: &Point, bytes: &mut Vec<u8>) {
    let mut tag = |form| bytes.push((VERSION << 4) | form);
    match point {
        Point::Counter(counter) => {
            tag(COUNTER);
            put(bytes, counter.count);
        }
        Point::Gauge(gauge) => {
            let one = gauge.n == 1 && [gauge.min, gauge.max].map(f64::to_bits) == [gauge.sum.to_bits(); 2];
            tag(if one { GAUGE_OF_ONE } else { GAUGE });
            put(bytes, gauge.at.0.into());
            if one {
                return put_floats(bytes, [gauge.sum]);
            }
            put(bytes, gauge.n);
            put_floats(bytes, [gauge.sum, gauge.min, gauge.max]);
        }
        Point::Meter(meter) => {
            let still = [meter.m1, meter.m5, meter.m15].map(f64::to_bits) == [0; 3];
            tag(if still { METER_WITHOUT_RATES } else { METER });
            put_span(bytes, meter);
            if !still {
                put_floats(bytes, [meter.m1, meter.m5, meter.m15]);
            }
        }
        Point::Histogram(histogram) => {
            tag(HISTOGRAM);
            put_histogram(bytes, histogram);
        }
        Point::Timer(timer) => {
            tag(TIMER);
            put_histogram(bytes, &timer.histogram);
            put_span(bytes, &timer.meter);
            put_floats(bytes, [timer.meter.m1, timer.meter.m5, timer.meter.m15]);
        }
    }
}

/// Decodes a point.
///
/// # Errors
/// [`CodecError`] for every sequence of bytes that is not exactly one point.
pub fn decode(bytes: &[u8]) -> Result<Point, CodecError> {
    let mut reader = Reader(bytes);
    let point = reader.point()?;
    match reader.0.len() {
        0 => Ok(point),
        more => Err(CodecError::Trailing(more)),
    }
}

/// Adds the encoded point to `into`; on an error `into` is unchanged. Counters, gauges and meters
/// need no heap allocation.
///
/// # Errors
/// As [`decode`], and [`CodecError::Kind`] for a point of another type.
pub fn merge(into: &mut Point, bytes: &[u8]) -> Result<(), CodecError> {
    let other = decode(bytes)?;
    if into.merge(&other) {
        return Ok(());
    }
    Err(CodecError::Kind { kept: into.kind(), found: other.kind() })
}

/// Merges a stored value with its operands, as RocksDB's merge operator requires: appends the
/// bytes of the merged point to `out`, and returns the number of values that were left out because
/// they are unreadable or of another type. If no value is readable, nothing is appended.
pub fn merge_all<'a>(values: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> usize {
    let mut merged: Option<Point> = None;
    let mut left_out = 0;
    for bytes in values {
        let result = match &mut merged {
            None => decode(bytes).map(|point| merged = Some(point)),
            Some(point) => merge(point, bytes),
        };
        left_out += usize::from(result.is_err());
    }
    if let Some(point) = merged {
        encode_into(&point, out);
    }
    left_out
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn put_floats<const N: usize>(bytes: &mut Vec<u8>, values: [f64; N]) {
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
}

fn put_span(bytes: &mut Vec<u8>, meter: &Meter) {
    put(bytes, meter.from.0.into());
    put(bytes, meter.at.0.wrapping_sub(meter.from.0).into());
    put(bytes, meter.count);
}

fn put_histogram(bytes: &mut Vec<u8>, histogram: &Histogram) {
    put(bytes, histogram.count);
    put_floats(bytes, [histogram.sum, histogram.min, histogram.max]);
    put(bytes, histogram.zeros);
    put(bytes, histogram.buckets.len() as u64);
    let mut before: Option<i16> = None;
    for (index, n) in histogram.buckets.iter() {
        match before {
            None => put(bytes, u64::from(((index << 1) ^ (index >> 15)) as u16)),
            Some(before) => put(bytes, u64::from(index.abs_diff(before) - 1)),
        }
        put(bytes, n);
        before = Some(index);
    }
}

/// The unread bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, CodecError> {
        let (first, rest) = self.0.split_first().ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(CodecError::Range);
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CodecError::Range)
    }

    fn varint32(&mut self) -> Result<u32, CodecError> {
        u32::try_from(self.varint()?).map_err(|_| CodecError::Range)
    }

    fn float(&mut self) -> Result<f64, CodecError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(CodecError::Short)?;
        self.0 = rest;
        Ok(f64::from_le_bytes(*first))
    }

    fn point(&mut self) -> Result<Point, CodecError> {
        let tag = self.byte()?;
        if tag >> 4 != VERSION {
            return Err(CodecError::Version(tag >> 4));
        }
        let point = match tag & 0xf {
            COUNTER => Point::Counter(Counter { count: self.varint()? }),
            GAUGE => {
                let (at, n) = (Minute(self.varint32()?), self.varint()?);
                Point::Gauge(Gauge { at, n, sum: self.float()?, min: self.float()?, max: self.float()? })
            }
            GAUGE_OF_ONE => {
                let (at, value) = (Minute(self.varint32()?), self.float()?);
                Point::Gauge(Gauge { at, n: 1, sum: value, min: value, max: value })
            }
            METER => Point::Meter(self.meter(true)?),
            METER_WITHOUT_RATES => Point::Meter(self.meter(false)?),
            HISTOGRAM => Point::Histogram(self.histogram()?),
            TIMER => Point::Timer(Timer { histogram: self.histogram()?, meter: self.meter(true)? }),
            form => return Err(CodecError::Form(form)),
        };
        point.check()?;
        Ok(point)
    }

    fn meter(&mut self, has_rates: bool) -> Result<Meter, CodecError> {
        let from = self.varint32()?;
        let at = from.wrapping_add(self.varint32()?);
        let count = self.varint()?;
        let mut meter = Meter { count, from: Minute(from), at: Minute(at), m1: 0.0, m5: 0.0, m15: 0.0 };
        if has_rates {
            (meter.m1, meter.m5, meter.m15) = (self.float()?, self.float()?, self.float()?);
        }
        Ok(meter)
    }

    fn histogram(&mut self) -> Result<Histogram, CodecError> {
        let count = self.varint()?;
        let (sum, min, max) = (self.float()?, self.float()?, self.float()?);
        let zeros = self.varint()?;
        let n = self.varint()?;
        let mut buckets = Buckets::with_room(usize::try_from(n).unwrap_or(usize::MAX));
        let mut before: Option<i16> = None;
        for _ in 0..n {
            let number = u16::try_from(self.varint()?).map_err(|_| CodecError::Range)?;
            let index = match before {
                None => (number >> 1) as i16 ^ -((number & 1) as i16),
                Some(before) => before
                    .checked_add_unsigned(number)
                    .and_then(|index| index.checked_add(1))
                    .ok_or(CodecError::Range)?,
            };
            buckets.add(index, self.varint()?);
            before = Some(index);
        }
        Ok(Histogram { count, sum, min, max, zeros, buckets })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::{kind, point_of};

    proptest! {
        #[test]
        fn a_point_survives_encoding(point in kind().prop_flat_map(point_of)) {
            let bytes = encode(&point);
            prop_assert_eq!(decode(&bytes), Ok(point));
            // No shorter and no longer sequence of bytes is a point.
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
            prop_assert_eq!(decode(&[bytes, vec![0]].concat()), Err(CodecError::Trailing(1)));
        }

        #[test]
        fn any_bytes_are_decoded_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..60), form in 0u8..9) {
            let tagged = [vec![0x10 | form], bytes.clone()].concat();
            for bytes in [bytes, tagged] {
                if let Ok(point) = decode(&bytes) {
                    prop_assert_eq!(decode(&encode(&point)), Ok(point));
                }
            }
        }

        #[test]
        fn merging_bytes_is_merging_points(
            points in kind().prop_flat_map(|kind| prop::collection::vec(point_of(kind), 1..6)),
        ) {
            let bytes: Vec<_> = points.iter().map(encode).collect();
            let mut out = Vec::new();
            prop_assert_eq!(merge_all(bytes.iter().map(Vec::as_slice), &mut out), 0);
            let mut sum = points[0].clone();
            points[1..].iter().for_each(|point| assert!(sum.merge(point)));
            prop_assert_eq!(decode(&out), Ok(sum));
        }
    }

    #[test]
    fn stored_points_stay_readable() {
        // Every nimbus has these bytes on disk: a change of the format needs another version.
        let check = |bytes: &[u8], point: Point| {
            assert_eq!(encode(&point), bytes);
            assert_eq!(decode(bytes), Ok(point));
        };
        check(&[0x11, 0xac, 0x02], Point::Counter(Counter { count: 300 }));
        let gauge = Gauge::reading(Minute(5), 1.0).expect("finite");
        check(&[0x16, 5, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f], Point::Gauge(gauge));
        let (from, at) = (Minute(5), Minute(7));
        check(&[0x17, 5, 2, 9], Point::Meter(Meter { count: 9, from, at, m1: 0.0, m5: 0.0, m15: 0.0 }));
        let buckets = Buckets::from([(-2, 1), (-1, 2), (40, 3)]);
        let histogram = Histogram { count: 7, sum: 0.0, min: 0.0, max: 0.0, zeros: 1, buckets };
        let mut bytes = vec![0x14, 7];
        bytes.extend([0; 24]);
        bytes.extend([1, 3, 3, 1, 0, 2, 40, 3]);
        check(&bytes, Point::Histogram(histogram));
    }

    #[test]
    fn each_defect_has_its_error() {
        let check = |bytes: &[u8], error| assert_eq!(decode(bytes), Err(error));
        check(&[], CodecError::Short);
        check(&[0x21, 1], CodecError::Version(2));
        check(&[0x1f, 1], CodecError::Form(15));
        check(&[[0x11].as_slice(), &[0xff; 10]].concat(), CodecError::Range);
        check(&[[0x16, 1].as_slice(), &f64::NAN.to_le_bytes()].concat(), CodecError::NotFinite(NotFinite));
        let mut sum = Point::Counter(Counter { count: 1 });
        let other = encode(&Point::Gauge(Gauge::reading(Minute(1), 1.0).expect("finite")));
        let kinds = CodecError::Kind { kept: MetricType::Counter, found: MetricType::Gauge };
        assert_eq!(merge(&mut sum, &other), Err(kinds));
        assert_eq!(sum, Point::Counter(Counter { count: 1 }));
        let mut out = Vec::new();
        assert_eq!(merge_all([&[0u8][..], &[0x11, 1], &other, &[0x11, 2]], &mut out), 2);
        assert_eq!(out, [0x11, 3]);
    }
}
