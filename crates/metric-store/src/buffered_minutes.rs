//! Minutes whose points are in the buffer of the database, which is written to a file once there are
//! enough of them.
//!
//! The point of a day gets a value in each minute, also in minutes of the past that arrive late, and
//! each read merges those that are in the buffer. So minutes are counted, whatever their order.

use std::collections::BTreeSet;

use stormkeeper_metrics::Minute;

/// Number of minutes in the buffer at which it is written to a file.
const MINUTES_MAX: usize = 16;

/// The minutes since the buffer was written last, fewer than [`MINUTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct BufferedMinutes(BTreeSet<Minute>);

impl BufferedMinutes {
    /// Adds the minute of new points. Returns whether the buffer is to be written now.
    pub(super) fn add(&mut self, minute: Minute) -> bool {
        self.0.insert(minute);
        let is_full = self.0.len() >= MINUTES_MAX;
        if is_full {
            self.0.clear();
        }
        is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_writes(minutes: impl IntoIterator<Item = u32>) -> usize {
        let mut buffered = BufferedMinutes::default();
        minutes.into_iter().filter(|minute| buffered.add(Minute(*minute))).count()
    }

    #[test]
    fn buffer_is_written_after_sixteen_minutes_however_many_batches_each_has() {
        assert_eq!(n_writes(1000..1160), 10);
        assert_eq!(n_writes((1000..1160).flat_map(|minute| [minute; 300])), 10);
        assert_eq!(n_writes([1000; 10_000]), 0);
    }

    #[test]
    fn minutes_of_the_past_count_although_a_later_one_came_before() {
        // A worker that was cut off for a day, while the nimbus measured itself.
        assert_eq!(n_writes([2000].into_iter().chain(560..2000)), 90);
    }
}
