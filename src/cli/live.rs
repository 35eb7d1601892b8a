//! Live numbers of a topology, for commands that show some.

use std::{collections::BTreeMap, time::Duration};

use crate::cli::{
    metrics::number,
    output::{self, Table},
};
use stormkeeper_api_types::{
    client::Client,
    message::{
        ComponentSummary, TopologyDetail,
        live::{LiveComponent, LiveRates, TopologyLive},
    },
};
use stormkeeper_model::{ComponentId, TaskId, heartbeat::TaskCounts, text::counted};

/// Limit for a request: a command does not wait for live numbers.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Reads live numbers; `None` if there are none, as of a nimbus of an earlier build. With `rates`, waits
/// for those of all workers, which takes a second more for the first who asks.
pub(super) async fn read(client: &Client, topology: &str, rates: bool) -> Option<TopologyLive> {
    let read = tokio::time::timeout(TIMEOUT, client.live(topology, rates)).await.ok()?;
    read.ok().filter(|live| live.workers_live > 0)
}

/// Says how old the numbers are, and of which workers there are none.
pub(super) fn line(live: Option<&TopologyLive>) -> String {
    let Some(live) = live else {
        return "counts of the last heartbeats, up to 10 s old".to_owned();
    };
    let age = format!("live, {:.1} s old", live.age_ms.unwrap_or_default() as f64 / 1000.0);
    let n_missing = live.workers_total.saturating_sub(live.workers_live);
    match live.missing.first() {
        Some(first) if n_missing > 0 => format!(
            "{age}; without {}, {}:{} for one: {}",
            counted(n_missing, "worker"),
            output::one_line(&first.host),
            first.port,
            output::one_line(&first.reason)
        ),
        _ => age,
    }
}

/// Puts the counts of live numbers in the place of those of heartbeats, which are older. Tasks without live
/// numbers keep theirs.
pub(super) fn overlay(detail: &mut TopologyDetail, live: &TopologyLive) {
    let counts: BTreeMap<TaskId, TaskCounts> =
        live.tasks.iter().map(|task| (task.task, task.counts)).collect();
    let mut sums: BTreeMap<&ComponentId, TaskCounts> = BTreeMap::new();
    for task in &mut detail.tasks {
        if let Some(counts) = counts.get(&task.task) {
            task.counts = *counts;
        }
        *sums.entry(&task.component).or_default() += task.counts;
    }
    for ComponentSummary { id, counts, .. } in &mut detail.components {
        if let Some(sum) = sums.get(id) {
            *counts = *sum;
        }
    }
}

/// Table of the components as they are now.
pub(super) fn table(live: &TopologyLive) -> Table {
    let heading = [
        "COMPONENT",
        "TASKS",
        "EMITTED",
        "EXECUTED",
        "ACKED",
        "FAILED",
        "BUSY",
        "QUEUE",
        "EXECUTE",
        "PROCESS",
    ];
    let mut table = Table::new(&heading);
    for component in &live.components {
        let LiveComponent { id, tasks, rates, capacity, queue, execute_us, process_us, .. } = component;
        let rate = |of: fn(&LiveRates) -> f64| shown(rates.as_ref().map(of), number::rate);
        table.row([
            id.to_string(),
            tasks.to_string(),
            rate(|rates| rates.emitted),
            rate(|rates| rates.executed),
            rate(|rates| rates.acked),
            rate(|rates| rates.failed),
            shown(*capacity, number::share),
            shown(*queue, number::share),
            shown(*execute_us, number::micros),
            shown(*process_us, number::micros),
        ]);
    }
    table
}

fn shown(value: Option<f64>, text: fn(f64) -> String) -> String {
    value.map_or_else(|| number::NONE.to_owned(), text)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Live numbers of a bolt `split`, whose task has executed `executed` tuples, at 12.5 a second.
    pub(in crate::cli) fn live(task: u32, executed: u64) -> TopologyLive {
        let counts = serde_json::json!({
            "emitted": 0, "transferred": 0, "executed": executed, "acked": 0, "failed": 0
        });
        let rates = serde_json::json!({
            "emitted": 0.0, "transferred": 0.0, "executed": 12.5, "acked": 0.0, "failed": 0.0
        });
        let live = serde_json::json!({
            "id": "wc-1-1", "timeMs": 5, "ageMs": 400, "workersLive": 1, "workersTotal": 2,
            "missing": [{ "supervisor": "s", "host": "h\u{1b}[2J", "port": 6701, "reason": "it has ended" }],
            "components": [{ "id": "split", "tasks": 1, "counts": counts, "rates": rates, "pending": 0,
                "capacity": 0.25, "queue": 0.5, "executeUs": 30.0 }],
            "tasks": [{ "task": task, "component": "split", "counts": counts, "rates": rates, "pending": 0 }]
        });
        serde_json::from_value(live).expect("live numbers")
    }

    #[test]
    fn age_is_said_and_a_worker_without_numbers_is_named_without_control_characters() {
        let text = line(Some(&live(2, 5)));
        assert!(text.starts_with("live, 0.4 s old; without 1 worker, h"), "{text}");
        assert!(text.ends_with(":6701 for one: it has ended") && !text.contains('\u{1b}'), "{text}");
        assert!(line(None).contains("10 s old"));
    }

    #[test]
    fn table_has_the_numbers_of_now_and_a_sign_for_those_that_are_missing() {
        let text = table(&live(2, 5)).text(0);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!((row[0], row[3], row.last()), ("split", "12.5/s", Some(&"-")), "{text}");
    }
}
