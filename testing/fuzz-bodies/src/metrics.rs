//! Bytes of the metrics: points, names, entries of the log, spooled reports.

use std::{collections::BTreeMap, fs};

use sha2::{Digest as _, Sha256};

use stormkeeper_metric_shipping::spool::{Launch, Spool, recover::recover};
use stormkeeper_metric_store::fuzzing::reencode_entry;
use stormkeeper_metrics::{MetaType, MetricName, Point, codec, name::MAX_NAME_BYTES};
use stormkeeper_model::{LogPosition, Timestamp};

use crate::{check_error, scratch};

/// Decodes two points, one on either side of the byte in the middle, and merges them.
///
/// A point reads back. Merging does not depend on the order, gives a valid point, and changes
/// nothing if it fails.
///
/// # Panics
/// If a property does not hold.
pub fn point_codec(data: &[u8]) {
    let (left, right) = data.split_at(data.len() / 2);
    let points: Vec<Point> = [data, left, right].into_iter().filter_map(decode).collect();
    for one in &points {
        for other in &points {
            check_merge(one, other);
        }
    }
    let mut merged = Vec::new();
    let left_out = codec::merge_all([left, right, data], &mut merged);
    assert!(left_out <= 3);
    assert_eq!(merged.is_empty(), left_out == 3, "bytes without a point");
    assert!(merged.is_empty() || codec::decode(&merged).is_ok());
}

fn decode(bytes: &[u8]) -> Option<Point> {
    match codec::decode(bytes) {
        Ok(point) => {
            let encoded = codec::encode(&point);
            let again = codec::decode(&encoded).expect("a point reads back");
            assert_eq!(again, point);
            assert_eq!(codec::encode(&again), encoded, "the encoding is not canonical");
            assert!(encoded.len() <= bytes.len(), "the encoding grows");
            Some(point)
        }
        Err(error) => {
            check_error(&error.to_string());
            None
        }
    }
}

fn check_merge(one: &Point, other: &Point) {
    let mut forward = one.clone();
    let merged = codec::merge(&mut forward, &codec::encode(other));
    assert_eq!(merged.is_ok(), one.kind() == other.kind());
    if merged.is_err() {
        assert_eq!(forward, *one, "a failed merge changed the point");
        return;
    }
    assert_eq!(forward.check(), Ok(()), "a merge is not finite");
    assert_eq!(codec::decode(&codec::encode(&forward)), Ok(forward.clone()));
    let mut backward = other.clone();
    assert!(backward.merge(one));
    if is_without_values(one) && is_without_values(other) {
        // The bounds of no values mean nothing.
        return;
    }
    assert_eq!(forward, backward, "a merge depends on the order");
}

fn is_without_values(point: &Point) -> bool {
    match point {
        Point::Histogram(histogram) => histogram.count == 0,
        Point::Timer(timer) => timer.histogram.count == 0,
        Point::Counter(_) | Point::Gauge(_) | Point::Meter(_) => false,
    }
}

/// Parses the name of a metric.
///
/// A name prints as its normal form, which is not longer than the limit and reads back; so do the
/// names of the levels above.
///
/// # Panics
/// If a property does not hold.
pub fn metric_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<MetricName>() {
        Ok(name) => {
            let printed = name.to_string();
            assert!(printed.len() <= MAX_NAME_BYTES);
            assert_eq!(printed.parse::<MetricName>().as_ref(), Ok(&name));
            assert!(!printed.contains(|c: char| c.is_whitespace() || c.is_control()));
            assert!(name.name().ends_with(name.short_name()) && !name.short_name().is_empty());
            assert!(MetaType::ALL.contains(&name.meta()));
            let up = name.rolled_up(name.topology().clone(), name.subject().clone());
            assert_eq!(up.to_string().parse::<MetricName>(), Ok(up));
        }
        Err(error) => check_error(&error.to_string()),
    }
}

/// Decodes an entry of the metric log.
///
/// An entry reads back, and an error names its position.
///
/// # Panics
/// If a property does not hold.
pub fn metric_log_entry(data: &[u8]) {
    let position = LogPosition { term: 7, index: 11 };
    match reencode_entry(position, data) {
        Ok((encoded, n_points)) => {
            assert!(n_points <= data.len(), "more points than bytes");
            let (again, n_again) = reencode_entry(position, &encoded).expect("an entry reads back");
            assert_eq!((again, n_again), (encoded, n_points));
        }
        Err(error) => {
            let error = error.to_string();
            check_error(&error);
            assert!(error.contains("7.11"), "an error without position: {error}");
        }
    }
}

/// Recovers a spool whose files contain the parts of the input, which the line `--` separates: two
/// reports, which get a checksum and begin with their numbers in a line; the counters of a task;
/// the names of its slots and of the reports.
///
/// The recovered reports follow one another without a gap, and no file is changed.
///
/// # Panics
/// If a property does not hold.
pub fn spool_report(data: &[u8]) {
    let mut rest = data;
    let mut part = || {
        let end = rest.windows(SEPARATOR.len()).position(|bytes| bytes == SEPARATOR);
        let part = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[], |end| &rest[end + SEPARATOR.len()..]);
        part
    };
    let (one, other, counters, names) = (part(), part(), part(), part());
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    let (one, other) = (report_file(one), report_file(other));
    let files = [
        (one.0.as_str(), &one.1[..]),
        (other.0.as_str(), &other.1[..]),
        ("report-7-7", other.1.get(1..).unwrap_or_default()),
        ("counters-1", counters),
        ("slots-1", names),
        ("names", names),
    ];
    // Two reports may have the same name: the second one is then in the file.
    let files: BTreeMap<&str, &[u8]> = files.into();
    for (name, bytes) in &files {
        fs::write(at(name), bytes).expect("written");
    }
    let launch = Launch {
        topology: "t-1-1".parse().expect("valid"),
        worker: "w".parse().expect("valid"),
        started: Timestamp::from_millis(1),
    };
    let recovered = recover(dir.path(), &launch).expect("the directory is readable");
    for problem in &recovered.problems {
        check_error(problem);
    }
    for pair in recovered.reports.windows(2) {
        let next = pair[0].report.number.saturating_add(1);
        assert_eq!(pair[1].first, next, "a gap between reports");
    }
    assert!(recovered.names.len() <= data.len());
    for (name, bytes) in &files {
        assert_eq!(fs::read(at(name)).expect("still there"), *bytes, "{name} was changed");
    }
    check_rewrite(recovered.reports.first());
}

const SEPARATOR: &[u8] = b"\n--\n";

/// Returns the name and the bytes of a report's file.
fn report_file(part: &[u8]) -> (String, Vec<u8>) {
    let (numbers, content) = match part.iter().position(|byte| *byte == b'\n') {
        Some(end) => (std::str::from_utf8(&part[..end]).unwrap_or_default(), &part[end + 1..]),
        None => ("", part),
    };
    let is_name = numbers.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && numbers.len() < 64;
    let bytes = [&Sha256::digest(content)[..], content].concat();
    (format!("report-{}", if is_name { numbers } else { "1-2" }), bytes)
}

/// Writes a recovered report as a worker does, and reads it again.
fn check_rewrite(report: Option<&stormkeeper_metric_shipping::spool::SpooledReport>) {
    let Some(report) = report else { return };
    let dir = scratch();
    let spool = Spool::create(dir.path()).expect("an empty spool");
    spool.write(report, &Default::default()).expect("written");
    let read = spool.read(report.first, report.report.number).expect("read");
    // NaN is not equal to itself, so texts are compared.
    assert_eq!(format!("{read:?}"), format!("{report:?}"), "a report does not read back");
}
