//! Content of a batch beside its tuples, as origins of no tuple.

use std::{sync::Arc, time::Duration};

use super::write_to;
use crate::transport::replay::Sequence;
use stormkeeper_model::{
    TaskId,
    clock::{Clock, Monotonic},
};
use stormkeeper_stream::Origin;

/// Times of a batch, by the sender's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Time at which the oldest tuple was emitted; `None` if unknown.
    pub(crate) emitted: Option<Duration>,
    /// Time at which the frame was created.
    pub(crate) sent: Duration,
}

/// Component of a stamp's origin.
const STAMP: &str = "__stamp";

/// Component of a sequence's origin.
const SEQUENCE: &str = "__sequence";

/// Length of a sequence's text: two numbers of twenty digits. It is fixed, so that the sequence of an
/// encoded frame can be replaced.
pub(super) const SEQUENCE_BYTES: usize = 2 * 20 + 1;

/// Longest stamp or sequence: its component, two numbers of twenty digits, and markers.
pub(super) const MARK_BYTES_MAX: usize = 64;

/// Content of a batch beside its tuples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) stamp: Option<Stamp>,
    pub(crate) sequence: Option<Sequence>,
}

impl Marks {
    pub(super) fn of(origins: &[Arc<Origin>]) -> Self {
        let Some((last, before)) = origins.split_last() else { return Self::default() };
        let stamp = Stamp::of_origin(last);
        let numbered = if stamp.is_some() { before.last() } else { Some(last) };
        Self { stamp, sequence: numbered.and_then(|origin| Sequence::of_origin(origin)) }
    }
}

impl Sequence {
    pub(super) fn to_text(self) -> String {
        format!("{:020}-{:020}", self.sender, self.number)
    }

    /// Writes it as an origin.
    pub(super) fn write_to(self, origins: &mut Vec<u8>) {
        write_to(origins, &(TaskId(0), SEQUENCE, self.to_text()));
    }

    fn of_origin(origin: &Origin) -> Option<Self> {
        if origin.component.as_str() != SEQUENCE {
            return None;
        }
        let (sender, number) = origin.stream.as_str().split_once('-')?;
        Some(Self { sender: sender.parse().ok()?, number: number.parse().ok()? })
    }
}

impl Stamp {
    pub(super) fn of(oldest: Option<Monotonic>, clock: &Clock) -> Self {
        let (sent, now) = (clock.since_epoch(), clock.monotonic());
        Self { emitted: oldest.map(|oldest| sent.saturating_sub(now.since(oldest))), sent }
    }

    /// Writes it as an origin.
    pub(super) fn write_to(self, origins: &mut Vec<u8>) {
        let emitted = self.emitted.map_or(0, |emitted| emitted.as_micros());
        let stream = format!("{emitted}-{}", self.sent.as_micros());
        write_to(origins, &(TaskId(0), STAMP, stream));
    }

    fn of_origin(origin: &Origin) -> Option<Self> {
        if origin.component.as_str() != STAMP {
            return None;
        }
        let (emitted, sent) = origin.stream.as_str().split_once('-')?;
        let (emitted, sent) = (emitted.parse().ok()?, sent.parse().ok()?);
        let emitted = Some(emitted).filter(|micros| *micros > 0).map(Duration::from_micros);
        Some(Self { emitted, sent: Duration::from_micros(sent) })
    }
}
