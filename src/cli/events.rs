//! `stormkeeper events`

use std::fmt::Write as _;

use crate::cli::{Global, client_runtime, error::Failure, output};
use stormkeeper_api_types::message::{EventList, EventSummary};
use stormkeeper_model::{task_set::TaskSet, text::counted};

/// Maximum number of characters of a list of tasks.
const TASKS_SHOWN: usize = 60;

/// Print the cluster's events, newest last.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The cluster keeps 500 events or some more, of which each owner has an equal share.\n\
Example: stormkeeper events --topology word-count -n 20"
)]
pub(super) struct Args {
    /// Print only the events of this topology, given by its name or, if it was removed, its id
    #[arg(long)]
    topology: Option<String>,
    /// Print only the newest N events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    last: usize,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let list = client_runtime()?.block_on(client.events(args.topology.as_deref(), Some(args.last)))?;
    if global.json {
        return output::print_json(&list);
    }
    if list.events.is_empty() {
        output::note("No events.");
        return Ok(());
    }
    if let Some(text) = omitted(&list) {
        output::note(&text);
    }
    // Newest last, as in a log file.
    output::print(&list.events.iter().rev().map(line).collect::<String>())
}

/// Says that there are older events, and how to see them.
fn omitted(list: &EventList) -> Option<String> {
    let n = list.events.len();
    match (list.truncated, list.omitted) {
        (false, _) => None,
        // A nimbus of an earlier build does not say how many.
        (true, 0) => Some(format!("These are the newest {n}; there are older ones: -n shows more.")),
        (true, omitted) => {
            let older = counted(omitted, "older event");
            Some(format!("These are the newest {n}; {older} not shown: -n {} shows all.", n + omitted))
        }
    }
}

fn line(event: &EventSummary) -> String {
    let topology = event.topology_id.as_ref().map_or_else(String::new, |id| format!("{id}: "));
    let by = event.by.as_ref().map_or_else(String::new, |by| format!(", by {}", output::one_line(by)));
    let mut text = format!(
        "{}  term {}  {:<12}  {topology}{} ({}{by})\n",
        event.time,
        event.term,
        event.event,
        output::one_line(&event.reason),
        event.nimbus
    );
    for moved in &event.moves {
        let place = |slot: &Option<String>| slot.clone().unwrap_or_else(|| "nowhere".to_owned());
        let (from, to) = (place(&moved.from), place(&moved.to));
        let what = match (&moved.from, from == to) {
            (None, _) => format!("to {to}"),
            (Some(_), true) => format!("restarted in {to}"),
            (Some(_), false) => format!("from {from} to {to}"),
        };
        writeln!(text, "    tasks {} {what}", shortened(&moved.tasks))
            .expect("writing to a string does not fail");
    }
    if event.moves_omitted > 0 {
        writeln!(text, "    and {} more moves", event.moves_omitted)
            .expect("writing to a string does not fail");
    }
    text
}

/// Returns a list of tasks that fits into a line; `--json` has all.
fn shortened(tasks: &TaskSet) -> String {
    let text = tasks.to_string();
    match text.char_indices().nth(TASKS_SHOWN) {
        Some((at, _)) => {
            let end = text[..at].rfind(',').unwrap_or(at);
            format!("{},… ({} in all)", &text[..end], tasks.len())
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_list_of_tasks_is_cut_at_a_task_and_says_how_many_there_are() {
        assert_eq!(shortened(&"3-9,12".parse().expect("tasks")), "3-9,12");
        let odd: Vec<String> = (0..300).map(|n| (2 * n + 1).to_string()).collect();
        let text = shortened(&odd.join(",").parse().expect("tasks"));
        assert!(text.starts_with("1,3,5,7") && text.ends_with(",… (300 in all)"), "{text}");
        assert!(text.len() < 90, "{text}");
    }

    #[test]
    fn older_events_that_are_not_shown_are_counted() {
        let said = |truncated, n| omitted(&EventList { truncated, omitted: n, ..EventList::default() });
        assert_eq!(said(false, 0), None);
        assert_eq!(
            said(true, 1).as_deref(),
            Some("These are the newest 0; 1 older event not shown: -n 1 shows all.")
        );
        assert!(said(true, 0).expect("an earlier build").contains("older ones"));
    }
}
