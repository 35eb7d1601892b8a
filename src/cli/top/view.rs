//! Lines of the screen. Pure.

use std::{cmp::Ordering, time::Duration};

use super::{
    screen::Size,
    state::{Data, Level, Rates, State},
};
use crate::cli::{list, live, metrics::number, output};
use stormkeeper_api_types::message::{ClusterSummary, TopologyDetail, TopologyList, live::TopologyLive};
use stormkeeper_model::{
    TaskId, address::host_port, clock::Monotonic, text::counted, time::format_duration,
    topology::ComponentKind,
};

/// Age of the numbers from which the screen says it.
const OLD: Duration = Duration::from_secs(15);

const HELP: &str = "Enter open  Esc back  left/right sort  r reverse  q quit";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Reverse,
}

/// One line, as wide as the screen at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) style: Style,
}

/// Cell of a table: what is shown, and what is sorted by.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    text: String,
    /// `None` sorts by the text.
    number: Option<f64>,
}

impl Cell {
    fn text(text: impl Into<String>) -> Self {
        Self { text: output::one_line(&text.into()).into_owned(), number: None }
    }

    fn number(text: impl Into<String>, number: f64) -> Self {
        Self { text: text.into(), number: Some(number) }
    }

    fn rate(per_second: Option<f64>) -> Self {
        match per_second {
            Some(rate) => Self::number(number::rate(rate), rate),
            None => Self::number("-", -1.0),
        }
    }

    fn share(share: Option<f64>) -> Self {
        match share {
            Some(share) => Self::number(number::share(share), share),
            None => Self::number("-", -1.0),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            // The largest first.
            (Some(a), Some(b)) => b.total_cmp(&a),
            _ => self.text.cmp(&other.text),
        }
    }
}

/// Rows below a heading. The name of a row is what its key opens.
struct Rows {
    heading: Vec<&'static str>,
    rows: Vec<(String, Vec<Cell>)>,
}

/// Draws the screen, and remembers the rows as they are on it.
pub(super) fn lines(state: &mut State, size: Size, now: Monotonic) -> Vec<Line> {
    let (mut top, rows) = match (&state.data, &state.level) {
        (Some(Data::Cluster(both)), Level::Cluster) => {
            let (cluster, list) = &**both;
            (cluster_heading(cluster, list), topologies(list))
        }
        (Some(Data::Topology(detail, live)), Level::Topology(_)) => {
            (topology_heading(detail, live.as_deref()), components(detail, state, now))
        }
        (Some(Data::Topology(detail, _)), Level::Component(_, component)) => {
            (component_heading(detail, component), tasks(detail, component, state, now))
        }
        _ => (vec!["waiting for a nimbus".to_owned()], Rows { heading: Vec::new(), rows: Vec::new() }),
    };
    if let Some(problem) = &state.problem {
        top.insert(0, format!("! the numbers are old: {}", output::one_line(problem)));
    } else if let Some(age) = state.read_at.map(|at| now.since(at)).filter(|age| *age >= OLD) {
        top.insert(0, format!("! the numbers are {} old", format_duration(age)));
    }
    let rows = sorted(rows, state);
    (state.rows, state.n_columns) =
        (rows.rows.iter().map(|(name, _)| name.clone()).collect(), rows.heading.len());
    // The heading of the table, a row, and the help stay on the screen.
    top.truncate(size.rows.saturating_sub(3).max(1));
    let mut lines: Vec<Line> = top
        .iter()
        .enumerate()
        .map(|(i, text)| {
            let style = if i == 0 || text.starts_with('!') { Style::Bold } else { Style::Plain };
            fitted(text, style, size)
        })
        .collect();
    let room = size.rows.saturating_sub(lines.len() + 2).max(1);
    lines.extend(table(&rows, state, size, room));
    lines.truncate(size.rows.saturating_sub(1).max(1));
    while lines.len() + 1 < size.rows {
        lines.push(fitted("", Style::Plain, size));
    }
    lines.push(fitted(HELP, Style::Plain, size));
    lines
}

fn fitted(text: &str, style: Style, size: Size) -> Line {
    Line { text: text.chars().take(size.columns).collect(), style }
}

