//! Which tuples belong to which window. Pure: positions and times, no tuples.

use std::collections::{BTreeMap, VecDeque};

use super::Shape;

/// Times of the tuples that are kept, in ascending order, and the windows that are not complete.
#[derive(Debug)]
pub(super) struct Panes<S> {
    shape: Shape,
    // Times in milliseconds; zeros for windows by count.
    times: VecDeque<i64>,
    // By count: tuples since the last window. By time: end of the next window, once a tuple came.
    since: usize,
    next_end: Option<i64>,
    // True once a window was complete.
    has_passed: bool,
    // Latest time of each source.
    latest: BTreeMap<S, i64>,
}

/// A complete window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Complete {
    /// Its tuples are the first ones that are kept, so many.
    pub(super) n: usize,
    /// Start and end in milliseconds, of a window by time. The end is not a part of it.
    pub(super) span: Option<(i64, i64)>,
}

impl<S: Ord> Panes<S> {
    pub(super) fn new(shape: Shape) -> Self {
        let times = VecDeque::new();
        Self { shape, times, since: 0, next_end: None, has_passed: false, latest: BTreeMap::new() }
    }

    /// Number of tuples that are kept.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Adds a tuple of `source` with the time `at`, which counts for windows by time only. Returns its
    /// position among those that are kept; `None` if all windows that it belongs to are complete: it is late,
    /// and not kept.
    pub(super) fn add(&mut self, source: S, at: i64) -> Option<usize> {
        match self.shape {
            Shape::Count { .. } => {
                self.times.push_back(0);
                self.since += 1;
                Some(self.times.len() - 1)
            }
            Shape::Time { length, slide, .. } => {
                let latest = self.latest.entry(source).or_insert(at);
                *latest = at.max(*latest);
                let next_end = *self.next_end.get_or_insert_with(|| first_end(at, length, slide));
                if at < next_end - length {
                    // Before any window was complete, an earlier one may begin.
                    if self.has_passed {
                        return None;
                    }
                    self.next_end = Some(first_end(at, length, slide));
                }
                let position = self.times.partition_point(|time| *time <= at);
                self.times.insert(position, at);
                Some(position)
            }
        }
    }

    /// Returns the next complete window. Call [`pass`](Self::pass) when it is processed.
    pub(super) fn complete(&mut self) -> Option<Complete> {
        match self.shape {
            Shape::Count { slide, .. } => {
                (self.since >= slide).then_some(Complete { n: self.times.len(), span: None })
            }
            Shape::Time { length, slide, lag, .. } => {
                // No tuple before this time is expected any more.
                let watermark = self.latest.values().min()?.saturating_sub(lag);
                let earliest = *self.times.front()?;
                // Windows without tuples are left out.
                let end = self.next_end?.max(first_end(earliest, length, slide));
                if end > watermark {
                    return None;
                }
                self.next_end = Some(end);
                let n = self.times.partition_point(|time| *time < end);
                Some(Complete { n, span: Some((end - length, end)) })
            }
        }
    }

    /// Goes on to the next window. Returns the number of tuples, from the first one on, that belong to none
    /// any more.
    pub(super) fn pass(&mut self) -> usize {
        let n = match self.shape {
            Shape::Count { length, slide } => {
                self.since = 0;
                self.times.len().saturating_sub(length - slide)
            }
            Shape::Time { length, slide, .. } => {
                self.has_passed = true;
                let next_end = self.next_end.map(|end| end.saturating_add(slide));
                self.next_end = next_end;
                let begin = next_end.map_or(i64::MIN, |end| end.saturating_sub(length));
                self.times.partition_point(|time| *time < begin)
            }
        };
        self.times.drain(..n);
        n
    }

    /// Forgets the first `n` tuples.
    pub(super) fn forget(&mut self, n: usize) {
        self.times.drain(..n);
    }
}

