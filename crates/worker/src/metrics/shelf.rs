//! Which reports a worker keeps on its disk, and which of them goes to the master next. No I/O.

use std::collections::VecDeque;

/// How many reports wait that were never sent: an hour of one a minute. Beyond it the two oldest
/// become one, so no count is lost and the disk is not filled; their minutes run together.
const NEVER_SENT_MAX: usize = 60;

/// How many reports are sent and not known to be safe. Such a cut may be stored already and is
/// never joined with another, so beyond this none is sent that was not sent before.
const SENT_MAX: usize = 120;

/// The numbers of a cut: its first and its last.
pub(super) type Range = (u64, u64);

/// The reports on the disk, oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    reports: VecDeque<Shelved>,
    // How many of them went to the master of the moment.
    n_with_master: usize,
    // Safe, and the last one.
    kept: Option<Range>,
}

#[derive(Debug)]
struct Shelved {
    range: Range,
    was_sent: bool,
}

impl Shelf {
    /// A new cut is on the disk. Answers the one that is not needed any more.
    pub(super) fn add(&mut self, number: u64) -> Option<Range> {
        self.reports.push_back(Shelved { range: (number, number), was_sent: false });
        self.kept.take()
    }

    /// Two neighbours that are to become one now.
    pub(super) fn to_join(&self) -> Option<(Range, Range)> {
        let first = self.reports.iter().position(|spooled| !spooled.was_sent)?;
        let (older, newer) = (self.reports.get(first)?, self.reports.get(first + 1)?);
        (self.reports.len() - first > NEVER_SENT_MAX).then_some((older.range, newer.range))
    }

    /// They are one now.
    pub(super) fn joined(&mut self, older: Range, newer: Range) {
        let place = self.reports.iter().position(|spooled| spooled.range == older);
        if let Some(place) = place {
            self.reports.remove(place);
            if let Some(spooled) = self.reports.get_mut(place) {
                spooled.range = (older.0, newer.1);
            }
        }
    }

    /// What goes to the master next; it counts as sent from now on.
    pub(super) fn next(&mut self) -> Option<Range> {
        let n_sent = self.reports.iter().filter(|spooled| spooled.was_sent).count();
        let spooled = self.reports.get_mut(self.n_with_master)?;
        if !spooled.was_sent && n_sent >= SENT_MAX {
            return None;
        }
        spooled.was_sent = true;
        Some(spooled.range)
    }

    /// The master has the cut with this last number.
    pub(super) fn taken(&mut self, last: u64) {
        let upto = self.reports.iter().take_while(|spooled| spooled.range.1 <= last).count();
        self.n_with_master = self.n_with_master.max(upto);
    }

    /// There is another master, or the same one anew: it gets all that is not safe.
    pub(super) fn begin(&mut self) {
        self.n_with_master = 0;
    }

    /// Everything up to this number is safe. Answers what can be removed; the last cut stays, as
    /// how far the counters were stands in it.
    pub(super) fn safe(&mut self, last: u64) -> Vec<Range> {
        let mut gone = Vec::new();
        // What was never sent is not safe, whatever anybody says.
        while let Some(spooled) =
            self.reports.front().filter(|spooled| spooled.was_sent && spooled.range.1 <= last)
        {
            gone.push(spooled.range);
            self.reports.pop_front();
            self.n_with_master = self.n_with_master.saturating_sub(1);
        }
        if self.reports.is_empty()
            && let Some(last) = gone.pop()
        {
            self.kept = Some(last);
        }
        gone
    }

    /// How many reports are not safe.
    pub(super) fn len(&self) -> usize {
        self.reports.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_sent_in_order_and_again_to_another_master() {
        let mut shelf = Shelf::default();
        assert_eq!(shelf.next(), None);
        for number in 1..=3 {
            assert_eq!(shelf.add(number), None);
        }
        assert_eq!(shelf.next(), Some((1, 1)));
        assert_eq!(shelf.next(), Some((1, 1)), "until the master has it");
        shelf.taken(1);
        assert_eq!(shelf.next(), Some((2, 2)));
        shelf.taken(2);
        assert_eq!(shelf.safe(1), [(1, 1)]);
        assert_eq!(shelf.next(), Some((3, 3)));
        shelf.begin();
        assert_eq!(shelf.next(), Some((2, 2)));
        shelf.taken(3);
        assert_eq!(shelf.safe(3), [(2, 2)], "the last one stays");
        assert_eq!(shelf.next(), None);
        assert_eq!(shelf.add(4), Some((3, 3)));
        assert_eq!(shelf.safe(9), [], "it was never sent");
        assert_eq!(shelf.next(), Some((4, 4)));
    }

    #[test]
    fn an_hour_without_a_master_runs_together_and_no_number_is_missing() {
        let mut shelf = Shelf::default();
        shelf.add(1);
        assert_eq!(shelf.next(), Some((1, 1)));
        for number in 2..500 {
            shelf.add(number);
            while let Some((older, newer)) = shelf.to_join() {
                assert!(older.0 > 1, "what was sent stays as it is");
                shelf.joined(older, newer);
            }
        }
        assert_eq!(shelf.len(), 1 + NEVER_SENT_MAX);
        let mut expected = 1;
        while let Some((first, last)) = shelf.next() {
            assert_eq!(first, expected);
            expected = last + 1;
            shelf.taken(last);
        }
        assert_eq!(expected, 500);
    }

    #[test]
    fn no_more_is_sent_while_too_much_is_not_safe() {
        let mut shelf = Shelf::default();
        for number in 1..=SENT_MAX as u64 + 5 {
            shelf.add(number);
            if let Some((_, last)) = shelf.next() {
                shelf.taken(last);
            }
        }
        assert_eq!(shelf.next(), None);
        assert_eq!(shelf.safe(1), [(1, 1)]);
        assert_eq!(shelf.next().map(|range| range.0), Some(SENT_MAX as u64 + 1));
    }
}
