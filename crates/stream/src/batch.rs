//! Batches: emissions one after the other, in one buffer.
//!
//! ```text
//! row = length:u32 origin:u32 emitted_at:u64 n_tasks:u32 n_anchors:u32 n_values:u32
//!       task:u32[n_tasks] (acker:u32 root:u64 edge:u64)[n_anchors] values
//! ```
//!
//! It is the form of tuples in the memory of one process: numbers are little-endian, and nothing of it is
//! sent. The values are as between workers.

use std::{iter, sync::Arc};

use crate::{Anchor, Encoded, Origin, Tuple};
use stormkeeper_model::{TaskId, clock::Monotonic};

/// Emissions in order.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    n_rows: usize,
    n_tuples: usize,
    origins: Vec<Arc<Origin>>,
}

/// One emission, to be added to a batch or read from one.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Its origin.
    pub origin: &'a Arc<Origin>,
    /// Receiving tasks, where a batch has rows for several tasks.
    pub tasks: TaskList<'a>,
    /// Its trees.
    pub anchors: AnchorList<'a>,
    /// Time of the emission by the clock of this process, if known.
    pub emitted_at: Option<Monotonic>,
    /// Its values.
    pub values: Encoded<'a>,
}

/// Tasks of a row.
#[derive(Debug, Clone, Copy)]
pub enum TaskList<'a> {
    /// As they are given.
    Given(&'a [TaskId]),
    /// As they lie in a batch.
    Lying(&'a [[u8; TASK_BYTES]]),
}

/// Anchors of a row.
#[derive(Debug, Clone, Copy)]
pub enum AnchorList<'a> {
    /// As they are given.
    Given(&'a [Anchor]),
    /// As they lie in a batch.
    Lying(&'a [[u8; ANCHOR_BYTES]]),
}

const HEAD_BYTES: usize = 28;
const TASK_BYTES: usize = 4;
const ANCHOR_BYTES: usize = 20;

/// Stands for an unknown time of emission.
const UNKNOWN_TIME: u64 = u64::MAX;

impl<'a> Row<'a> {
    /// The emission `tuple` for no named tasks. `values` are its values.
    pub fn of(tuple: &'a Tuple, values: Encoded<'a>) -> Self {
        Self {
            origin: tuple.origin(),
            tasks: TaskList::NONE,
            anchors: AnchorList::Given(tuple.anchors()),
            emitted_at: tuple.emitted_at(),
            values,
        }
    }

    /// Number of tuples: one for each task, and one if no tasks are named.
    #[inline]
    pub fn n_tuples(&self) -> usize {
        self.tasks.len().max(1)
    }

    /// Bytes that it takes in a batch.
    #[inline]
    pub fn n_bytes(&self) -> usize {
        let lists = self.tasks.len() * TASK_BYTES + self.anchors.len() * ANCHOR_BYTES;
        HEAD_BYTES + lists + self.values.bytes().len()
    }

    /// Returns the emission as a tuple of its own.
    pub fn to_tuple(&self) -> Tuple {
        let tuple = Tuple::new(Arc::clone(self.origin), self.values.to_values());
        tuple.in_trees(self.anchors.iter().collect()).at(self.emitted_at)
    }
}

impl<'a> TaskList<'a> {
    /// No tasks.
    pub const NONE: Self = Self::Given(&[]);

    /// Number of tasks.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Given(tasks) => tasks.len(),
            Self::Lying(tasks) => tasks.len(),
        }
    }

    /// Returns whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns the tasks in order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = TaskId> + 'a {
        let (given, lying) = match self {
            Self::Given(tasks) => (tasks, &[][..]),
            Self::Lying(tasks) => (&[][..], tasks),
        };
        given.iter().copied().chain(lying.iter().map(|bytes| TaskId(u32::from_le_bytes(*bytes))))
    }
}

impl<'a> AnchorList<'a> {
    /// No anchors.
    pub const NONE: Self = Self::Given(&[]);