/// End of the first window that a tuple at this time belongs to. Windows begin at multiples of `slide` since
/// 1970.
fn first_end(at: i64, length: i64, slide: i64) -> i64 {
    let last_start = at.div_euclid(slide) * slide;
    // The earliest start after `at - length`.
    let n_more = (length - 1 - (at - last_start)).div_euclid(slide);
    last_start.saturating_sub(n_more * slide).saturating_add(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_time(length: i64, slide: i64, lag: i64) -> Panes<u32> {
        Panes::new(Shape::Time { length, slide, lag })
    }

    /// Adds tuples one after the other. Returns the windows, as their start and the times of their tuples,
    /// and the times that were late.
    fn windows(panes: &mut Panes<u32>, tuples: &[(u32, i64)]) -> (Vec<(i64, Vec<i64>)>, Vec<i64>) {
        let (mut kept, mut found, mut late) = (VecDeque::new(), Vec::new(), Vec::new());
        for (source, at) in tuples {
            match panes.add(*source, *at) {
                Some(position) => kept.insert(position, *at),
                None => late.push(*at),
            }
            while let Some(Complete { n, span }) = panes.complete() {
                let start = span.map_or(-1, |(start, _)| start);
                found.push((start, kept.range(..n).copied().collect()));
                kept.drain(..panes.pass());
                assert_eq!(kept.len(), panes.len());
            }
        }
        (found, late)
    }

    fn of_one(times: &[i64]) -> Vec<(u32, i64)> {
        times.iter().map(|at| (1, *at)).collect()
    }

    #[test]
    fn count_windows_tumble_and_slide() {
        let check = |length, slide, expected: &[&[i64]]| {
            let mut panes = Panes::new(Shape::Count { length, slide });
            let tuples: Vec<(u32, i64)> = (0..7).map(|n| (1, n)).collect();
            let (found, late) = windows(&mut panes, &tuples);
            assert_eq!(found.into_iter().map(|(_, tuples)| tuples).collect::<Vec<_>>(), expected);
            assert!(late.is_empty());
        };
        check(3, 3, &[&[0, 1, 2], &[3, 4, 5]]);
        check(3, 2, &[&[0, 1], &[1, 2, 3], &[3, 4, 5]]);
        check(1, 1, &[&[0], &[1], &[2], &[3], &[4], &[5], &[6]]);
    }

    #[test]
    fn time_windows_are_complete_when_the_watermark_has_passed_their_end() {
        let (found, late) = windows(&mut by_time(10, 10, 0), &of_one(&[3, 7, 12, 9, 45, 41, 50]));
        // 9 came when its window was complete; windows without tuples are left out.
        assert_eq!(found, [(0, vec![3, 7]), (10, vec![12]), (40, vec![41, 45])]);
        assert_eq!(late, [9]);
        let (found, late) = windows(&mut by_time(10, 10, 5), &of_one(&[3, 7, 12, 9, 15]));
        assert_eq!((found, late), (vec![(0, vec![3, 7, 9])], vec![]));
    }

    #[test]
    fn sliding_windows_share_tuples_and_late_ones_are_in_no_window_any_more() {
        let (found, late) = windows(&mut by_time(10, 5, 0), &of_one(&[1, 6, 11, 4, 7, 16]));
        // 4 was in two windows that are complete; 7 is in one that is not.
        assert_eq!(found, [(-5, vec![1]), (0, vec![1, 6]), (5, vec![6, 7, 11])]);
        assert_eq!(late, [4]);
    }

    #[test]
    fn slowest_source_holds_the_watermark() {
        let tuples = [(1, 5), (2, 3), (1, 30), (2, 8), (2, 12)];
        let (found, late) = windows(&mut by_time(10, 10, 0), &tuples);
        assert_eq!((found, late), (vec![(0, vec![3, 5, 8])], vec![]));
    }

    #[test]
    fn tuples_within_the_lag_are_in_a_window_although_later_ones_are_kept() {
        let (found, late) = windows(&mut by_time(10, 10, 30), &of_one(&[5, 41, 75, 35, 92]));
        assert_eq!((found, late), (vec![(0, vec![5]), (30, vec![35]), (40, vec![41])], vec![]));
    }

    #[test]
    fn earlier_tuple_before_the_first_window_moves_its_start() {
        let (found, late) = windows(&mut by_time(10, 10, 20), &of_one(&[25, 3, 31]));
        assert_eq!((found, late), (vec![(0, vec![3])], vec![]));
        let (found, _) = windows(&mut by_time(10, 10, 0), &of_one(&[-3, 11]));
        assert_eq!(found, [(-10, vec![-3])]);
    }

    proptest! {
        #[test]
        fn each_tuple_is_in_every_window_of_its_time_or_late(
            length in 1i64..20,
            slides in 1i64..20,
            lag in 0i64..30,
            times in prop::collection::vec(-50i64..200, 1..60),
        ) {
            let slide = slides.min(length);
            let mut panes = by_time(length, slide, lag);
            // A last tuple completes all windows.
            let mut tuples = of_one(&times);
            tuples.push((1, 10_000));
            let (found, late) = windows(&mut panes, &tuples);
            let mut on_time = times.clone();
            for at in &late {
                let position = on_time.iter().position(|time| time == at).expect("given");
                on_time.remove(position);
            }
            for (start, of_window) in &found {
                prop_assert_eq!(start.rem_euclid(slide), 0);
                prop_assert!(!of_window.is_empty());
                prop_assert!(of_window.iter().all(|at| (*start..start + length).contains(at)));
            }
            let starts: Vec<i64> = found.iter().map(|(start, _)| *start).collect();
            prop_assert!(starts.is_sorted_by(|one, other| one < other), "{:?}", starts);
            // Tuples that were never late are in all of their windows, unless one was complete before they
            // came.
            let n: usize = found.iter().map(|(_, tuples)| tuples.len()).sum();
            let most = on_time.iter().map(|at| {
                let first = first_end(*at, length, slide);
                ((at + length - first).div_euclid(slide) + 1) as usize
            }).sum::<usize>();
            prop_assert!(n <= most);
            if lag >= 250 || times.is_sorted() {
                prop_assert_eq!((n, late.len()), (most, 0));
            }
        }
    }
}
