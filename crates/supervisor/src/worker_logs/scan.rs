//! Search in logs: the last lines of a launch that satisfy a filter, within limits.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    time::Duration,
};

use super::{LogName, OpenLog, WorkerLogStore};
use stormkeeper_api_types::{
    log_lines::{LINES_MAX, LineFilter, LineSelector},
    message::logs::{LogCursor, LogLine, LogPosition},
};
use stormkeeper_model::{
    WorkerId,
    clock::{Clock, Monotonic},
};

/// Maximum bytes of the lines of a response.
const RESULT_BYTES_MAX: usize = 4 << 20;

/// Maximum bytes of the files that one search reads: all logs of two verbose workers.
const READ_BYTES_MAX: u64 = 128 << 20;

/// Maximum time of one search.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Maximum bytes of a line; a longer one is read as several.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Number of lines between two looks at the clock.
const LINES_PER_CHECK: u32 = 1000;

/// One search over any number of launches, with what it may still read and return.
#[derive(Debug)]
pub(crate) struct Scan {
    filter: LineFilter,
    /// Number of last lines of each launch.
    n_last: usize,
    bytes_left: u64,
    result_bytes_left: usize,
    lines_left: usize,
    clock: Clock,
    deadline: Monotonic,
    incomplete: Option<String>,
}

/// Lines of a launch, and the positions after them.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) lines: Vec<LogLine>,
    pub(crate) next: Vec<LogCursor>,
}

/// The last lines, bounded in number and bytes.
#[derive(Debug)]
struct Last {
    lines: VecDeque<LogLine>,
    n_max: usize,
    n_bytes: usize,
    bytes_max: usize,
    /// True if lines were dropped because of their bytes.
    is_full: bool,
}

impl Last {
    fn push(&mut self, line: LogLine) {
        self.n_bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > self.n_max || self.n_bytes > self.bytes_max {
            self.is_full |= self.n_bytes > self.bytes_max;
            let Some(dropped) = self.lines.pop_front() else { break };
            self.n_bytes -= dropped.text.len();
        }
    }
}

impl Scan {
    /// Starts a search for the last `n_last` lines of each launch.
    pub(crate) fn new(filter: LineFilter, n_last: usize, clock: Clock) -> Self {
        Self {
            filter,
            n_last: n_last.min(LINES_MAX),
            bytes_left: READ_BYTES_MAX,
            result_bytes_left: RESULT_BYTES_MAX,
            lines_left: LINES_MAX,
            deadline: clock.monotonic().plus(TIME_MAX),
            clock,
            incomplete: None,
        }
    }

    /// Returns why older lines may be missing, if a limit was reached.
    pub(crate) fn incomplete(self) -> Option<String> {
        self.incomplete
    }

    /// Searches the logs of a launch, the newest parts first: what a limit leaves out is old.
    pub(crate) fn search(&mut self, store: &WorkerLogStore, worker: &WorkerId) -> Found {
        let mut wanted = self.n_last.min(self.lines_left);
        if wanted < self.n_last {
            self.note(format!("the search has found {LINES_MAX} lines"));
        }
        let (mut newest_first, mut next) = (Vec::new(), Vec::new());
        for log in LogName::newest() {
            // A log that is not there yet, or was removed, is followed from its beginning.
            let parts = store.parts(worker, log).unwrap_or_default();
            let position =
                parts.first().map(|part| LogPosition { identity: part.identity.clone(), offset: part.size });
            next.push(LogCursor { file: log.to_string(), position: position.unwrap_or_default() });
            for part in parts {
                if wanted == 0 || !self.may_go_on() {
                    break;
                }
                let found = self.search_part(part, wanted);
                wanted -= found.len();
                newest_first.push(found);
            }
        }
        let lines: Vec<LogLine> = newest_first.into_iter().rev().flatten().collect();
        self.lines_left -= lines.len();
        Found { lines, next }
    }

    /// Returns whether another part may be read.
    fn may_go_on(&mut self) -> bool {
        if self.clock.monotonic() >= self.deadline {
            self.note(format!("the search takes at most {} s", TIME_MAX.as_secs()));
            return false;
        }
        self.result_bytes_left > 0
    }

    /// Returns the last lines of a part of a log, at most `wanted`.
    fn search_part(&mut self, part: OpenLog, wanted: usize) -> VecDeque<LogLine> {
        // The last lines need no more than their own bytes.
        let of_lines = (wanted as u64).saturating_mul(1 << 10).max(64 << 10);
        let n_bytes = part.size.min(if self.is_tail() { of_lines } else { u64::MAX }).min(self.bytes_left);
        if n_bytes < part.size && n_bytes == self.bytes_left {
            self.note(format!("the search reads at most {} MiB", READ_BYTES_MAX >> 20));
        }
        self.bytes_left -= n_bytes;
        let (lines, bytes_max) = (VecDeque::new(), self.result_bytes_left);
        let mut last = Last { lines, n_max: wanted, n_bytes: 0, bytes_max, is_full: false };
        // A file that cannot be read any more has no further lines.
        let _unread = self.read_lines(part, n_bytes, &mut last);
        self.result_bytes_left -= last.n_bytes;
        if last.is_full {
            self.result_bytes_left = 0;
            self.note(format!("the lines have more than {} MiB", RESULT_BYTES_MAX >> 20));
        }
        last.lines
    }

    /// Returns whether the last lines are asked for, whatever they say.
    fn is_tail(&self) -> bool {
        self.filter == LineFilter::default()
    }

    /// Reads the last `n_bytes` bytes of a part of a log, and keeps the selected lines in `last`.
    fn read_lines(&mut self, part: OpenLog, n_bytes: u64, last: &mut Last) -> io::Result<()> {
        let OpenLog { name, mut file, size, .. } = part;
        let mut keep =
            |(offset, text): (u64, String)| last.push(LogLine { file: name.to_string(), offset, text });
        let mut selector = LineSelector::new(self.filter.clone());
        let mut offset = size - n_bytes;
        // One byte more shows whether a line begins there.
        let mut is_cut = offset > 0;
        offset -= u64::from(is_cut);
        file.seek(SeekFrom::Start(offset))?;
        let mut reader = BufReader::with_capacity(1 << 16, file.take(size - offset));
        let (mut n_lines, mut line) = (0_u32, Vec::new());
        loop {
            line.clear();
            let n = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? as u64;
            n_lines += 1;
            if n_lines.is_multiple_of(LINES_PER_CHECK) && self.clock.monotonic() >= self.deadline {
                self.note(format!("the search takes at most {} s", TIME_MAX.as_secs()));
                break;
            }
            if n == 0 {
                break;
            }
            let at = offset;
            offset += n;
            if std::mem::take(&mut is_cut) {
                continue;
            }
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
            selector.push(at, text).into_iter().for_each(&mut keep);
        }
        selector.finish().into_iter().for_each(keep);
        Ok(())
    }

    fn note(&mut self, reason: String) {
        self.incomplete.get_or_insert(reason);
    }
}
