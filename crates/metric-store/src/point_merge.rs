//! Stored form of points, and the merge of stored points.

use std::cmp::Ordering;

use stormkeeper_metrics::{Minute, Point, codec};

/// Appends the bytes of a point to `to`.
pub(super) fn encode(point: &Point, to: &mut Vec<u8>) {
    codec::encode_into(point, to);
}

/// Decodes a point; `None` if `bytes` are not a point.
pub(super) fn decode(bytes: &[u8]) -> Option<Point> {
    codec::decode(bytes).ok()
}

/// Merges `points` into one. Bytes that are not a point are skipped; the first point determines the
/// kind. A single value is returned unchanged.
pub(super) fn merge<'a>(mut points: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (first, second) = (points.next(), points.next());
    if second.is_none() {
        return first.unwrap_or_default().to_vec();
    }
    let mut bytes = Vec::with_capacity(64);
    // Admission accepts only points of the metric's kind, so no point is skipped.
    codec::merge_all(first.into_iter().chain(second).chain(points), &mut bytes);
    bytes
}

/// Encodes a point with its minute.
pub(super) fn encode_latest(minute: Minute, point: &[u8]) -> Vec<u8> {
    [&minute.0.to_be_bytes()[..], point].concat()
}

/// Splits the result of [`encode_latest`].
pub(super) fn split_latest(bytes: &[u8]) -> Option<(Minute, &[u8])> {
    let (minute, point) = bytes.split_first_chunk()?;
    Some((Minute(u32::from_be_bytes(*minute)), point))
}

/// Merges the points of the latest minute in `all`.
pub(super) fn merge_latest<'a>(all: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut last: Option<Minute> = None;
    let mut points: Vec<&[u8]> = Vec::new();
    for (minute, point) in all.filter_map(split_latest) {
        match last.map_or(Ordering::Greater, |last| minute.cmp(&last)) {
            Ordering::Greater => (last, points) = (Some(minute), vec![point]),
            Ordering::Equal => points.push(point),
            Ordering::Less => {}
        }
    }
    last.map(|minute| encode_latest(minute, &merge(points.into_iter()))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_metrics::point::Counter;

    fn counter(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&Point::Counter(Counter { count }), &mut bytes);
        bytes
    }

    #[test]
    fn points_add_up_and_invalid_bytes_are_skipped() {
        let all = [counter(1), b"\xc1".to_vec(), counter(2)];
        assert_eq!(merge(all.iter().map(Vec::as_slice)), counter(3));
        assert_eq!(merge([&all[0][..], &all[1][..]].into_iter()), counter(1));
        assert_eq!(merge([&all[0][..]].into_iter()), counter(1));
        assert_eq!(merge([].into_iter()), Vec::<u8>::new());
        assert_eq!(decode(&[]), None);
    }

    #[test]
    fn latest_merges_only_points_of_the_last_minute() {
        let of = |minute, count| encode_latest(Minute(minute), &counter(count));
        let all = [of(5, 1), of(7, 2), of(6, 4), of(7, 8)];
        assert_eq!(merge_latest(all.iter().map(Vec::as_slice)), of(7, 10));
        assert_eq!(merge_latest([&b"ab"[..]].into_iter()), Vec::<u8>::new());
    }
}
