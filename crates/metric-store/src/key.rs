//! Keys as bytes. Numbers are big-endian, and names end with a zero byte, which no name contains:
//! keys sort like the values they encode, and all keys of one topology are one range.

use stormkeeper_metrics::{MetricId, Minute, Window};
use stormkeeper_model::{TaskId, Timestamp, TopologyId, WorkerId};

/// Table; a column family of RocksDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// All small records: see [`Kind`].
    State,
    /// Points, by metric, window and bucket.
    Points,
    /// Last minute of each metric.
    Latest,
    /// Metric log, by index.
    Log,
}

impl Table {
    pub(super) const ALL: [Self; 4] = [Self::State, Self::Points, Self::Latest, Self::Log];

    pub(super) const fn name(self) -> &'static str {
        match self {
            // RocksDB creates this family itself.
            Self::State => "default",
            Self::Points => "points",
            Self::Latest => "latest",
            Self::Log => "log",
        }
    }
}

/// First byte of a key of [`Table::State`]. Numbers of removed kinds are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Setting = 1,
    MetricMeta = 2,
    Registered = 3,
    Report = 4,
    Reserved = 5,
    Queue = 6,
    Progress = 7,
    Track = 8,
    History = 9,
    Started = 10,
    Drops = 11,
    Topology = 12,
}

/// Record that exists once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Setting {
    /// Version of the stored format.
    Format = 1,
    /// Last entry of the log.
    Last = 2,
    /// Begin of the log, and its segments.
    Segments = 3,
    /// Number of the next entry of the export queue.
    NextExport = 4,
    /// Number of the next meta.
    NextMeta = 5,
    /// Last value of the retention clock.
    RetentionClock = 6,
    /// Last minute that was closed.
    Closed = 7,
}

/// Range of keys: the first is included, the second is not.
pub(super) type Range = (Vec<u8>, Vec<u8>);

fn key(kind: Kind) -> Vec<u8> {
    vec![kind as u8]
}

fn name(mut key: Vec<u8>, text: &str) -> Vec<u8> {
    key.extend_from_slice(text.as_bytes());
    key.push(0);
    key
}

fn number(mut key: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    key.extend_from_slice(bytes);
    key
}

/// Returns the range of all keys that begin with `prefix`.
pub(super) fn below(prefix: Vec<u8>) -> Range {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    (prefix, end)
}

pub(super) fn setting(setting: Setting) -> Vec<u8> {
    vec![Kind::Setting as u8, setting as u8]
}

pub(super) fn meta(topology: &TopologyId, id: MetricId) -> Vec<u8> {
    number(name(key(Kind::MetricMeta), topology.as_str()), &id.0.to_be_bytes())
}

pub(super) fn metas(topology: &TopologyId) -> Range {
    below(name(key(Kind::MetricMeta), topology.as_str()))
}

pub(super) fn all_metas() -> Range {
    below(key(Kind::MetricMeta))
}

/// Returns the id at the end of a key.
pub(super) fn id_of(key: &[u8]) -> Option<MetricId> {
    Some(MetricId(u64::from_be_bytes(*key.last_chunk()?)))
}

/// Key of the `n`th registered meta.
pub(super) fn registered(n: u64) -> Vec<u8> {
    number(key(Kind::Registered), &n.to_be_bytes())
}

pub(super) fn registered_after(n: u64) -> Range {
    (registered(n.saturating_add(1)), below(key(Kind::Registered)).1)
}

pub(super) fn report(topology: &TopologyId, worker: &WorkerId) -> Vec<u8> {
    number(name(key(Kind::Report), topology.as_str()), worker.as_str().as_bytes())
}

pub(super) fn reports(topology: &TopologyId) -> Range {
    below(name(key(Kind::Report), topology.as_str()))
}

pub(super) fn all_reports() -> Range {
    below(key(Kind::Report))
}

pub(super) fn reserved(minute: Minute, topology: &TopologyId) -> Vec<u8> {
    number(number(key(Kind::Reserved), &minute.0.to_be_bytes()), topology.as_str().as_bytes())
}

pub(super) fn all_reserved() -> Range {
    below(key(Kind::Reserved))
}

pub(super) fn parse_reserved(key: &[u8]) -> Option<(Minute, TopologyId)> {
    let (minute, topology) = key.get(1..)?.split_first_chunk()?;
    Some((Minute(u32::from_be_bytes(*minute)), std::str::from_utf8(topology).ok()?.parse().ok()?))
}

pub(super) fn queued(index: u64) -> Vec<u8> {
    number(key(Kind::Queue), &index.to_be_bytes())
}

pub(super) fn all_queued() -> Range {
    below(key(Kind::Queue))
}

/// Returns the number at the end of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk()?))
}

pub(super) fn progress(exporter: &str) -> Vec<u8> {
    number(key(Kind::Progress), exporter.as_bytes())
}

pub(super) fn all_progress() -> Range {
    below(key(Kind::Progress))
}

pub(super) fn track(topology: &TopologyId, task: TaskId, from: Timestamp) -> Vec<u8> {
    let key = number(name(key(Kind::Track), topology.as_str()), &task.0.to_be_bytes());
    number(key, &from.as_millis().to_be_bytes())
}

