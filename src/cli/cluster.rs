//! `stormkeeper cluster`

use std::time::Duration;

use serde::Serialize;

use crate::cli::{
    Global, client_runtime, drain,
    error::Failure,
    list,
    output::{self, Table},
};
use stormkeeper_api_types::message::{ClusterSummary, NimbusList, SupervisorList};
use stormkeeper_model::{text::counted, time::format_duration};

/// Show the nimbuses and supervisors of the cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "MEMORY and CPU are what the tasks on a supervisor request, and what the supervisor \
declares, if it does. 100% is one core.")]
pub(super) struct Args {}

#[derive(Serialize)]
struct ClusterReport {
    cluster: ClusterSummary,
    #[serde(flatten)]
    nimbuses: NimbusList,
    #[serde(flatten)]
    supervisors: SupervisorList,
}

pub(super) fn run(global: &Global, _args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let report = client_runtime()?.block_on(async {
        Ok::<_, Failure>(ClusterReport {
            cluster: client.cluster().await?,
            nimbuses: client.nimbuses().await?,
            supervisors: client.supervisors().await?,
        })
    })?;
    if global.json {
        return output::print_json(&report);
    }
    output::print(&text(&report))
}

/// Formats a requested amount of a resource and the declared capacity, if there is one.
fn share(used: u64, capacity: Option<u64>, unit: &str) -> String {
    match capacity {
        Some(capacity) => format!("{used}/{capacity}{unit}"),
        None => format!("{used}{unit}"),
    }
}

fn text(ClusterReport { cluster, nimbuses, supervisors }: &ClusterReport) -> String {
    let leader = cluster.leader.as_ref().map_or_else(
        || "no leader at the moment".to_owned(),
        |leader| format!("led by {} ({}) in term {}", leader.nimbus, leader.api, leader.term),
    );
    let mut text = format!(
        "{leader}\n{}, {}, {} of {} slots used\n\nNimbuses\n",
        counted(cluster.topologies, "topology"),
        counted(cluster.tasks_total, "task"),
        cluster.slots_used,
        cluster.slots_total
    );
    let mut table = Table::new(&["ID", "API", "ROLE", "UPTIME", "BLOBS MISSING", "VERSION"]);
    for nimbus in &nimbuses.nimbuses {
        table.row([
            nimbus.id.to_string(),
            nimbus.api.clone(),
            nimbus.status.to_string(),
            format_duration(Duration::from_secs(nimbus.uptime_seconds)),
            nimbus.blobs_missing.to_string(),
            nimbus.version.clone(),
        ]);
    }
    text.push_str(&table.text(2));
    text.push_str("\nSupervisors\n");
    let mut table = Table::new(&["ID", "HOST", "STATE", "SLOTS USED", "MEMORY", "CPU", "UPTIME", "VERSION"]);
    for supervisor in &supervisors.supervisors {
        table.row([
            supervisor.id.to_string(),
            supervisor.host.clone(),
            drain::state(&supervisors.drains, &supervisor.host),
            format!("{}/{}", supervisor.slots_used, supervisor.slots_total),
            share(supervisor.used_mem, supervisor.mem_capacity, " MiB"),
            share(supervisor.used_cpu, supervisor.cpu_capacity, "%"),
            format_duration(Duration::from_secs(supervisor.uptime_seconds)),
            supervisor.version.clone(),
        ]);
    }
    text.push_str(&table.text(2));
    let notes = notes(cluster, nimbuses, supervisors);
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes);
    }
    text
}

/// Returns the lines below the tables, those with ! first.
fn notes(cluster: &ClusterSummary, nimbuses: &NimbusList, supervisors: &SupervisorList) -> String {
    let mut text = String::new();
    if let Some(problem) = &nimbuses.tree_problem {
        text.push_str(&list::tree_problem_line(problem));
    }
    let reported = supervisors.supervisors.iter().flat_map(|supervisor| &supervisor.problems);
    for problem in cluster.problems.iter().chain(reported) {
        text.push_str(&list::problem_line(problem));
    }
    for znode in &cluster.unreadable {
        text.push_str(&list::unreadable_line(znode));
    }
    for supervisor in &supervisors.supervisors {
        if let Some(reason) = &supervisor.memory_limits_unenforced {
            text.push_str(&format!(
                "  {}: memory limits are not enforced: {}\n",
                output::one_line(&supervisor.host),
                output::one_line(reason)
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_that_is_not_the_own_one_is_named_among_the_problems_in_one_block() {
        let cluster = ClusterSummary {
            version: "1".to_owned(),
            leader: None,
            nimbuses: 0,
            supervisors: 0,
            topologies: 0,
            slots_total: 0,
            slots_used: 0,
            slots_free: 0,
            tasks_total: 0,
            executors_total: 0,
            unreadable: Vec::new(),
            problems: vec!["one".to_owned(), "two".to_owned()],
            view_age_ms: 0,
        };
        let nimbuses =
            NimbusList { tree_problem: Some("ZooKeeper lost its data".to_owned()), ..NimbusList::default() };
        let report = ClusterReport { cluster, nimbuses, supervisors: SupervisorList::default() };
        let text = text(&report);
        let expected = "! ZooKeeper lost its data; the table shows the tree as it was before";
        assert!(text.lines().any(|line| line == expected), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.iter().position(|line| line.starts_with('!')).expect("there are some");
        assert_eq!(lines[first - 1], "", "{text}");
        assert_eq!(lines[first..].len(), 3, "no blank line is between them: {text}");
    }
}