    /// Number of anchors.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Given(anchors) => anchors.len(),
            Self::Lying(anchors) => anchors.len(),
        }
    }

    /// Returns whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns the anchors in order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = Anchor> + 'a {
        let (given, lying) = match self {
            Self::Given(anchors) => (anchors, &[][..]),
            Self::Lying(anchors) => (&[][..], anchors),
        };
        given.iter().copied().chain(lying.iter().map(read_anchor))
    }
}

fn read_anchor(bytes: &[u8; ANCHOR_BYTES]) -> Anchor {
    let mut rest = &bytes[..];
    let (acker, root, edge) = (u32_of(&mut rest), u64_of(&mut rest), u64_of(&mut rest));
    Anchor { acker: TaskId(acker), root, edge }
}

const OWN: &str = "rows are written by this module";

#[inline]
fn u32_of(bytes: &mut &[u8]) -> u32 {
    let (number, rest) = bytes.split_first_chunk().expect(OWN);
    *bytes = rest;
    u32::from_le_bytes(*number)
}

#[inline]
fn u64_of(bytes: &mut &[u8]) -> u64 {
    let (number, rest) = bytes.split_first_chunk().expect(OWN);
    *bytes = rest;
    u64::from_le_bytes(*number)
}

impl Batch {
    /// Number of tuples: each row counts once for each of its tasks.
    #[inline]
    pub fn n_tuples(&self) -> usize {
        self.n_tuples
    }

    /// Returns whether there are no rows.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Bytes of all rows.
    #[inline]
    pub fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Origins of the rows, each once.
    pub fn origins(&self) -> &[Arc<Origin>] {
        &self.origins
    }

    /// Removes all rows, and keeps memory for at most `bytes`.
    pub fn clear(&mut self, bytes: usize) {
        self.bytes.clear();
        if self.bytes.capacity() > bytes {
            self.bytes.shrink_to(bytes);
        }
        self.origins.clear();
        (self.n_rows, self.n_tuples) = (0, 0);
    }

    /// Adds a row.
    #[inline]
    pub fn push(&mut self, row: &Row<'_>) {
        let origin = self.index_of(row.origin);
        let emitted_at = row.emitted_at.map_or(UNKNOWN_TIME, Monotonic::as_nanos);
        let n = |n: usize| u32::try_from(n).expect("a tuple is smaller than a frame").to_le_bytes();
        let mut head = [0; HEAD_BYTES];
        head[0..4].copy_from_slice(&n(row.n_bytes()));
        head[4..8].copy_from_slice(&n(origin));
        head[8..16].copy_from_slice(&emitted_at.to_le_bytes());
        head[16..20].copy_from_slice(&n(row.tasks.len()));
        head[20..24].copy_from_slice(&n(row.anchors.len()));
        head[24..28].copy_from_slice(&n(row.values.len()));
        self.bytes.reserve(row.n_bytes());
        self.bytes.extend_from_slice(&head);
        for task in row.tasks.iter() {
            self.bytes.extend_from_slice(&task.0.to_le_bytes());
        }
        for Anchor { acker, root, edge } in row.anchors.iter() {
            self.bytes.extend_from_slice(&acker.0.to_le_bytes());
            self.bytes.extend_from_slice(&root.to_le_bytes());
            self.bytes.extend_from_slice(&edge.to_le_bytes());
        }
        self.bytes.extend_from_slice(row.values.bytes());
        self.n_rows += 1;
        self.n_tuples += row.n_tuples();
    }

    /// Returns the index of an origin among those of the batch. A batch has the few streams of one task, or
    /// what another worker sent in one frame; both come in runs.
    #[inline]
    fn index_of(&mut self, origin: &Arc<Origin>) -> usize {
        let known = self.origins.iter().rposition(|known| Arc::ptr_eq(known, origin));
        known.unwrap_or_else(|| {
            self.origins.push(Arc::clone(origin));
            self.origins.len() - 1
        })
    }

