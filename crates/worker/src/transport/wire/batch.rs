//! Reading of a batch. Its values are checked and left where they are.

use std::{ops::Range, sync::Arc};

use super::marks::Marks;
use crate::limits::{BATCH_TUPLES_MAX, FRAME_DEPTH_MAX};
use stormkeeper_model::{InvalidId, TaskId};
use stormkeeper_stream::{Anchor, AnchorList, Encoded, Malformed, Origin, Row, TaskList, ValueRef};

/// Levels of a batch around the values of a tuple.
const LEVELS: usize = 4;

/// Maximum number of origins: one for each tuple, and marks.
const ORIGINS_MAX: usize = BATCH_TUPLES_MAX + 8;

/// Reason for which bytes are no batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("in a batch: {0}")]
    Malformed(#[from] Malformed),
    #[error("not a batch: {0}")]
    Shape(&'static str),
    #[error("an origin of a batch has a name that is not valid")]
    Name(#[from] InvalidId),
}

/// A batch that was received: what is in a frame, by its place there. It is filled again for each frame.
#[derive(Debug, Default)]
pub(crate) struct ReceivedBatch {
    origins: Vec<Arc<Origin>>,
    entries: Vec<Entry>,
    tasks: Vec<TaskId>,
    anchors: Vec<Anchor>,
}

#[derive(Debug)]
struct Entry {
    origin: usize,
    n_values: usize,
    values: Range<usize>,
    tasks: Range<usize>,
    anchors: Range<usize>,
}

impl ReceivedBatch {
    /// Reads a batch.
    ///
    /// # Errors
    /// [`BatchError`] if `content` is not exactly one batch; it has no rows then.
    pub(crate) fn read(&mut self, content: &[u8]) -> Result<Marks, BatchError> {
        self.clear();
        let read = self.read_all(content);
        if read.is_err() {
            self.clear();
        }
        read
    }

    /// Returns the entries of the batch, which was read from `content`, with their tasks.
    pub(crate) fn rows<'a>(&'a self, content: &'a [u8]) -> impl Iterator<Item = Row<'a>> {
        self.entries.iter().map(|entry| {
            let values = Encoded::checked_before(entry.n_values, &content[entry.values.clone()]);
            Row {
                origin: &self.origins[entry.origin],
                tasks: TaskList::Given(&self.tasks[entry.tasks.clone()]),
                anchors: AnchorList::Given(&self.anchors[entry.anchors.clone()]),
                emitted_at: None,
                values,
            }
        })
    }

    fn clear(&mut self) {
        let Self { origins, entries, tasks, anchors } = self;
        origins.clear();
        entries.clear();
        tasks.clear();
        anchors.clear();
        // What one large frame took is not kept for the life of its connection.
        anchors.shrink_to(BATCH_TUPLES_MAX);
    }

    fn read_all(&mut self, content: &[u8]) -> Result<Marks, BatchError> {
        let mut reader = Reader(content);
        if reader.list("a batch is a list of origins and entries")? != 2 {
            return Err(BatchError::Shape("a batch has two elements"));
        }
        for _ in 0..reader.list("the origins are a list")? {
            if self.origins.len() == ORIGINS_MAX {
                return Err(BatchError::Shape("more origins than a batch may hold"));
            }
            self.origins.push(Arc::new(reader.origin()?));
        }
        for _ in 0..reader.list("the entries are a list")? {
            self.read_entry(&mut reader, content.len())?;
        }
        match reader.0 {
            [] => Ok(Marks::of(&self.origins)),
            _ => Err(BatchError::Shape("bytes follow the batch")),
        }
    }

    fn read_entry(&mut self, reader: &mut Reader<'_>, length: usize) -> Result<(), BatchError> {
        let n_elements = reader.list("an entry is a list")?;
        if !(3..=4).contains(&n_elements) {
            return Err(BatchError::Shape("an entry has three or four elements"));
        }
        let origin = reader.number("the origin of an entry is a number")?;
        let origin = usize::try_from(origin).ok().filter(|origin| *origin < self.origins.len());
        let origin = origin.ok_or(BatchError::Shape("an origin out of range"))?;
        let n_values = reader.list("the values of an entry are a list")?;
        let begin = length - reader.0.len();
        Encoded::split_checked(&mut reader.0, n_values, FRAME_DEPTH_MAX - LEVELS)?;
        let values = begin..length - reader.0.len();
        let first = (self.tasks.len(), self.anchors.len());
        for _ in 0..reader.list("the tasks of an entry are a list")? {
            if self.tasks.len() == BATCH_TUPLES_MAX {
                return Err(BatchError::Shape("more tuples than a batch may hold"));
            }
            let task = reader.task("a task is a number")?;
            self.tasks.push(task);
        }
        if n_elements == 4 {
            let n_numbers = reader.list("the anchors of an entry are a list")?;
            if !n_numbers.is_multiple_of(3) {
                return Err(BatchError::Shape("anchors that end early"));
            }
            for _ in 0..n_numbers / 3 {
                let acker = reader.task("an anchor of no task")?;
                let [root, edge] =
                    [reader.number("an anchor without a root")?, reader.number("an anchor without an edge")?];
                self.anchors.push(Anchor { acker, root, edge });
            }
        }
        // An entry for nobody is none.
        if self.tasks.len() > first.0 {
            let (tasks, anchors) = (first.0..self.tasks.len(), first.1..self.anchors.len());
            self.entries.push(Entry { origin, n_values, values, tasks, anchors });
        }
        Ok(())
    }
}

/// Reads the elements of a batch.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn value(&mut self, expected: &'static str) -> Result<ValueRef<'a>, BatchError> {
        let value = Encoded::split_checked(&mut self.0, 1, 0).map_err(|error| match error {
            Malformed::Short => BatchError::Malformed(error),
            Malformed::NoValue(_) | Malformed::TooDeep => BatchError::Shape(expected),
        })?;
        value.get(0).ok_or(BatchError::Shape(expected))
    }

    /// Reads the head of a list, whose elements follow.
    fn list(&mut self, expected: &'static str) -> Result<usize, BatchError> {
        Encoded::split_list_head(&mut self.0)?.ok_or(BatchError::Shape(expected))
    }

    fn number(&mut self, expected: &'static str) -> Result<u64, BatchError> {
        match self.value(expected)? {
            ValueRef::Int(number) => u64::try_from(number).map_err(|_| BatchError::Shape(expected)),
            ValueRef::UInt(number) => Ok(number),
            _ => Err(BatchError::Shape(expected)),
        }
    }

    fn task(&mut self, expected: &'static str) -> Result<TaskId, BatchError> {
        u32::try_from(self.number(expected)?).map(TaskId).map_err(|_| BatchError::Shape(expected))
    }

    fn text(&mut self, expected: &'static str) -> Result<&'a str, BatchError> {
        match self.value(expected)? {
            ValueRef::Text(text) => Ok(text),
            _ => Err(BatchError::Shape(expected)),
        }
    }

    fn origin(&mut self) -> Result<Origin, BatchError> {
        if self.list("an origin is a list")? != 3 {
            return Err(BatchError::Shape("an origin has three elements"));
        }
        Ok(Origin {
            task: self.task("an origin begins with a task")?,
            component: self.text("the component of an origin is text")?.parse()?,
            stream: self.text("the stream of an origin is text")?.parse()?,
        })
    }
}