fn sorted(mut rows: Rows, state: &State) -> Rows {
    let column = state.order.column.min(rows.heading.len().saturating_sub(1));
    rows.rows.sort_by(|(a_name, a), (b_name, b)| {
        let order = match (a.get(column), b.get(column)) {
            (Some(a), Some(b)) => a.compare(b),
            _ => Ordering::Equal,
        };
        let order = if state.order.is_reversed { order.reverse() } else { order };
        order.then_with(|| a_name.cmp(b_name))
    });
    rows
}

/// Draws the part of the table that has the selected row.
fn table(rows: &Rows, state: &State, size: Size, room: usize) -> Vec<Line> {
    let width = |column: usize| {
        let cells = rows.rows.iter().filter_map(|(_, cells)| cells.get(column));
        let heading = rows.heading.get(column).map_or(0, |heading| heading.chars().count() + 1);
        cells.map(|cell| cell.text.chars().count()).max().unwrap_or_default().max(heading)
    };
    let widths: Vec<usize> = (0..rows.heading.len()).map(width).collect();
    let line = |cells: Vec<(String, bool)>| {
        let cells = cells.iter().zip(&widths).map(|((text, is_number), width)| match is_number {
            true => format!("{text:>width$}"),
            false => format!("{text:<width$}"),
        });
        let text = cells.collect::<Vec<_>>().join("  ");
        // Wide, so that the bar of a selected row goes on to the edge.
        format!("{text:<columns$}", columns = size.columns)
    };
    let is_number = |column: usize| {
        rows.rows.first().and_then(|(_, cells)| cells.get(column)).is_some_and(|cell| cell.number.is_some())
    };
    let mark = if state.order.is_reversed { '^' } else { 'v' };
    let heading = rows.heading.iter().enumerate().map(|(column, heading)| {
        let mark = if column == state.order.column { mark } else { ' ' };
        (format!("{heading}{mark}"), is_number(column))
    });
    let mut lines = vec![fitted(&line(heading.collect()), Style::Bold, size)];
    let selected = state.selected_row();
    let first = selected.saturating_sub(room.saturating_sub(1));
    for (i, (_, cells)) in rows.rows.iter().enumerate().skip(first).take(room) {
        let style = if i == selected { Style::Reverse } else { Style::Plain };
        let cells = cells.iter().map(|cell| (cell.text.clone(), cell.number.is_some())).collect();
        lines.push(fitted(&line(cells), style, size));
    }
    lines
}

fn cluster_heading(cluster: &ClusterSummary, list: &TopologyList) -> Vec<String> {
    let leader = match &cluster.leader {
        Some(leader) => format!("leader {} in term {}", leader.nimbus, leader.term),
        None => "! no leader at the moment".to_owned(),
    };
    let mut lines = vec![format!(
        "{leader}  {}  {}  {} of {} slots used",
        counted(cluster.topologies, "topology"),
        counted(cluster.tasks_total, "task"),
        cluster.slots_used,
        cluster.slots_total
    )];
    lines.extend(list.problems.iter().map(|problem| format!("! {}", output::one_line(problem))));
    lines
}

fn topologies(list: &TopologyList) -> Rows {
    let row = |topology: &stormkeeper_api_types::message::TopologySummary| {
        let share = |n: usize, of: usize| Cell::number(format!("{n}/{of}"), n as f64);
        let uptime = topology.uptime_seconds;
        let cells = vec![
            Cell::text(topology.name.as_str()),
            Cell::text(list::status(topology)),
            share(topology.tasks_alive, topology.tasks_total),
            share(topology.workers_total, topology.workers_wanted as usize),
            Cell::number(format_duration(Duration::from_secs(uptime)), uptime as f64),
            Cell::text(topology.owner.clone()),
            Cell::text(topology.problem.as_ref().map(|problem| format!("! {problem}")).unwrap_or_default()),
        ];
        (topology.name.to_string(), cells)
    };
    let heading = vec!["TOPOLOGY", "STATUS", "TASKS", "WORKERS", "UPTIME", "OWNER", "PROBLEM"];
    Rows { heading, rows: list.topologies.iter().map(row).collect() }
}

