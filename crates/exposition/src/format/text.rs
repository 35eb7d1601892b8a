//! The two text formats: Prometheus' 0.0.4, and OpenMetrics 1.0.

use std::fmt::Write as _;

use crate::{Description, Distribution, Family, FamilyKind, Labels, SampleValue};

/// Text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Prometheus,
    OpenMetrics,
}

/// Approximate bytes of a sample, to reserve memory.
const SAMPLE_BYTES: usize = 160;

/// Encodes a page.
pub(super) fn encode(families: &[Family], dialect: Dialect) -> String {
    let samples: usize = families.iter().map(|family| family.samples.len()).sum();
    let mut page = String::with_capacity(samples.saturating_mul(SAMPLE_BYTES));
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        head(&mut page, &family.about, dialect);
        for sample in &family.samples {
            let name = (&*family.about.name, suffix(family.about.kind));
            match &sample.value {
                SampleValue::Count(count) => {
                    line(&mut page, name, (&sample.labels, None), Number::Count(*count))
                }
                SampleValue::Real(value) => {
                    line(&mut page, name, (&sample.labels, None), Number::Real(*value))
                }
                SampleValue::Distribution(distribution) => {
                    histogram(&mut page, name.0, &sample.labels, distribution);
                }
            }
        }
    }
    if dialect == Dialect::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

/// Number in a line.
#[derive(Debug, Clone, Copy)]
enum Number {
    Count(u64),
    Real(f64),
}

/// Returns the end of the names of samples.
const fn suffix(kind: FamilyKind) -> &'static str {
    match kind {
        FamilyKind::Counter => "_total",
        FamilyKind::Gauge | FamilyKind::Histogram => "",
    }
}

fn head(page: &mut String, about: &Description, dialect: Dialect) {
    // In OpenMetrics the family of a counter has the name without `_total`.
    let suffix = match dialect {
        Dialect::Prometheus => suffix(about.kind),
        Dialect::OpenMetrics => "",
    };
    let name = &about.name;
    // Writing to a string cannot fail, here and below.
    _ = write!(page, "# HELP {name}{suffix} ");
    escape(page, &about.help, dialect == Dialect::OpenMetrics);
    if !about.note.is_empty() {
        page.push(' ');
        escape(page, about.note, dialect == Dialect::OpenMetrics);
    }
    _ = write!(page, "\n# TYPE {name}{suffix} {}\n", about.kind.word());
    if let (Dialect::OpenMetrics, Some(unit)) = (dialect, about.unit.suffix()) {
        _ = writeln!(page, "# UNIT {name} {unit}");
    }
}

fn histogram(page: &mut String, name: &str, labels: &Labels, of: &Distribution) {
    for (bound, count) in of.bounds.iter().zip(&of.cumulative) {
        line(page, (name, "_bucket"), (labels, Some(*bound)), Number::Count(*count));
    }
    line(page, (name, "_bucket"), (labels, Some(f64::INFINITY)), Number::Count(of.count));
    line(page, (name, "_sum"), (labels, None), Number::Real(of.sum));
    line(page, (name, "_count"), (labels, None), Number::Count(of.count));
}

/// Writes one sample; `bound` is the label `le`.
fn line(page: &mut String, name: (&str, &str), (labels, bound): (&Labels, Option<f64>), number: Number) {
    page.push_str(name.0);
    page.push_str(name.1);
    let mut separator = '{';
    for (label, value) in labels.iter() {
        page.push(separator);
        separator = ',';
        page.push_str(label);
        page.push_str("=\"");
        escape(page, value, true);
        page.push('"');
    }
    if let Some(bound) = bound {
        page.push(separator);
        separator = ',';
        page.push_str("le=\"");
        real(page, bound);
        page.push('"');
    }
    if separator == ',' {
        page.push('}');
    }
    page.push(' ');
    match number {
        Number::Count(count) => _ = write!(page, "{count}"),
        Number::Real(value) => real(page, value),
    }
    page.push('\n');
}

/// Writes a number so that it reads back exactly.
fn real(page: &mut String, value: f64) {
    if value == f64::INFINITY {
        page.push_str("+Inf");
    } else if value == f64::NEG_INFINITY {
        page.push_str("-Inf");
    } else {
        _ = write!(page, "{value:?}");
    }
}

/// Writes a text with its backslashes and line ends escaped, and its quotes if asked for.
fn escape(page: &mut String, text: &str, quotes: bool) {
    let mut rest = text;
    let is_special = |c: char| c == '\\' || c == '\n' || quotes && c == '"';
    while let Some(at) = rest.find(is_special) {
        page.push_str(&rest[..at]);
        page.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'\n' => "\\n",
            _ => "\\\"",
        });
        rest = &rest[at + 1..];
    }
    page.push_str(rest);
}
