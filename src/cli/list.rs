//! `stormkeeper list`

use std::collections::BTreeSet;

use crate::cli::{
    Global, client_runtime,
    error::Failure,
    other_trees::{self, Named},
    output::{self, Table},
};
use stormkeeper_api_types::message::{TopologyList, TopologySummary, UnreadableZnode};
use stormkeeper_model::time::format_duration;

/// List topologies.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Lines that begin with ! name what is wrong, the last reason, and what to do: tasks that do not\n\
run, and components, workers and supervisors that started again more than twice in 10 minutes."
)]
pub(super) struct Args {}

pub(super) fn run(global: &Global, _args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let (list, elsewhere) = client_runtime()?.block_on(async {
        let list = client.list().await?;
        // A table with topologies is not that of a tree that was begun anew.
        let elsewhere = match list.topologies.is_empty() && !global.json {
            true => other_trees::lines(&client, &BTreeSet::new(), Named::OtherTrees).await,
            false => String::new(),
        };
        Ok::<_, Failure>((list, elsewhere))
    })?;
    if global.json {
        return output::print_json(&list);
    }
    let has_problems = !list.problems.is_empty() || list.tree_problem.is_some();
    if list.topologies.is_empty() && list.unreadable.is_empty() && !has_problems {
        output::note("No topologies running.");
        return if elsewhere.is_empty() { Ok(()) } else { output::print(&elsewhere) };
    }
    output::print(&(text(&list) + &elsewhere))
}

/// Table of the topologies, then a line for each problem.
fn text(list: &TopologyList) -> String {
    let mut table = Table::new(&["NAME", "STATUS", "TASKS", "WORKERS", "UPTIME", "ID", "OWNER"]);
    for topology in &list.topologies {
        table.row([
            topology.name.to_string(),
            status(topology),
            format!("{}/{}", topology.tasks_alive, topology.tasks_total),
            format!("{}/{}", topology.workers_total, topology.workers_wanted),
            format_duration(std::time::Duration::from_secs(topology.uptime_seconds)),
            topology.id.to_string(),
            topology.owner.clone(),
        ]);
    }
    let mut text = table.text(0);
    for topology in &list.topologies {
        if let Some(problem) = &topology.problem {
            text.push_str(&format!("! {}: {}\n", topology.name, output::one_line(problem)));
        }
    }
    text.extend(list.problems.iter().map(|problem| problem_line(problem)));
    text.extend(list.unreadable.iter().map(unreadable_line));
    text.extend(list.tree_problem.iter().map(|problem| tree_problem_line(problem)));
    text
}

/// Line about a problem that is not of one topology.
pub(super) fn problem_line(problem: &str) -> String {
    format!("! {}\n", output::one_line(problem))
}

/// Line about a tree that is not the one of the answering nimbus.
pub(super) fn tree_problem_line(problem: &str) -> String {
    format!("! {}; the table shows the tree as it was before\n", output::one_line(problem))
}

/// Line about a znode that holds no valid record.
pub(super) fn unreadable_line(znode: &UnreadableZnode) -> String {
    let remedy = if znode.remedy.is_empty() { String::new() } else { format!("; {}", znode.remedy) };
    let text = format!("{} cannot be read: {}{remedy}", znode.path, znode.reason);
    problem_line(&text)
}

/// Status, with the time that is left of a pending change.
pub(super) fn status(topology: &TopologySummary) -> String {
    match &topology.pending {
        Some(pending) => {
            format!(
                "{} (in {})",
                topology.status,
                format_duration(std::time::Duration::from_millis(pending.remaining_ms))
            )
        }
        None => topology.status.to_string(),
    }
}
