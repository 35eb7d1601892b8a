//! `stormkeeper show NAME`

use std::time::Duration;

use crate::cli::{
    Global, client_runtime,
    error::Failure,
    list, live, log_level,
    output::{self, Table},
    trend::{TrendArgs, Trends},
    update,
};
use stormkeeper_api_types::message::{ComponentSummary, TopologyDetail};
use stormkeeper_model::{address::host_port, time::format_duration, topology::ComponentKind};

/// Show the workers, components and tasks of a topology.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// Show the tasks too
    #[arg(long)]
    tasks: bool,
    #[command(flatten)]
    trend: TrendArgs,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let (detail, numbers, trends) = client_runtime()?.block_on(async {
        let mut detail = client.show(&args.topology).await?;
        let numbers = match global.json {
            true => None,
            false => live::read(&client, detail.summary.id.as_str(), false).await,
        };
        if let Some(numbers) = &numbers {
            live::overlay(&mut detail, numbers);
        }
        let trends = match args.trend.is_on() && !global.json {
            true => Trends::read(&client, detail.summary.id.as_str()).await,
            false => Trends::default(),
        };
        Ok::<_, Failure>((detail, numbers, trends))
    })?;
    if global.json {
        return output::print_json(&detail);
    }
    let mut text = heading(&detail);
    text.push_str(&format!("  numbers  {}\n", live::line(numbers.as_ref())));
    if let Some(update) = &detail.update {
        text.push_str(&format!("{}\n", update::line(update)));
    }
    text.push_str(&log_level::lines(&detail.log_levels));
    text.push_str("\nWorkers\n");
    text.push_str(&workers(&detail).text(2));
    text.push_str("\nComponents\n");
    let mut components = components(&detail.components);
    trends.add_to(&mut components);
    text.push_str(&components.text(2));
    if args.tasks {
        text.push_str("\nTasks\n");
        text.push_str(&tasks(&detail).text(2));
    }
    text.push_str(&problems(&detail.supervisor_problems, &detail.components));
    output::print(&text)
}

/// Returns the lines with `!`, in one block.
fn problems(of_supervisors: &[String], components: &[ComponentSummary]) -> String {
    let mut lines: String = of_supervisors.iter().map(|problem| list::problem_line(problem)).collect();
    for component in components {
        if let Some(error) = &component.last_error {
            let message = output::one_line(error.message.lines().next().unwrap_or_default());
            lines.push_str(&format!(
                "! {} (task {}) at {}: {message}\n",
                component.id, error.task, error.time
            ));
        }
    }
    match lines.is_empty() {
        true => lines,
        false => format!("\n{lines}"),
    }
}

fn heading(detail: &TopologyDetail) -> String {
    let summary = &detail.summary;
    let mut text = format!(
        "{} is {}\n  id       {}\n  owner    {}\n  uptime   {}\n  tasks    {} of {} alive\n  workers  {} of {} wanted\n  blob     {} on {} nimbus(es)\n",
        summary.name,
        list::status(summary),
        summary.id,
        output::one_line(&summary.owner),
        format_duration(Duration::from_secs(summary.uptime_seconds)),
        summary.tasks_alive,
        summary.tasks_total,
        summary.workers_total,
        summary.workers_wanted,
        detail.blob,
        summary.replication_count,
    );
    if let Some(problem) = &summary.problem {
        text.push_str(&format!("! problem  {}\n", output::one_line(problem)));
    }
    text
}

fn workers(detail: &TopologyDetail) -> Table {
    let mut table = Table::new(&["HOST:PORT", "SUPERVISOR", "TASKS", "ALIVE", "UPTIME", "WORKER"]);
    for worker in &detail.workers {
        table.row([
            host_port(&worker.host, worker.port.0),
            worker.supervisor_id.to_string(),
            worker.tasks.to_string(),
            format!("{}/{}", worker.tasks_alive, worker.tasks.len()),
            worker
                .uptime_seconds
                .map_or_else(|| "-".to_owned(), |secs| format_duration(Duration::from_secs(secs))),
            worker.worker_id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        ]);
    }
    table
}

/// Table of components, also used by local mode.
pub(super) fn components(components: &[ComponentSummary]) -> Table {
    let mut table =
        Table::new(&["COMPONENT", "KIND", "TASKS", "EMITTED", "SENT", "EXECUTED", "ACKED", "FAILED"]);
    for component in components {
        table.row([
            component.id.to_string(),
            match component.kind {
                Some(ComponentKind::Spout) => "spout".to_owned(),
                Some(ComponentKind::Bolt) => "bolt".to_owned(),
                None => "-".to_owned(),
            },
            format!("{}/{}", component.tasks_alive, component.parallelism),
            output::count(component.counts.emitted),
            output::count(component.counts.transferred),
            output::count(component.counts.executed),
            output::count(component.counts.acked),
            output::count(component.counts.failed),
        ]);
    }
    table
}

fn tasks(detail: &TopologyDetail) -> Table {
    let mut table =
        Table::new(&["TASK", "COMPONENT", "HOST:PORT", "STATE", "EMITTED", "EXECUTED", "ACKED", "FAILED"]);
    for task in &detail.tasks {
        let place = match (&task.host, task.port) {
            (Some(host), Some(port)) => host_port(host, port.0),
            _ => "-".to_owned(),
        };
        let state = match task.status {
            Some(status) => format!("{status:?}").to_lowercase(),
            None => task.liveness.to_string(),
        };
        table.row([
            task.task.to_string(),
            task.component.to_string(),
            place,
            state,
            output::count(task.counts.emitted),
            output::count(task.counts.executed),
            output::count(task.counts.acked),
            output::count(task.counts.failed),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_api_types::message::ErrorSummary;
    use stormkeeper_model::{ComponentId, Port, TaskId, Timestamp};

    #[test]
    fn problems_of_supervisors_and_components_are_in_one_block_without_blank_lines() {
        let component = |id: &str, message: &str| {
            let id: ComponentId = id.parse().expect("valid");
            let last_error = Some(ErrorSummary {
                component: id.clone(),
                task: TaskId(7),
                time: Timestamp::EPOCH,
                host: "h".to_owned(),
                port: Port(1),
                message: message.to_owned(),
                stack: String::new(),
            });
            let (parallelism, tasks_alive, pending) = Default::default();
            let counts = Default::default();
            ComponentSummary { id, kind: None, parallelism, tasks_alive, counts, pending, last_error }
        };
        let components = [component("split", "late\nat x"), component("count", "\u{1b}[2J")];
        let text = problems(&["the disk is full".to_owned()], &components);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[0], "", "before the block only");
        assert_eq!(lines[1], "! the disk is full");
        assert_eq!(lines[2], format!("! split (task 7) at {}: late", Timestamp::EPOCH));
        assert!(lines[3].starts_with("! count (task 7)") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(problems(&[], &[]), "");
    }
}
