//! The log: where it begins, when its beginning goes, and what followers read of it.

use std::{ops::ControlFlow, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Error,
    key::{self, Setting, Table},
    record::{self, Segment},
    store::{Batch, View},
};
use stormkeeper_metrics::protocol::{LogPage, LogQuery};
use stormkeeper_model::{LogPosition, Timestamp};

/// The log goes in pieces of about this size, so that going costs one write for many entries.
const SEGMENT_BYTES: u64 = 4 << 20;

/// A piece ends after this time as well: age is known by the piece.
const SEGMENT_AGE: Duration = Duration::from_secs(10 * 60);

/// The most bytes of one page, whatever was asked for; one entry may be larger.
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// The most entries of one page.
const PAGE_ENTRIES_MAX: usize = 10_000;

/// What the log holds. Each nimbus trims its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    /// The last entry that is gone.
    pub(super) base: LogPosition,
    segments: Vec<Segment>,
    /// The one that still grows.
    #[serde(skip)]
    open: Option<Segment>,
}

impl Shape {
    pub(super) fn load(view: &View<'_>, last: LogPosition, now: Timestamp) -> Result<Self, Error> {
        let mut shape: Self = match view.get(Table::State, &key::setting(Setting::Segments))? {
            Some(bytes) => record::decode("the parts of the log", &bytes)?,
            None => Self::default(),
        };
        let known = shape.segments.last().map_or(shape.base.index, |segment| segment.last);
        if last.index > known {
            let mut bytes = 0;
            view.scan(Table::Log, &entries(known + 1, last.index), |key, value| {
                bytes += split(key::number_of(key).unwrap_or_default(), value)?.1.len() as u64;
                Ok(ControlFlow::Continue(()))
            })?;
            shape.open = Some(Segment { term: last.term, last: last.index, bytes, at: now });
        }
        Ok(shape)
    }

    /// Adds an entry, and lets the oldest go that are over the bounds.
    pub(super) fn with(
        &self,
        at: LogPosition,
        bytes: u64,
        now: Timestamp,
        max: (u64, Duration),
    ) -> (Self, Trim) {
        let mut shape = self.clone();
        let begun = shape.open.map_or(now, |open| open.at);
        let so_far = shape.open.map_or(0, |open| open.bytes);
        let grown = Segment { term: at.term, last: at.index, bytes: so_far + bytes, at: begun };
        let is_full = grown.bytes >= SEGMENT_BYTES || now.since(begun) >= SEGMENT_AGE;
        if !is_full {
            shape.open = Some(grown);
            return (shape, Trim::None);
        }
        shape.open = None;
        shape.segments.push(Segment { at: now, ..grown });
        let mut total = shape.bytes();
        // The last piece stays: where the log ends is always known by an entry.
        let n_gone = shape.segments[..shape.segments.len() - 1]
            .iter()
            .take_while(|segment| {
                let goes = total > max.0 || now.since(segment.at) > max.1;
                total -= if goes { segment.bytes } else { 0 };
                goes
            })
            .count();
        let from = shape.base.index + 1;
        let Some(last) = shape.segments.drain(..n_gone).next_back() else { return (shape, Trim::Keep) };
        shape.base = LogPosition { term: last.term, index: last.last };
        (shape, Trim::Drop(entries(from, last.last)))
    }

    pub(super) fn write(&self, trim: &Trim, batch: &mut Batch<'_>) {
        match trim {
            Trim::None => return,
            Trim::Keep => {}
            Trim::Drop(range) => batch.delete_range(Table::Log, range),
        }
        batch.put(Table::State, &key::setting(Setting::Segments), &record::encode(self));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().chain(&self.open).map(|segment| segment.bytes).sum()
    }
}

/// What becomes of the log's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trim {
    /// Nothing changed but the open piece.
    None,
    /// A piece is complete.
    Keep,
    /// And these entries go.
    Drop(key::Range),
}

fn entries(from: u64, through: u64) -> key::Range {
    (key::log(from).to_vec(), key::log(through.saturating_add(1)).to_vec())
}

/// An entry as it stands in the log.
pub(super) fn stored(term: i32, entry: &[u8]) -> Vec<u8> {
    [&term.to_be_bytes()[..], entry].concat()
}

fn split(index: u64, value: &[u8]) -> Result<(i32, &[u8]), Error> {
    let (term, entry) = value.split_first_chunk().ok_or_else(|| Error::Unreadable {
        what: format!("log entry {index}"),
        detail: "it is too short".to_owned(),
    })?;
    Ok((i32::from_be_bytes(*term), entry))
}

/// The entries after those that the asker has, up to `last`, the last one on disk.
pub(super) fn after(
    view: &View<'_>,
    base: LogPosition,
    last: LogPosition,
    query: &LogQuery,
) -> Result<LogPage, Error> {
    let has = LogPosition { term: query.term, index: query.index };
    if !agrees(view, base, last, has)? {
        return Ok(LogPage::Diverged);
    }
    let (mut page, mut bytes, max) = (Vec::new(), 0, query.max_bytes.min(PAGE_BYTES_MAX));
    let mut gap = false;
    view.scan(Table::Log, &entries(has.index + 1, last.index), |key, value| {
        let index = key::number_of(key).unwrap_or_default();
        let (term, entry) = split(index, value)?;
        // It was trimmed while this was read.
        gap = index != has.index + 1 + page.len() as u64;
        let is_full = bytes > 0 && bytes + entry.len() as u64 > max || page.len() >= PAGE_ENTRIES_MAX;
        if gap || is_full {
            return Ok(ControlFlow::Break(()));
        }
        bytes += entry.len() as u64;
        page.push((LogPosition { term, index }, entry.to_vec()));
        Ok(ControlFlow::Continue(()))
    })?;
    let gap = gap || page.is_empty() && has.index < last.index;
    Ok(if gap { LogPage::Diverged } else { LogPage::Entries { entries: page, last } })
}

/// Whether the entry that the asker has last is the one that stands there.
fn agrees(view: &View<'_>, base: LogPosition, last: LogPosition, has: LogPosition) -> Result<bool, Error> {
    if has.index < base.index || has.index > last.index {
        return Ok(false);
    }
    if has.index == base.index || has.index == 0 {
        return Ok(has.term == base.term || has.index == 0);
    }
    let Some(value) = view.get(Table::Log, &key::log(has.index))? else { return Ok(false) };
    Ok(split(has.index, &value)?.0 == has.term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_goes_from_its_beginning_by_size_and_by_age() {
        let at = |secs: u64| Timestamp::from_millis(secs * 1000);
        let max = (10 << 20, Duration::from_secs(3600));
        let (mut shape, mut dropped) = (Shape::default(), Vec::new());
        for index in 1..=10 {
            let (next, trim) = shape.with(LogPosition { term: 3, index }, 3 << 20, at(index), max);
            if let Trim::Drop(range) = trim {
                dropped.push((key::number_of(&range.0), key::number_of(&range.1)));
            }
            shape = next;
        }
        // Two entries are a piece; one piece and the open one fit.
        assert_eq!(dropped, [(Some(1), Some(3)), (Some(3), Some(5)), (Some(5), Some(7)), (Some(7), Some(9))]);
        assert_eq!(shape.base, LogPosition { term: 3, index: 8 });
        assert_eq!(shape.bytes(), 6 << 20);
        let (shape, trim) = shape.with(LogPosition { term: 4, index: 11 }, 5 << 20, at(4000), max);
        assert!(matches!(trim, Trim::Drop(_)));
        assert_eq!(shape.base, LogPosition { term: 3, index: 10 });
    }
}
