//! State of the screen: what is shown, selected and sorted. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::keys::Key;
use stormkeeper_api_types::message::{
    ClusterSummary, TopologyDetail, TopologyList,
    live::{LiveRates, TopologyLive},
};
use stormkeeper_model::{TaskId, clock::Monotonic, heartbeat::TaskCounts};

/// Time over which rates are measured: two reports of the workers. A task without a change for longer does
/// nothing.
const RATE_SPAN: Duration = Duration::from_secs(20);

/// Maximum number of changes of a task within it.
const CHANGES_MAX: usize = 32;

/// Rows by which a page moves.
const PAGE: usize = 10;

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    Cluster,
    /// Name or id of a topology.
    Topology(String),
    /// The same, and a component.
    Component(String, String),
}

/// Answer of a nimbus.
#[derive(Debug)]
pub(super) enum Data {
    Cluster(Box<(ClusterSummary, TopologyList)>),
    /// State of a topology, and its live numbers if there are some.
    Topology(Box<TopologyDetail>, Option<Box<TopologyLive>>),
}

/// What a key demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Redraw,
    Fetch,
    Quit,
}

/// Sorting of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Order {
    pub(super) column: usize,
    pub(super) is_reversed: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) level: Level,
    pub(super) data: Option<Data>,
    /// Time of the data.
    pub(super) read_at: Option<Monotonic>,
    /// Reason why the data is old.
    pub(super) problem: Option<String>,
    pub(super) order: Order,
    /// Names of the rows as they were drawn last, in their order.
    pub(super) rows: Vec<String>,
    /// Number of columns of the table that was drawn last.
    pub(super) n_columns: usize,
    /// Name of the selected row: it stays selected when rows move.
    pub(super) selected: Option<String>,
    counts: BTreeMap<TaskId, Changes>,
}

/// Counts of a time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rates {
    pub(super) emitted: f64,
    pub(super) sent: f64,
    pub(super) executed: f64,
    pub(super) acked: f64,
    pub(super) failed: f64,
}

impl From<&LiveRates> for Rates {
    fn from(&LiveRates { emitted, transferred, executed, acked, failed }: &LiveRates) -> Self {
        Self { emitted, sent: transferred, executed, acked, failed }
    }
}

/// Counts of a task at the times at which they changed. Workers report them every few seconds, so the time
/// between two changes is the time in which the tuples were counted.
#[derive(Debug, Default)]
struct Changes {
    all: VecDeque<(Monotonic, TaskCounts)>,
    /// Whether the first time is that of a change, and not that of the first reading.
    is_exact: bool,
}

impl Changes {
    fn take(&mut self, counts: TaskCounts, now: Monotonic) {
        match self.all.back() {
            Some((_, last)) if *last == counts => return,
            // The task has started again, and counts from 0.
            Some((_, last)) if last.executed > counts.executed || last.emitted > counts.emitted => {
                self.all.clear();
                self.is_exact = false;
            }
            // The time of the first reading is not that of a change.
            Some(_) if self.all.len() == 2 && !self.is_exact => {
                self.all.pop_front();
                self.is_exact = true;
            }
            Some(_) | None => {}
        }
        self.all.push_back((now, counts));
        let is_old = |at: Monotonic| now.since(at) >= RATE_SPAN;
        // The change before the span is its begin.
        while self.all.len() > CHANGES_MAX || self.all.get(1).is_some_and(|(at, _)| is_old(*at)) {
            self.all.pop_front();
        }
    }

    /// Returns the rates; `None` before there are two changes, or none for long.
    fn rates(&self, now: Monotonic) -> Option<Rates> {
        let ((first_at, first), (last_at, last)) = (self.all.front()?, self.all.back()?);
        let seconds = last_at.since(*first_at).as_secs_f64();
        if now.since(*last_at) > RATE_SPAN {
            return Some(Rates::default());
        }
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        (seconds > 0.0).then(|| Rates {
            emitted: per_second(last.emitted, first.emitted),
            sent: per_second(last.transferred, first.transferred),
            executed: per_second(last.executed, first.executed),
            acked: per_second(last.acked, first.acked),
            failed: per_second(last.failed, first.failed),
        })
    }
}

impl State {
    pub(super) fn new(topology: Option<String>) -> Self {
        Self {
            level: topology.map_or(Level::Cluster, Level::Topology),
            data: None,
            read_at: None,
            problem: None,
            order: Order::default(),
            rows: Vec::new(),
            n_columns: 0,
            selected: None,
            counts: BTreeMap::new(),
        }
    }

