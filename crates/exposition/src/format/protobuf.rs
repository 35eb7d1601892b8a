//! Delimited messages `io.prometheus.client.MetricFamily`, written field by field: the page has five
//! kinds of messages, and building them as values first would copy each label once more.

use crate::{Distribution, Family, FamilyKind, Sample, SampleValue};

/// Values of 0 or less, and those closer to 0 than this, are in the bucket of zero. The smallest one
/// that readers use: our distributions have no positive values in it.
const ZERO_THRESHOLD: f64 = f64::from_bits(0x37f0_0000_0000_0000);

/// Schema of the native buckets: 2^5 for each doubling.
const SCHEMA: i64 = 5;

/// Wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// Encodes a page.
pub(super) fn encode(families: &[Family]) -> Vec<u8> {
    let (mut page, mut message, mut metric) = (Vec::new(), Vec::new(), Vec::new());
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        message.clear();
        let about = &family.about;
        let suffix = if about.kind == FamilyKind::Counter { "_total" } else { "" };
        text(&mut message, 1, &[&about.name, suffix]);
        match about.note {
            "" => text(&mut message, 2, &[&about.help]),
            note => text(&mut message, 2, &[&about.help, " ", note]),
        }
        number(
            &mut message,
            3,
            match about.kind {
                FamilyKind::Counter => 0,
                FamilyKind::Gauge => 1,
                FamilyKind::Histogram => 4,
            },
        );
        for sample in &family.samples {
            metric.clear();
            write_metric(&mut metric, about.kind, sample);
            bytes(&mut message, 4, &metric);
        }
        if let Some(unit) = about.unit.suffix() {
            text(&mut message, 5, &[unit]);
        }
        varint(&mut page, message.len() as u64);
        page.extend_from_slice(&message);
    }
    page
}

fn write_metric(metric: &mut Vec<u8>, kind: FamilyKind, sample: &Sample) {
    let mut part = Vec::new();
    for (label, value) in sample.labels.iter() {
        part.clear();
        text(&mut part, 1, &[label]);
        text(&mut part, 2, &[value]);
        bytes(metric, 1, &part);
    }
    part.clear();
    match &sample.value {
        SampleValue::Count(count) => double(&mut part, 1, *count as f64),
        SampleValue::Real(value) => double(&mut part, 1, *value),
        SampleValue::Distribution(distribution) => write_histogram(&mut part, distribution),
    }
    let field = match kind {
        FamilyKind::Gauge => 2,
        FamilyKind::Counter => 3,
        FamilyKind::Histogram => 7,
    };
    bytes(metric, field, &part);
}

fn write_histogram(to: &mut Vec<u8>, of: &Distribution) {
    number(to, 1, of.count);
    double(to, 2, of.sum);
    let mut bucket = Vec::new();
    for (bound, count) in of.bounds.iter().zip(&of.cumulative) {
        bucket.clear();
        number(&mut bucket, 1, *count);
        double(&mut bucket, 2, *bound);
        bytes(to, 3, &bucket);
    }
    number(to, 5, zigzag(SCHEMA));
    double(to, 6, ZERO_THRESHOLD);
    number(to, 7, of.zeros);
    for (offset, length) in spans(&of.native) {
        let mut span = Vec::new();
        number(&mut span, 1, zigzag(offset));
        number(&mut span, 2, length);
        bytes(to, 12, &span);
    }
    let mut before = 0;
    for (_, count) in &of.native {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        number(to, 13, zigzag(count.wrapping_sub(before)));
        before = count;
    }
}

/// Returns the runs of adjacent buckets: the distance from the end of the run before, or from bucket
/// 0 for the first run, and the number of buckets.
fn spans(native: &[(i32, u64)]) -> Vec<(i64, u64)> {
    let mut spans: Vec<(i64, u64)> = Vec::new();
    let mut next = 0;
    for (index, _) in native {
        let index = i64::from(*index);
        match spans.last_mut() {
            Some((_, length)) if index == next => *length += 1,
            _ => spans.push((index - next, 1)),
        }
        next = index + 1;
    }
    spans
}

/// Maps small numbers of both signs to small ones without a sign.
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn key(to: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(to, field << 3 | wire_type);
}

fn number(to: &mut Vec<u8>, field: u64, value: u64) {
    key(to, field, VARINT);
    varint(to, value);
}

fn double(to: &mut Vec<u8>, field: u64, value: f64) {
    key(to, field, FIXED64);
    to.extend_from_slice(&value.to_le_bytes());
}

fn bytes(to: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(to, field, BYTES);
    varint(to, value.len() as u64);
    to.extend_from_slice(value);
}

/// Writes a text that consists of several parts.
fn text(to: &mut Vec<u8>, field: u64, parts: &[&str]) {
    key(to, field, BYTES);
    varint(to, parts.iter().map(|part| part.len() as u64).sum());
    parts.iter().for_each(|part| to.extend_from_slice(part.as_bytes()));
}
