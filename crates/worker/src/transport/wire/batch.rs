//! Reading of a batch: its entries are read into the tuples one by one.

use super::*;

/// Reads origins and entries.
pub(super) struct Batch<'a> {
    pub(super) out: &'a mut Vec<Addressed>,
}

impl<'de> DeserializeSeed<'de> for Batch<'_> {
    type Value = Marks;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Marks, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }
}

impl<'de> Visitor<'de> for Batch<'_> {
    type Value = Marks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch: origins and entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Marks, A::Error> {
        let origins: Vec<(TaskId, ComponentId, StreamId)> =
            seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let origins: Vec<Arc<Origin>> = origins
            .into_iter()
            .map(|(task, component, stream)| Arc::new(Origin { task, component, stream }))
            .collect();
        seq.next_element_seed(Entries { origins: &origins, out: self.out })?
            .ok_or_else(|| A::Error::custom("a batch without entries"))?;
        Ok(Marks::of(&origins))
    }
}

/// Reads all entries.
struct Entries<'a> {
    origins: &'a [Arc<Origin>],
    out: &'a mut Vec<Addressed>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Entry { origins: self.origins, out: self.out })?.is_some() {}
        Ok(())
    }
}

/// Reads one entry: a tuple and the tasks that receive it.
struct Entry<'a> {
    origins: &'a [Arc<Origin>],
    out: &'a mut Vec<Addressed>,
}

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_tuple(3, self)
    }
}

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry: origin, values, tasks and perhaps anchors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let index: usize = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let values: Vec<Value> = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        let origin = self.origins.get(index).ok_or_else(|| A::Error::custom("an origin out of range"))?;
        let tuple = Tuple::new(origin.clone(), values);
        let first = self.out.len();
        seq.next_element_seed(Tasks { tuple, out: self.out })?
            .ok_or_else(|| A::Error::custom("an entry without tasks"))?;
        if let Some(numbers) = seq.next_element::<Vec<u64>>()? {
            let anchors: Anchors = read_anchors(&numbers).map_err(A::Error::custom)?;
            for Addressed { tuple, .. } in &mut self.out[first..] {
                *tuple = tuple.clone().in_trees(anchors.clone());
            }
        }
        Ok(())
    }
}

fn read_anchors(numbers: &[u64]) -> Result<Anchors, &'static str> {
    let (anchors, rest) = numbers.as_chunks::<3>();
    if !rest.is_empty() {
        return Err("anchors that end early");
    }
    let anchor = |&[acker, root, edge]: &[u64; 3]| {
        let acker = u32::try_from(acker).map(TaskId).map_err(|_| "an anchor of no task")?;
        Ok(Anchor { acker, root, edge })
    };
    anchors.iter().map(anchor).collect()
}

/// Reads the tasks of one tuple.
struct Tasks<'a> {
    tuple: Tuple,
    out: &'a mut Vec<Addressed>,
}

impl<'de> DeserializeSeed<'de> for Tasks<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Tasks<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tasks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(task) = seq.next_element()? {
            if self.out.len() == BATCH_TUPLES_MAX {
                return Err(A::Error::custom("more tuples than a batch may hold"));
            }
            self.out.push(Addressed { task, tuple: self.tuple.clone() });
        }
        Ok(())
    }
}