    /// Takes a new answer.
    pub(super) fn take(&mut self, data: Data, now: Monotonic) {
        if let Data::Topology(detail, _) = &data {
            let mut before = std::mem::take(&mut self.counts);
            for task in &detail.tasks {
                let mut changes = before.remove(&task.task).unwrap_or_default();
                changes.take(task.counts, now);
                self.counts.insert(task.task, changes);
            }
        }
        (self.data, self.read_at, self.problem) = (Some(data), Some(now), None);
    }

    /// Returns the rates of tasks together; `None` while none is known.
    pub(super) fn rates<'a>(&self, tasks: impl Iterator<Item = &'a TaskId>, now: Monotonic) -> Option<Rates> {
        let live = self.live_rates();
        let known = tasks.filter_map(|task| match live.get(task) {
            Some(rates) => Some(Rates::from(*rates)),
            None => self.counts.get(task)?.rates(now),
        });
        known.reduce(|a, b| Rates {
            emitted: a.emitted + b.emitted,
            sent: a.sent + b.sent,
            executed: a.executed + b.executed,
            acked: a.acked + b.acked,
            failed: a.failed + b.failed,
        })
    }

    /// Returns the live numbers, if there are some.
    pub(super) fn live(&self) -> Option<&TopologyLive> {
        match &self.data {
            Some(Data::Topology(_, live)) => live.as_deref(),
            Some(Data::Cluster(_)) | None => None,
        }
    }

    fn live_rates(&self) -> BTreeMap<&TaskId, &LiveRates> {
        let tasks = self.live().into_iter().flat_map(|live| &live.tasks);
        tasks.filter_map(|task| Some((&task.task, task.rates.as_ref()?))).collect()
    }

    /// Place of the selected row; the first one if it is gone.
    pub(super) fn selected_row(&self) -> usize {
        let is_selected = |row: &String| Some(row) == self.selected.as_ref();
        self.rows.iter().position(is_selected).unwrap_or_default()
    }

    pub(super) fn press(&mut self, key: Key) -> Effect {
        let (row, last) = (self.selected_row(), self.rows.len().saturating_sub(1));
        let mut select = |row: usize| {
            self.selected = self.rows.get(row.min(last)).cloned();
            Effect::Redraw
        };
        match key {
            Key::Up => select(row.saturating_sub(1)),
            Key::Down => select(row + 1),
            Key::PageUp => select(row.saturating_sub(PAGE)),
            Key::PageDown => select(row + PAGE),
            Key::Home => select(0),
            Key::End => select(last),
            Key::Left | Key::Right => {
                let n = self.n_columns.max(1);
                let step = if key == Key::Right { 1 } else { n - 1 };
                self.order = Order { column: (self.order.column + step) % n, is_reversed: false };
                Effect::Redraw
            }
            Key::Reverse => {
                self.order.is_reversed = !self.order.is_reversed;
                Effect::Redraw
            }
            Key::Enter => self.open(row),
            Key::Back => self.back(),
            Key::Quit => Effect::Quit,
        }
    }

    fn open(&mut self, row: usize) -> Effect {
        let Some(name) = self.rows.get(row).cloned() else { return Effect::Redraw };
        match self.level.clone() {
            Level::Cluster => self.go(Level::Topology(name), None),
            Level::Topology(topology) => self.go(Level::Component(topology, name), None),
            Level::Component(..) => Effect::Redraw,
        }
    }

    fn back(&mut self) -> Effect {
        match self.level.clone() {
            Level::Cluster => Effect::Redraw,
            Level::Topology(topology) => self.go(Level::Cluster, Some(topology)),
            Level::Component(topology, component) => self.go(Level::Topology(topology), Some(component)),
        }
    }

    fn go(&mut self, level: Level, selected: Option<String>) -> Effect {
        let topology = |level: &Level| match level {
            Level::Cluster => None,
            Level::Topology(name) | Level::Component(name, _) => Some(name.clone()),
        };
        // The data of a topology is that of its components too.
        if topology(&level) != topology(&self.level) {
            self.data = None;
            self.counts.clear();
        }
        (self.level, self.selected, self.order) = (level, selected, Order::default());
        self.rows.clear();
        Effect::Fetch
    }
}
