//! Entries of the metric log: every change of stored data. An entry holds decisions, so that
//! applying it needs no clock, no settings and no randomness.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Drops, Error, HistoryEvent, point_merge, record};
use stormkeeper_metrics::{MetricId, Minute, Point, batch::SequenceRange, protocol::MetricMeta};
use stormkeeper_model::{LogPosition, TopologyId};

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// New metric names.
    Metas {
        /// Topology that registered them.
        topology: TopologyId,
        metas: Vec<MetricMeta>,
        drops: Drops,
    },
    /// Points of a metric batch, and the reports that contained them.
    Batch { topology: TopologyId, minute: Minute, reports: Vec<SequenceRange>, points: Packed, drops: Drops },
    /// Closes minutes: their points become ready for export.
    Close {
        through: Minute,
        /// Maximum number of queued entries per topology.
        per_topology_max: u64,
        /// Maximum number of queued bytes.
        bytes_max: u64,
        /// Launches whose last report is of a minute before this one are removed.
        reports_before: Option<Minute>,
    },
    /// Events to record.
    Events(Vec<HistoryEvent>),
    /// Removes metas; without ids, all data of the topology.
    Forget { topology: TopologyId, ids: Option<Vec<MetricId>> },
    /// An exporter acknowledged an entry of the queue.
    Ack { exporter: String, number: u64 },
    /// An exporter acknowledged the metas up to this one.
    AckMetas { exporter: String, through: u64 },
    /// Complete list of exporters from now on.
    Exporters(Vec<String>),
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        record::encode(self)
    }

    pub(super) fn decode(position: LogPosition, bytes: &[u8]) -> Result<Self, Error> {
        record::decode(&format!("log entry {}.{}", position.term, position.index), bytes)
    }
}

/// Points in their stored form, one after the other: they are encoded once, for the log and for all
/// windows.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Packed(Vec<u8>);

impl Packed {
    pub(super) fn push(&mut self, id: MetricId, point: &Point) {
        self.0.extend_from_slice(&id.0.to_be_bytes());
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        point_merge::encode(point, &mut self.0);
        let n_bytes = u32::try_from(self.0.len() - at - 4).unwrap_or(u32::MAX);
        self.0[at..at + 4].copy_from_slice(&n_bytes.to_be_bytes());
    }

    /// Iterates over the points; ends early at bytes that are not a point.
    pub(super) fn iter(&self) -> impl Iterator<Item = (MetricId, &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (id, after) = rest.split_first_chunk()?;
            let (n_bytes, after) = after.split_first_chunk()?;
            let n_bytes = usize::try_from(u32::from_be_bytes(*n_bytes)).ok()?;
            let (point, after) = after.split_at_checked(n_bytes)?;
            rest = after;
            Some((MetricId(u64::from_be_bytes(*id)), point))
        })
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} points", self.iter().count())
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Packed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("packed points")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Packed, E> {
                Ok(Packed(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Packed, E> {
                Ok(Packed(bytes))
            }
        }
        from.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_metrics::point::Counter;

    #[test]
    fn decoded_entry_equals_the_written_one() {
        let mut points = Packed::default();
        points.push(MetricId(7), &Point::Counter(Counter { count: 300 }));
        points.push(MetricId(9), &Point::Counter(Counter { count: 1 }));
        assert_eq!(points.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [7, 9]);
        let entry = Entry::Batch {
            topology: "t-1-1".parse().expect("an id"),
            minute: Minute(5),
            reports: vec![SequenceRange { worker: "w".parse().expect("an id"), first: 1, last: 2 }],
            points,
            drops: Drops::default(),
        };
        let at = LogPosition { term: 1, index: 2 };
        assert_eq!(Entry::decode(at, &entry.encode()).expect("readable"), entry);
        let error = Entry::decode(at, b"\xc1").expect_err("no entry").to_string();
        assert!(error.contains("log entry 1.2"), "{error}");
    }
}
