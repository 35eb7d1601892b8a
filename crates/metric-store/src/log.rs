//! Metric log of this nimbus: its extent, its truncation, and the pages that followers read.

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

/// Approximate size of a segment: the log is truncated by segments, one write for many entries.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Maximum age of a growing segment: the age of entries is known per segment.
const SEGMENT_AGE: Duration = Duration::from_secs(10 * 60);

/// Maximum size of one page, whatever the query asks for; a single entry may be larger.
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// Maximum number of entries of one page.
const PAGE_ENTRIES_MAX: usize = 10_000;

/// Extent of the log. Each nimbus truncates its own log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogExtent {
    /// Last entry that was truncated.
    pub(super) base: LogPosition,
    segments: Vec<Segment>,
    /// Segment that still grows.
    #[serde(skip)]
    open: Option<Segment>,
}

impl LogExtent {
    pub(super) fn load(view: &View<'_>, last: LogPosition, now: Timestamp) -> Result<Self, Error> {
        let mut extent: Self = match view.get(Table::State, &key::setting(Setting::Segments))? {
            Some(bytes) => record::decode("the segments of the log", &bytes)?,
            None => Self::default(),
        };
        let known = extent.segments.last().map_or(extent.base.index, |segment| segment.last);
        if last.index > known {
            let mut bytes = 0;
            view.scan(Table::Log, &entries(known + 1, last.index), |key, value| {
                bytes += split(key::number_of(key).unwrap_or_default(), value)?.1.len() as u64;
                Ok(ControlFlow::Continue(()))
            })?;
            extent.open = Some(Segment { term: last.term, last: last.index, bytes, at: now });
        }
        Ok(extent)
    }

    /// Adds an entry, and truncates the oldest segments beyond the limits.
    pub(super) fn with(
        &self,
        at: LogPosition,
        bytes: u64,
        now: Timestamp,
        max: (u64, Duration),
    ) -> (Self, Truncation) {
        let mut extent = self.clone();
        let begun = extent.open.map_or(now, |open| open.at);
        let so_far = extent.open.map_or(0, |open| open.bytes);
        let grown = Segment { term: at.term, last: at.index, bytes: so_far + bytes, at: begun };
        let is_full = grown.bytes >= SEGMENT_BYTES || now.since(begun) >= SEGMENT_AGE;
        if !is_full {
            extent.open = Some(grown);
            return (extent, Truncation::None);
        }
        extent.open = None;
        extent.segments.push(Segment { at: now, ..grown });
        let mut total = extent.bytes();
        // The last segment stays: there is always an entry that identifies the end of the log.
        let n_gone = extent.segments[..extent.segments.len() - 1]
            .iter()
            .take_while(|segment| {
                let goes = total > max.0 || now.since(segment.at) > max.1;
                total -= if goes { segment.bytes } else { 0 };
                goes
            })
            .count();
        let from = extent.base.index + 1;
        let Some(last) = extent.segments.drain(..n_gone).next_back() else {
            return (extent, Truncation::Keep);
        };
        extent.base = LogPosition { term: last.term, index: last.last };
        (extent, Truncation::Drop(entries(from, last.last)))
    }

    pub(super) fn write(&self, truncation: &Truncation, batch: &mut Batch<'_>) {
        match truncation {
            Truncation::None => return,
            Truncation::Keep => {}
            Truncation::Drop(range) => batch.delete_range(Table::Log, range),
        }
        batch.put(Table::State, &key::setting(Setting::Segments), &record::encode(self));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().chain(&self.open).map(|segment| segment.bytes).sum()
    }
}

/// Truncation of the log's begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Truncation {
    /// Only the growing segment changed.
    None,
    /// A segment is complete.
    Keep,
    /// A segment is complete, and these entries are deleted.
    Drop(key::Range),
}

fn entries(from: u64, through: u64) -> key::Range {
    (key::log(from).to_vec(), key::log(through.saturating_add(1)).to_vec())
}

/// Returns the stored form of an entry.
pub(super) fn stored(term: i32, entry: &[u8]) -> Vec<u8> {
    [&term.to_be_bytes()[..], entry].concat()
}

pub(super) fn split(index: u64, value: &[u8]) -> Result<(i32, &[u8]), Error> {
    let (term, entry) = value.split_first_chunk().ok_or_else(|| Error::Unreadable {
        what: format!("log entry {index}"),
        detail: "it is too short".to_owned(),
    })?;
    Ok((i32::from_be_bytes(*term), entry))
}

/// Returns the entries after the follower's last one, up to `last`, the last one on disk.
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
        // The log was truncated during this read.
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

/// Returns whether this log contains the entry at which the follower's log ends.
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
    fn log_is_truncated_from_its_begin_by_size_and_by_age() {
        let at = |secs: u64| Timestamp::from_millis(secs * 1000);
        let max = (10 << 20, Duration::from_secs(3600));
        let (mut extent, mut dropped) = (LogExtent::default(), Vec::new());
        for index in 1..=10 {
            let (next, truncation) = extent.with(LogPosition { term: 3, index }, 3 << 20, at(index), max);
            if let Truncation::Drop(range) = truncation {
                dropped.push((key::number_of(&range.0), key::number_of(&range.1)));
            }
            extent = next;
        }
        // Two entries are a segment; one complete segment and the growing one fit.
        assert_eq!(dropped, [(Some(1), Some(3)), (Some(3), Some(5)), (Some(5), Some(7)), (Some(7), Some(9))]);
        assert_eq!(extent.base, LogPosition { term: 3, index: 8 });
        assert_eq!(extent.bytes(), 6 << 20);
        let (extent, truncation) = extent.with(LogPosition { term: 4, index: 11 }, 5 << 20, at(4000), max);
        assert!(matches!(truncation, Truncation::Drop(_)));
        assert_eq!(extent.base, LogPosition { term: 3, index: 10 });
    }
}