fn topology_heading(detail: &TopologyDetail, numbers: Option<&TopologyLive>) -> Vec<String> {
    let summary = &detail.summary;
    let mut lines = vec![format!(
        "{} is {}  {} of {} tasks alive  {} of {} workers  up {}",
        summary.name,
        list::status(summary),
        summary.tasks_alive,
        summary.tasks_total,
        summary.workers_total,
        summary.workers_wanted,
        format_duration(Duration::from_secs(summary.uptime_seconds)),
    )];
    let problems = summary.problem.iter().chain(&detail.supervisor_problems);
    lines.extend(problems.map(|problem| format!("! {}", output::one_line(problem))));
    lines.push(live::line(numbers));
    lines
}

fn rate_cells(rates: Option<Rates>) -> [Cell; 5] {
    let rate = |of: fn(&Rates) -> f64| Cell::rate(rates.as_ref().map(of));
    [
        rate(|rates| rates.emitted),
        rate(|rates| rates.sent),
        rate(|rates| rates.executed),
        rate(|rates| rates.acked),
        rate(|rates| rates.failed),
    ]
}

fn components(detail: &TopologyDetail, state: &State, now: Monotonic) -> Rows {
    let row = |component: &stormkeeper_api_types::message::ComponentSummary| {
        let tasks = detail.tasks.iter().filter(|task| task.component == component.id).map(|task| &task.task);
        let error = component.last_error.as_ref().and_then(|error| error.message.lines().next());
        let mut cells = vec![
            Cell::text(component.id.as_str()),
            Cell::text(match component.kind {
                Some(ComponentKind::Spout) => "spout",
                Some(ComponentKind::Bolt) => "bolt",
                None => "-",
            }),
            Cell::number(
                format!("{}/{}", component.tasks_alive, component.parallelism),
                component.tasks_alive as f64,
            ),
        ];
        cells.extend(rate_cells(state.rates(tasks, now)));
        let of_now = state.live().and_then(|live| live.components.iter().find(|one| one.id == component.id));
        cells.push(Cell::share(of_now.and_then(|of_now| of_now.capacity)));
        cells.push(Cell::share(of_now.and_then(|of_now| of_now.queue)));
        cells.push(Cell::number(output::count(component.pending), component.pending as f64));
        cells.push(Cell::text(error.unwrap_or_default()));
        (component.id.to_string(), cells)
    };
    let heading = vec![
        "COMPONENT",
        "KIND",
        "TASKS",
        "EMITTED",
        "SENT",
        "EXECUTED",
        "ACKED",
        "FAILED",
        "BUSY",
        "QUEUE",
        "PENDING",
        "LAST ERROR",
    ];
    Rows { heading, rows: detail.components.iter().map(row).collect() }
}

fn component_heading(detail: &TopologyDetail, component: &str) -> Vec<String> {
    let found = detail.components.iter().find(|one| one.id.as_str() == component);
    let Some(found) = found else {
        return vec![format!(
            "{} has no component {} any more",
            detail.summary.name,
            output::one_line(component)
        )];
    };
    let mut lines = vec![format!(
        "{} of {}  {} of {} alive",
        found.id,
        detail.summary.name,
        found.tasks_alive,
        counted(found.parallelism, "task")
    )];
    if let Some(error) = &found.last_error {
        let message = output::one_line(error.message.lines().next().unwrap_or_default()).into_owned();
        lines.push(format!("! task {} at {}: {message}", error.task, error.time));
    }
    lines
}

fn tasks(detail: &TopologyDetail, component: &str, state: &State, now: Monotonic) -> Rows {
    let of_component = detail.tasks.iter().filter(|task| task.component.as_str() == component);
    let rows = of_component.map(|task| {
        let TaskId(id) = task.task;
        let place = match (&task.host, task.port) {
            (Some(host), Some(port)) => host_port(host, port.0),
            _ => "-".to_owned(),
        };
        let status = match task.status {
            Some(status) => format!("{status:?}").to_lowercase(),
            None => task.liveness.to_string(),
        };
        // Sorted as 1, 2, 10: the smallest first.
        let mut cells =
            vec![Cell::number(id.to_string(), -f64::from(id)), Cell::text(place), Cell::text(status)];
        cells.extend(rate_cells(state.rates(std::iter::once(&task.task), now)));
        (id.to_string(), cells)
    });
    let heading = vec!["TASK", "HOST:PORT", "STATE", "EMITTED", "SENT", "EXECUTED", "ACKED", "FAILED"];
    Rows { heading, rows: rows.collect() }
}
