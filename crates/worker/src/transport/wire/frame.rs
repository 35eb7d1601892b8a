//! Writing of a batch: rows of a queue become the entries of a frame, their values as they are.

use std::{collections::HashMap, sync::Arc};

use super::{
    FULL_FRAME_BYTES, LENGTH_BYTES, close_frame,
    marks::{MARK_BYTES_MAX, SEQUENCE_BYTES, Stamp},
    write_to,
};
use crate::{
    limits::{BATCH_TUPLES_MAX, FRAME_BYTES_MAX},
    queue::Inbox,
    transport::replay::Sequence,
};
use stormkeeper_model::clock::{Clock, Monotonic};
use stormkeeper_stream::{Anchor, Origin, Row, write_list_head};

/// A batch of tuples as a frame, under construction or ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct BatchFrame {
    bytes: Vec<u8>,
    entries: Vec<u8>,
    n_tuples: usize,
    oldest: Option<Monotonic>,
    // The sequence of the last frame, of a sender that numbers its frames.
    sequence: Option<Sequence>,
    // Position of the text of the sequence in `bytes`.
    sequence_at: usize,
}

impl BatchFrame {
    /// Frames of a sender that numbers them.
    pub(crate) fn numbered() -> Self {
        let sequence = Sequence { sender: fastrand::u64(..), number: 0 };
        Self { sequence: Some(sequence), ..Self::default() }
    }

    /// Frames of the sender of `sequence` after its frame with that number.
    #[cfg(test)]
    pub(crate) fn after(sequence: Sequence) -> Self {
        Self { sequence: Some(sequence), ..Self::default() }
    }

    /// Takes a new sender's number for the frames of the next connection, an unsent frame included:
    /// what a receiver holds against the old number does not concern the new connection.
    pub(crate) fn begin_connection(&mut self) {
        let Some(sequence) = &mut self.sequence else { return };
        *sequence = Sequence { sender: fastrand::u64(..), number: u64::from(self.n_tuples > 0) };
        if self.n_tuples > 0 {
            let text = sequence.to_text();
            self.bytes[self.sequence_at..][..text.len()].copy_from_slice(text.as_bytes());
        }
    }

    /// Returns the bytes to send; empty if the frame has no tuple.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of tuples, counted once per receiving task.
    pub(crate) fn n_tuples(&self) -> usize {
        self.n_tuples
    }

    /// Clears the frame for the next batch.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.n_tuples = 0;
    }

    /// Takes rows from `queued` until the frame is full or nothing waits. Returns the number of tuples that
    /// were taken and left out because each is too large. With a `clock`, the frame is stamped.
    pub(crate) fn fill(&mut self, queued: &mut Inbox, clock: Option<&Clock>) -> usize {
        self.fill_to(queued, clock, FRAME_BYTES_MAX)
    }

    pub(super) fn fill_to(&mut self, queued: &mut Inbox, clock: Option<&Clock>, limit: usize) -> usize {
        // Reserves room for sequence and stamp, which are written last.
        let n_marks = usize::from(clock.is_some()) + usize::from(self.sequence.is_some());
        let limit = limit - (n_marks * MARK_BYTES_MAX).min(limit / 2);
        self.clear();
        self.oldest = None;
        self.entries.clear();
        let mut origins = Origins::default();
        let (mut n_entries, mut n_oversized) = (0, 0);
        while self.entries.len() < FULL_FRAME_BYTES
            && let Some(row) = queued.peek()
        {
            let n_tuples = row.n_tuples();
            if n_entries > 0 && self.n_tuples + n_tuples > BATCH_TUPLES_MAX {
                break;
            }
            let before = (self.entries.len(), origins.bytes.len(), origins.n);
            write_entry(&mut self.entries, origins.index(row.origin), &row);
            if ENVELOPE_BYTES + origins.bytes.len() + self.entries.len() <= limit {
                n_entries += 1;
                self.n_tuples += n_tuples;
                if self.oldest.is_none() {
                    // Tuples are nearly in the order in which they were emitted.
                    self.oldest = row.emitted_at;
                }
            } else {
                self.entries.truncate(before.0);
                if n_entries > 0 {
                    // The tuple may fit in the next frame; this frame does not need its origin.
                    origins.forget_after(before.1, before.2);
                    break;
                }
                n_oversized += n_tuples;
            }
            queued.skip();
        }
        if n_entries > 0 {
            if let Some(sequence) = &mut self.sequence {
                sequence.number += 1;
                sequence.write_to(&mut origins.bytes);
                origins.n += 1;
                self.sequence_at = ORIGINS_AT + origins.bytes.len() - SEQUENCE_BYTES;
            }
            if let Some(clock) = clock {
                Stamp::of(self.oldest, clock).write_to(&mut origins.bytes);
                origins.n += 1;
            }
            self.close(&origins, n_entries);
        }
        n_oversized
    }

    fn close(&mut self, origins: &Origins, n_entries: u32) {
        self.bytes.reserve(ENVELOPE_BYTES + origins.bytes.len() + self.entries.len());
        self.bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        self.bytes.push(ARRAY_OF_TWO);
        open_array(&mut self.bytes, origins.n);
        self.bytes.extend_from_slice(&origins.bytes);
        open_array(&mut self.bytes, n_entries);
        self.bytes.extend_from_slice(&self.entries);
        close_frame(&mut self.bytes);
    }
}

