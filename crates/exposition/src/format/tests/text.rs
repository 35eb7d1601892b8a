//! Reader of the text formats.

use std::collections::BTreeMap;

use super::{Read, ReadValue};

/// Parts of histograms: the families that have a `_bucket`.
#[derive(Debug, Default)]
struct Parts {
    classic: Vec<(f64, u64)>,
    sum: Option<f64>,
    count: Option<u64>,
}

/// Reads a page; returns families by name.
pub(super) fn read(page: &str) -> Result<BTreeMap<String, Read>, String> {
    let mut families: BTreeMap<String, Read> = BTreeMap::new();
    let (mut name, mut parts) = (String::new(), Parts::default());
    for line in page.lines() {
        if line == "# EOF" {
            continue;
        }
        if let Some(head) = line.strip_prefix("# ") {
            let (what, rest) = head.split_once(' ').ok_or("a head")?;
            let (of, text) = rest.split_once(' ').ok_or("a name")?;
            if what == "HELP" {
                let help = unescaped(text)?;
                let new = Read { help, kind: String::new(), unit: None, samples: Vec::new() };
                if families.insert(of.to_owned(), new).is_some() {
                    return Err(format!("{of} comes twice"));
                }
                name = of.to_owned();
            }
            let family = families.get_mut(of).ok_or("HELP comes first")?;
            match what {
                "TYPE" => family.kind = text.to_owned(),
                "UNIT" => family.unit = Some(text.to_owned()),
                _ => {}
            }
            continue;
        }
        let family = families.get_mut(&name).ok_or("a sample without a family")?;
        let (sample, mut labels, value) = sample(line)?;
        let number: f64 = value.parse().map_err(|_| format!("{value} is no number"))?;
        if family.kind != "histogram" {
            let expected = if family.kind == "counter" && !name.ends_with("_total") { "_total" } else { "" };
            if sample != format!("{name}{expected}") {
                return Err(format!("{sample} is not of {name}"));
            }
            family.samples.push((labels, ReadValue::Number(number)));
            continue;
        }
        match sample.strip_prefix(&*name) {
            Some("_bucket") => {
                let bound = labels.remove("le").ok_or("a bucket without le")?;
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().map_err(|_| bound)? };
                parts.classic.push((bound, number as u64));
            }
            Some("_sum") => parts.sum = Some(number),
            Some("_count") => {
                parts.count = Some(number as u64);
                let Parts { mut classic, sum, count } = std::mem::take(&mut parts);
                let count = count.ok_or("no count")?;
                if classic.pop() != Some((f64::INFINITY, count)) {
                    return Err("the last bucket is not the count".to_owned());
                }
                if !classic.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
                    return Err(format!("buckets shrink: {classic:?}"));
                }
                let sum = sum.ok_or("no sum")?;
                family.samples.push((labels, ReadValue::Histogram { count, sum, classic }));
            }
            other => return Err(format!("{other:?} of a histogram")),
        }
    }
    Ok(families)
}

/// Name, labels and value of a line.
type Line<'a> = (&'a str, BTreeMap<String, String>, &'a str);

fn sample(line: &str) -> Result<Line<'_>, String> {
    let end = line.find(['{', ' ']).ok_or("a name")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, value) = rest.split_once("=\"").ok_or("a label")?;
            let end = closing_quote(value).ok_or("a quote")?;
            labels.insert(label.to_owned(), unescaped(&value[..end])?);
            rest = &value[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or("a brace")?;
    }
    Ok((name, labels, rest.strip_prefix(' ').ok_or("a value")?))
}

/// Position of the first quote that is not escaped.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end.then_some(at)
    })
}

fn unescaped(text: &str) -> Result<String, String> {
    let (mut plain, mut rest) = (String::new(), text.chars());
    while let Some(c) = rest.next() {
        plain.push(match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                other => return Err(format!("an escaped {other:?}")),
            },
            c => c,
        });
    }
    Ok(plain)
}