    /// Returns the row that begins at byte `at`, and the byte at which the next one begins. The first begins
    /// at 0. `None` at the end.
    #[inline]
    pub fn row_at(&self, at: usize) -> Option<(Row<'_>, usize)> {
        let mut bytes = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let next = at + u32_of(&mut bytes) as usize;
        let origin = &self.origins[u32_of(&mut bytes) as usize];
        let emitted_at = u64_of(&mut bytes);
        let [n_tasks, n_anchors, n_values] = [(); 3].map(|()| u32_of(&mut bytes) as usize);
        let values = &bytes[..next - at - HEAD_BYTES];
        let (tasks, values) = values.split_at(n_tasks * TASK_BYTES);
        let (anchors, values) = values.split_at(n_anchors * ANCHOR_BYTES);
        let row = Row {
            origin,
            tasks: TaskList::Lying(tasks.as_chunks().0),
            anchors: AnchorList::Lying(anchors.as_chunks().0),
            emitted_at: (emitted_at != UNKNOWN_TIME).then(|| Monotonic::from_nanos(emitted_at)),
            values: Encoded::checked_before(n_values, values),
        };
        Some((row, next))
    }

    /// Returns all rows from byte `at` on.
    pub fn rows_from(&self, at: usize) -> impl Iterator<Item = Row<'_>> {
        let mut at = at;
        iter::from_fn(move || {
            let (row, next) = self.row_at(at)?;
            at = next;
            Some(row)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Value, ValueWriter, test_support::any_value};
    use stormkeeper_model::StreamId;

    fn origin(task: u32) -> Arc<Origin> {
        let component = "split".parse().expect("valid");
        Arc::new(Origin { task: TaskId(task), component, stream: StreamId::default_stream() })
    }

    fn any_row() -> impl Strategy<Value = (usize, Vec<TaskId>, Vec<Anchor>, Option<u64>, Vec<Value>)> {
        let anchor = any::<(u32, u64, u64)>().prop_map(|(acker, root, edge)| Anchor {
            acker: TaskId(acker),
            root,
            edge,
        });
        (
            0usize..3,
            prop::collection::vec(any::<u32>().prop_map(TaskId), 0..4),
            prop::collection::vec(anchor, 0..4),
            prop::option::of(0..u64::MAX),
            prop::collection::vec(any_value(), 0..4),
        )
    }

    proptest! {
        #[test]
        fn rows_read_back_in_order(rows in prop::collection::vec(any_row(), 0..20)) {
            let origins = [origin(1), origin(2), origin(3)];
            let (mut batch, mut writer) = (Batch::default(), ValueWriter::default());
            for (index, tasks, anchors, at, values) in &rows {
                writer.clear();
                writer.values(values);
                batch.push(&Row {
                    origin: &origins[*index],
                    tasks: TaskList::Given(tasks),
                    anchors: AnchorList::Given(anchors),
                    emitted_at: at.map(Monotonic::from_nanos),
                    values: writer.encoded(),
                });
            }
            prop_assert_eq!(batch.n_rows(), rows.len());
            prop_assert_eq!(batch.n_tuples(), rows.iter().map(|(_, tasks, ..)| tasks.len().max(1)).sum::<usize>());
            prop_assert_eq!(batch.n_bytes(), batch.rows_from(0).map(|row| row.n_bytes()).sum::<usize>());
            let read: Vec<_> = batch.rows_from(0).map(|row| {
                let index = origins.iter().position(|origin| Arc::ptr_eq(origin, row.origin)).expect("known");
                let at = row.emitted_at.map(Monotonic::as_nanos);
                (index, row.tasks.iter().collect(), row.anchors.iter().collect(), at, row.values.to_values())
            }).collect();
            prop_assert_eq!(read, rows);
        }
    }

    #[test]
    fn a_cleared_batch_gives_memory_back() {
        let mut batch = Batch::default();
        let mut writer = ValueWriter::default();
        writer.text(&"a".repeat(100_000));
        let row = Row {
            origin: &origin(1),
            tasks: TaskList::NONE,
            anchors: AnchorList::NONE,
            emitted_at: None,
            values: writer.encoded(),
        };
        batch.push(&row);
        batch.clear(1000);
        assert!(batch.is_empty() && batch.bytes.capacity() < 2000, "{}", batch.bytes.capacity());
        batch.push(&row);
        assert_eq!(batch.rows_from(0).map(|row| row.values.len()).collect::<Vec<_>>(), [1]);
    }
}
