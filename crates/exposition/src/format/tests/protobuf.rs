//! Reader of delimited protobuf messages.

use std::collections::BTreeMap;

use super::{Read, ReadValue};

/// Fields of a message, in order.
type Fields<'a> = Vec<(u64, Field<'a>)>;

#[derive(Debug, Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// Values of 0 or less, and the count of each native bucket.
type Native = (u64, Vec<(i32, u64)>);

/// Reads a page; returns families by name, and the native buckets of all histograms in order.
pub(super) fn read(mut page: &[u8]) -> Option<(BTreeMap<String, Read>, Vec<Native>)> {
    let (mut families, mut native) = (BTreeMap::new(), Vec::new());
    while !page.is_empty() {
        let length = usize::try_from(varint(&mut page)?).ok()?;
        let (message, rest) = page.split_at_checked(length)?;
        page = rest;
        let fields = fields(message)?;
        let kind = number(&fields, 3).unwrap_or(0);
        let samples = all(&fields, 4).map(|metric| read_metric(metric, kind, &mut native));
        let read = Read {
            help: text(&fields, 2)?,
            kind: match kind {
                0 => "counter",
                1 => "gauge",
                4 => "histogram",
                _ => return None,
            }
            .to_owned(),
            unit: text(&fields, 5),
            samples: samples.collect::<Option<_>>()?,
        };
        families.insert(text(&fields, 1)?, read).is_none().then_some(())?;
    }
    Some((families, native))
}

fn read_metric(
    metric: &[u8],
    kind: u64,
    native: &mut Vec<Native>,
) -> Option<(BTreeMap<String, String>, ReadValue)> {
    let metric = fields(metric)?;
    let labels = all(&metric, 1).map(|label| {
        let label = fields(label)?;
        Some((text(&label, 1)?, text(&label, 2)?))
    });
    let field = match kind {
        0 => 3,
        1 => 2,
        _ => 7,
    };
    let value = fields(all(&metric, field).next()?)?;
    let value = match kind {
        4 => {
            native.push(read_native(&value)?);
            let classic = all(&value, 3).map(|bucket| {
                let bucket = fields(bucket)?;
                Some((double(&bucket, 2)?, number(&bucket, 1)?))
            });
            let classic = classic.collect::<Option<_>>()?;
            ReadValue::Histogram { count: number(&value, 1)?, sum: double(&value, 2)?, classic }
        }
        _ => ReadValue::Number(double(&value, 1)?),
    };
    Some((labels.collect::<Option<_>>()?, value))
}

fn read_native(histogram: &Fields<'_>) -> Option<Native> {
    let signed = |n: u64| i64::try_from(n >> 1).ok().map(|half| if n & 1 == 1 { -half - 1 } else { half });
    (signed(number(histogram, 5)?)? == 5 && double(histogram, 6)? > 0.0).then_some(())?;
    let mut deltas = histogram.iter().filter(|(field, _)| *field == 13);
    let (mut next, mut count, mut buckets) = (0_i64, 0_i64, Vec::new());
    for span in all(histogram, 12) {
        let span = fields(span)?;
        next += signed(number(&span, 1)?)?;
        for _ in 0..number(&span, 2)? {
            let (_, Field::Number(delta)) = deltas.next()? else { return None };
            count += signed(*delta)?;
            buckets.push((i32::try_from(next).ok()?, u64::try_from(count).ok()?));
            next += 1;
        }
    }
    deltas.next().is_none().then_some((number(histogram, 7)?, buckets))
}

fn fields(mut message: &[u8]) -> Option<Fields<'_>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => {
                let (bytes, rest) = message.split_first_chunk()?;
                message = rest;
                Field::Double(f64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        fields.push((key >> 3, field));
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

fn all<'a>(fields: &Fields<'a>, wanted: u64) -> impl Iterator<Item = &'a [u8]> {
    let bytes = fields.iter().filter_map(move |(field, value)| match value {
        Field::Bytes(bytes) if *field == wanted => Some(*bytes),
        Field::Bytes(_) | Field::Number(_) | Field::Double(_) => None,
    });
    bytes.collect::<Vec<_>>().into_iter()
}

fn text(fields: &Fields<'_>, wanted: u64) -> Option<String> {
    String::from_utf8(all(fields, wanted).next()?.to_vec()).ok()
}

fn number(fields: &Fields<'_>, wanted: u64) -> Option<u64> {
    fields.iter().find_map(|(field, value)| match value {
        Field::Number(n) if *field == wanted => Some(*n),
        Field::Bytes(_) | Field::Number(_) | Field::Double(_) => None,
    })
}

fn double(fields: &Fields<'_>, wanted: u64) -> Option<f64> {
    fields.iter().find_map(|(field, value)| match value {
        Field::Double(value) if *field == wanted => Some(*value),
        Field::Bytes(_) | Field::Number(_) | Field::Double(_) => None,
    })
}
