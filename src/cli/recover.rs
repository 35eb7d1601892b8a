//! `stormkeeper recover`

use anyhow::anyhow;
use serde::Serialize;

use crate::cli::{
    Global, client_runtime,
    confirm::{confirm, is_terminal},
    error::{ErrorKind, Failure},
    output::{self, Table},
};
use stormkeeper_api_types::{
    client::Client,
    message::{Recovered, RecoveryRequest, RecoveryStatus, TreeCopySummary},
};
use stormkeeper_model::{Term, Timestamp, clock::Clock, text::counted, time::format_duration};

/// Bring back the tree that ZooKeeper lost, from the copy of a nimbus.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each nimbus keeps a copy of the topologies, their tasks and assignments, and of the \
drained hosts, as it last saw them. This command shows what would come back, from the nimbus with the \
latest copy, and asks for confirmation at a terminal. In a script it changes nothing without --yes. Workers that still run are adopted by their supervisors and not \
restarted. Terms go on where they stopped, so the metric stores stay usable.\n\
A tree that belongs to another cluster is not overwritten.\n\
Example: stormkeeper recover --yes"
)]
pub(super) struct Args {
    /// Bring the copy of this nimbus back, an id or an API address as shown [default: the latest copy]
    #[arg(long, value_name = "NIMBUS")]
    from: Option<String>,
    /// Write to ZooKeeper, without a question
    #[arg(long)]
    yes: bool,
}

/// One nimbus and its copy, or the reason why it did not respond.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replica {
    api: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    status: Option<RecoveryStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Replicas<'a> {
    replicas: &'a [Replica],
    /// API address of the nimbus whose copy would come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<&'a Recovered>,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    client_runtime()?.block_on(async {
        let replicas = ask_all(&client).await;
        let chosen = choose(&replicas, args.from.as_deref());
        // The question follows what it is about.
        let is_asked = chosen.is_ok() && !args.yes && !global.json && is_terminal();
        if is_asked {
            output::print(&text(&replicas, chosen.as_ref().ok().copied(), Outcome::Asked))?;
            confirm(false, "Bring this back?")?;
        }
        let recovered = match &chosen {
            Ok((replica, _)) if args.yes || is_asked => {
                let request = RecoveryRequest { seen_term: latest_term(&replicas) };
                Some(client.recover(&replica.api, &request).await?)
            }
            _ => None,
        };
        if global.json {
            let from = chosen.as_ref().ok().map(|(replica, _)| &*replica.api);
            let recovered = recovered.as_ref();
            output::print_json(&Replicas { replicas: &replicas, from, recovered })?;
        } else {
            let outcome = recovered.as_ref().map_or(Outcome::Unchanged, Outcome::Recovered);
            let text = match is_asked {
                // The rest is on the terminal already.
                true => outcome_text(&outcome),
                false => text(&replicas, chosen.as_ref().ok().copied(), outcome),
            };
            output::print(&text)?;
        }
        chosen.map(drop)
    })
}

async fn ask_all(client: &Client) -> Vec<Replica> {
    let requests = client.seeds().iter().map(async |api| {
        let (status, problem) = match client.recovery_of(api).await {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Replica { api: api.clone(), status, problem }
    });
    futures_util::future::join_all(requests).await
}

fn latest_term(replicas: &[Replica]) -> Option<Term> {
    let copies = replicas.iter().filter_map(|replica| replica.status.as_ref()?.copy.as_ref());
    copies.map(|copy| copy.term).max()
}

/// Returns the nimbus whose copy comes back: the selected one, or the one with the latest copy.
fn choose<'a>(
    replicas: &'a [Replica],
    from: Option<&str>,
) -> Result<(&'a Replica, &'a TreeCopySummary), Failure> {
    let usable = replicas.iter().filter_map(|replica| {
        let status = replica.status.as_ref()?;
        let is_selected = from.is_none_or(|from| replica.api == from || status.nimbus.as_str() == from);
        let can = is_selected && status.tree_problem.is_some() && status.obstacle.is_none();
        can.then_some((replica, status.copy.as_ref()?))
    });
    let latest = usable.max_by_key(|(_, copy)| (copy.term, copy.taken));
    latest.ok_or_else(|| {
        let refused = |text: &str| Failure::new(ErrorKind::Refused, anyhow!("{text}"));
        let has_lost =
            |replica: &Replica| replica.status.as_ref().is_some_and(|status| status.tree_problem.is_some());
        match (replicas.iter().any(has_lost), from) {
            (false, _) => refused("there is nothing to recover: no nimbus that answered has lost its tree"),
            (true, None) => refused("no nimbus that answered can bring a copy back; the reasons are above"),
            (true, Some(_)) => refused("the selected nimbus cannot bring a copy back; the reasons are above"),
        }
    })
}

fn age(copy: &TreeCopySummary, now: Timestamp) -> String {
    format!("{} ago", format_duration(now.since(copy.taken)))
}

fn text(replicas: &[Replica], chosen: Option<(&Replica, &TreeCopySummary)>, outcome: Outcome<'_>) -> String {
    let now = Clock::new().now();
    let mut table = Table::new(&["NIMBUS", "API", "COPY TAKEN", "TERM", "TOPOLOGIES", "DRAINS"]);
    let mut problems = String::new();
    for Replica { api, status, problem } in replicas {
        let copy = status.as_ref().and_then(|status| status.copy.as_ref());
        let of = |text: fn(&TreeCopySummary) -> String| copy.map_or_else(|| "-".to_owned(), text);
        table.row([
            status.as_ref().map_or_else(|| "-".to_owned(), |status| status.nimbus.to_string()),
            api.clone(),
            copy.map_or_else(|| "-".to_owned(), |copy| age(copy, now)),
            of(|copy| copy.term.to_string()),
            of(|copy| copy.topologies.len().to_string()),
            of(|copy| copy.drains.len().to_string()),
        ]);
        let status = status.iter().flat_map(|status| [&status.tree_problem, &status.obstacle]);
        for problem in status.chain([problem]).flatten() {
            problems.push_str(&format!("! {api}: {}\n", output::one_line(problem)));
        }
    }
    let mut text = table.text(0) + &problems;
    let Some((replica, copy)) = chosen else { return text };
    text.push_str(&format!("\nFrom {}, as of {}:\n", replica.api, age(copy, now)));
    let mut table = Table::new(&["NAME", "STATUS", "WORKERS", "PACKAGE", "ID"]);
    for topology in &copy.topologies {
        table.row([
            topology.name.to_string(),
            topology.status.to_string(),
            topology.workers.to_string(),
            if topology.has_package { "here" } else { "not on this nimbus" }.to_owned(),
            topology.id.to_string(),
        ]);
    }
    text.push_str(&table.text(2));
    if !copy.drains.is_empty() {
        let drains: Vec<&str> = copy.drains.iter().map(|host| host.as_str()).collect();
        text.push_str(&format!("  drained: {}\n", drains.join(", ")));
    }
    text + &outcome_text(&outcome)
}

/// End of the command.
enum Outcome<'a> {
    /// A question follows.
    Asked,
    Unchanged,
    Recovered(&'a Recovered),
}

fn outcome_text(outcome: &Outcome<'_>) -> String {
    match outcome {
        Outcome::Asked => "\n".to_owned(),
        Outcome::Unchanged => {
            "\nNothing was changed. To bring this back: stormkeeper recover --yes\n".to_owned()
        }
        Outcome::Recovered(Recovered { tree, term, topologies }) => format!(
            "\nBrought back {} as tree {tree}; terms go on after {term}. Running workers are adopted.\n",
            counted(topologies.len(), "topology")
        ),
    }
}