pub(super) fn tracks(topology: &TopologyId, task: Option<TaskId>) -> Range {
    let key = name(key(Kind::Track), topology.as_str());
    below(match task {
        Some(task) => number(key, &task.0.to_be_bytes()),
        None => key,
    })
}

pub(super) fn history(started: Timestamp, topology: &TopologyId) -> Vec<u8> {
    number(number(key(Kind::History), &started.as_millis().to_be_bytes()), topology.as_str().as_bytes())
}

pub(super) fn all_history() -> Range {
    below(key(Kind::History))
}

/// Key of a topology's start time, which leads to its history entry.
pub(super) fn started(topology: &TopologyId) -> Vec<u8> {
    number(key(Kind::Started), topology.as_str().as_bytes())
}

pub(super) fn drops(topology: &TopologyId) -> Vec<u8> {
    number(key(Kind::Drops), topology.as_str().as_bytes())
}

pub(super) fn all_drops() -> Range {
    below(key(Kind::Drops))
}

pub(super) fn topology(topology: &TopologyId) -> Vec<u8> {
    number(key(Kind::Topology), topology.as_str().as_bytes())
}

pub(super) fn all_topologies() -> Range {
    below(key(Kind::Topology))
}

/// Returns the text after the first byte.
pub(super) fn text_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(1..)?).ok()
}

/// Key of [`Table::Points`].
pub(super) fn point(id: MetricId, window: Window, bucket: Minute) -> [u8; 13] {
    let mut key = [0; 13];
    key[..8].copy_from_slice(&id.0.to_be_bytes());
    key[8] = window_number(window);
    key[9..].copy_from_slice(&bucket.0.to_be_bytes());
    key
}

const fn window_number(window: Window) -> u8 {
    match window {
        Window::M1 => 1,
        Window::M10 => 2,
        Window::H2 => 3,
        Window::D1 => 4,
    }
}

pub(super) fn parse_point(key: &[u8]) -> Option<(MetricId, Window, Minute)> {
    let key: &[u8; 13] = key.try_into().ok()?;
    let window = Window::ALL.into_iter().find(|window| window_number(*window) == key[8])?;
    Some((id_of(&key[..8])?, window, Minute(u32::from_be_bytes(*key.last_chunk()?))))
}

/// Key of [`Table::Latest`].
pub(super) fn latest(topology: &TopologyId, id: MetricId) -> Vec<u8> {
    number(name(Vec::new(), topology.as_str()), &id.0.to_be_bytes())
}

pub(super) fn all_latest(topology: &TopologyId) -> Range {
    below(name(Vec::new(), topology.as_str()))
}

/// Key of [`Table::Log`].
pub(super) fn log(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = TopologyId> {
        "[a-z\u{e9}_.-]{1,12}".prop_filter_map("an id", |text| text.parse().ok())
    }

    fn window() -> impl Strategy<Value = Window> {
        proptest::sample::select(Window::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn parsed_key_equals_the_written_one(topology in id(), n: u64, m: u32, window in window()) {
            let key = meta(&topology, MetricId(n));
            prop_assert_eq!(id_of(&key), Some(MetricId(n)));
            prop_assert_eq!(parse_point(&point(MetricId(n), window, Minute(m))), Some((MetricId(n), window, Minute(m))));
            let key = reserved(Minute(m), &topology);
            prop_assert_eq!(parse_reserved(&key), Some((Minute(m), topology.clone())));
            prop_assert_eq!(number_of(&queued(n)), Some(n));
            let key = drops(&topology);
            prop_assert_eq!(text_of(&key), Some(topology.as_str()));
            prop_assert_eq!(id_of(&latest(&topology, MetricId(n))), Some(MetricId(n)));
        }

        #[test]
        fn keys_sort_like_the_values_they_encode(a in (any::<u64>(), window(), any::<u32>()), b in (any::<u64>(), window(), any::<u32>())) {
            let key = |(id, window, minute)| point(MetricId(id), window, Minute(minute));
            prop_assert_eq!(a.cmp(&b), key(a).cmp(&key(b)));
            prop_assert_eq!(a.0.cmp(&b.0), log(a.0).cmp(&log(b.0)));
        }

        #[test]
        fn range_of_a_topology_contains_only_its_own_keys(one in id(), other in id(), n: u64, m: u64) {
            let (from, to) = metas(&one);
            let (mine, others) = (meta(&one, MetricId(n)), meta(&other, MetricId(m)));
            prop_assert!(from <= mine && mine < to);
            prop_assert_eq!(from <= others && others < to, one == other);
            let (from, to) = tracks(&one, Some(TaskId(7)));
            let at = Timestamp::from_millis(n);
            prop_assert!(from <= track(&one, TaskId(7), at) && track(&one, TaskId(7), at) < to);
            prop_assert!(track(&one, TaskId(8), at) >= to);
        }
    }

    #[test]
    fn range_ends_after_all_keys_with_its_prefix() {
        assert_eq!(below(vec![1, 255]), (vec![1, 255], vec![2]));
        assert_eq!(below(vec![1, 2]).1, vec![1, 3]);
    }
}