/// MessagePack markers of an array of two, and of an array whose length follows as a u32.
const ARRAY_OF_TWO: u8 = 0x92;
const ARRAY_32: u8 = 0xdd;

/// Bytes of a batch besides its origins and entries: the length and three array markers.
const ENVELOPE_BYTES: usize = LENGTH_BYTES + 1 + 2 * (1 + size_of::<u32>());

/// Position of the origins of a batch: after the length and two array markers.
const ORIGINS_AT: usize = LENGTH_BYTES + 1 + 1 + size_of::<u32>();

fn open_array(bytes: &mut Vec<u8>, length: u32) {
    bytes.push(ARRAY_32);
    bytes.extend_from_slice(&length.to_be_bytes());
}

/// Origins of a batch under construction; a tuple refers to its origin by index.
#[derive(Default)]
struct Origins {
    bytes: Vec<u8>,
    n: u32,
    // Those in the batch, which are kept, so that no other one has their address. Equal origins at two
    // addresses are in the batch twice, which does no harm.
    known: HashMap<usize, (u32, Arc<Origin>)>,
    last: Option<(usize, u32)>,
}

impl Origins {
    fn index(&mut self, origin: &Arc<Origin>) -> u32 {
        let address = Arc::as_ptr(origin).addr();
        // Most tuples of a batch come in runs from one task.
        if let Some((last, index)) = self.last
            && last == address
        {
            return index;
        }
        let (index, _) = *self.known.entry(address).or_insert_with(|| {
            write_to(&mut self.bytes, &(origin.task, &origin.component, &origin.stream));
            self.n += 1;
            (self.n - 1, Arc::clone(origin))
        });
        self.last = Some((address, index));
        index
    }

    /// Removes all but the first `n`, which take `n_bytes`. Nothing is added afterwards but marks.
    fn forget_after(&mut self, n_bytes: usize, n: u32) {
        self.bytes.truncate(n_bytes);
        self.n = n;
    }
}

/// Writes an entry: origin, values, tasks, and anchors if there are any.
fn write_entry(out: &mut Vec<u8>, origin: u32, row: &Row<'_>) {
    write_list_head(out, if row.anchors.is_empty() { 3 } else { 4 });
    write_number(out, origin.into());
    write_list_head(out, row.values.len());
    out.extend_from_slice(row.values.bytes());
    write_list_head(out, row.tasks.len());
    row.tasks.iter().for_each(|task| write_number(out, task.0.into()));
    if !row.anchors.is_empty() {
        write_list_head(out, 3 * row.anchors.len());
        for Anchor { acker, root, edge } in row.anchors.iter() {
            [u64::from(acker.0), root, edge].into_iter().for_each(|number| write_number(out, number));
        }
    }
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    rmp::encode::write_uint(out, number).expect("writing to memory does not fail");
}
