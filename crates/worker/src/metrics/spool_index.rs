//! Index of the reports in a worker's spool, and the order in which they are sent. No I/O.

use std::collections::VecDeque;

/// Limit of reports that were never sent: one hour at one report a minute. Beyond it the two
/// oldest are joined, so that no count is lost and the disk is not filled; the joined report has
/// the counts of several minutes.
const UNSENT_MAX: usize = 60;

/// Limit of reports that were sent and are not known to be committed. Such a report may already
/// be stored and is never joined with another, so beyond the limit no further report is sent.
const UNCOMMITTED_MAX: usize = 120;

/// First and last sequence number of a report; they differ in a joined report.
pub(super) type ReportRange = (u64, u64);

/// Reports on disk, oldest first.
#[derive(Debug, Default)]
pub(super) struct SpoolIndex {
    reports: VecDeque<SpooledRange>,
    // Number of leading reports that the current topology master has.
    n_with_master: usize,
    // The last report, if it is committed and still on disk.
    last_committed: Option<ReportRange>,
}

#[derive(Debug)]
struct SpooledRange {
    range: ReportRange,
    was_sent: bool,
}

impl SpoolIndex {
    /// Adds a new report on disk. Returns the report that is no longer needed, if any.
    pub(super) fn add(&mut self, number: u64) -> Option<ReportRange> {
        self.reports.push_back(SpooledRange { range: (number, number), was_sent: false });
        self.last_committed.take()
    }

    /// Returns two neighbouring reports that must be joined now.
    pub(super) fn to_join(&self) -> Option<(ReportRange, ReportRange)> {
        let first = self.reports.iter().position(|report| !report.was_sent)?;
        let (older, newer) = (self.reports.get(first)?, self.reports.get(first + 1)?);
        (self.reports.len() - first > UNSENT_MAX).then_some((older.range, newer.range))
    }

    /// Records that two reports were joined.
    pub(super) fn joined(&mut self, older: ReportRange, newer: ReportRange) {
        let position = self.reports.iter().position(|report| report.range == older);
        if let Some(position) = position {
            self.reports.remove(position);
            if let Some(report) = self.reports.get_mut(position) {
                report.range = (older.0, newer.1);
            }
        }
    }

    /// Returns the next report for the master, and marks the report as sent.
    pub(super) fn next(&mut self) -> Option<ReportRange> {
        let n_sent = self.reports.iter().filter(|report| report.was_sent).count();
        let report = self.reports.get_mut(self.n_with_master)?;
        if !report.was_sent && n_sent >= UNCOMMITTED_MAX {
            return None;
        }
        report.was_sent = true;
        Some(report.range)
    }

    /// Records that the master has all reports up to sequence number `last`.
    pub(super) fn accepted(&mut self, last: u64) {
        let n_accepted = self.reports.iter().take_while(|report| report.range.1 <= last).count();
        self.n_with_master = self.n_with_master.max(n_accepted);
    }

    /// Restarts sending, for a new connection to a master: all uncommitted reports are sent again.
    pub(super) fn resend_all(&mut self) {
        self.n_with_master = 0;
    }

    /// Records that all reports up to sequence number `last` are committed. Returns the reports
    /// that can be removed. The last report stays, because it contains the counter positions.
    pub(super) fn committed(&mut self, last: u64) -> Vec<ReportRange> {
        let mut removable = Vec::new();
        // A report that was never sent cannot be committed, whatever the master says.
        while let Some(report) =
            self.reports.front().filter(|report| report.was_sent && report.range.1 <= last)
        {
            removable.push(report.range);
            self.reports.pop_front();
            self.n_with_master = self.n_with_master.saturating_sub(1);
        }
        if self.reports.is_empty()
            && let Some(last) = removable.pop()
        {
            self.last_committed = Some(last);
        }
        removable
    }

    /// Returns the number of uncommitted reports.
    pub(super) fn len(&self) -> usize {
        self.reports.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_sent_in_order_and_again_to_a_new_master() {
        let mut index = SpoolIndex::default();
        assert_eq!(index.next(), None);
        for number in 1..=3 {
            assert_eq!(index.add(number), None);
        }
        assert_eq!(index.next(), Some((1, 1)));
        assert_eq!(index.next(), Some((1, 1)), "until the master has it");
        index.accepted(1);
        assert_eq!(index.next(), Some((2, 2)));
        index.accepted(2);
        assert_eq!(index.committed(1), [(1, 1)]);
        assert_eq!(index.next(), Some((3, 3)));
        index.resend_all();
        assert_eq!(index.next(), Some((2, 2)));
        index.accepted(3);
        assert_eq!(index.committed(3), [(2, 2)], "the last one stays");
        assert_eq!(index.next(), None);
        assert_eq!(index.add(4), Some((3, 3)));
        assert_eq!(index.committed(9), [], "it was never sent");
        assert_eq!(index.next(), Some((4, 4)));
    }

    #[test]
    fn reports_are_joined_after_an_hour_without_a_master_and_no_sequence_number_is_missing() {
        let mut index = SpoolIndex::default();
        index.add(1);
        assert_eq!(index.next(), Some((1, 1)));
        for number in 2..500 {
            index.add(number);
            while let Some((older, newer)) = index.to_join() {
                assert!(older.0 > 1, "what was sent stays as it is");
                index.joined(older, newer);
            }
        }
        assert_eq!(index.len(), 1 + UNSENT_MAX);
        let mut expected = 1;
        while let Some((first, last)) = index.next() {
            assert_eq!(first, expected);
            expected = last + 1;
            index.accepted(last);
        }
        assert_eq!(expected, 500);
    }

    #[test]
    fn no_new_report_is_sent_while_too_many_are_uncommitted() {
        let mut index = SpoolIndex::default();
        for number in 1..=UNCOMMITTED_MAX as u64 + 5 {
            index.add(number);
            if let Some((_, last)) = index.next() {
                index.accepted(last);
            }
        }
        assert_eq!(index.next(), None);
        assert_eq!(index.committed(1), [(1, 1)]);
        assert_eq!(index.next().map(|range| range.0), Some(UNCOMMITTED_MAX as u64 + 1));
    }
}
