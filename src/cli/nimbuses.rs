//! `stormkeeper nimbuses`

use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use crate::cli::{
    Global, client_runtime,
    error::Failure,
    other_trees::{self, Named},
    output::{self, Table},
};
use stormkeeper_api_types::{
    forward::BEHIND_MIN,
    message::{NimbusList, NimbusStatus, NimbusSummary},
};
use stormkeeper_model::{Term, time::format_duration};

/// Response timeout of one nimbus. Requests to all nimbuses run at the same time.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(3);

/// Show the nimbus replicas: the leader, and the lag of each replica.
#[derive(Debug, clap::Args)]
#[command(after_help = "Each replica reports the age of its view and the term that it follows; these \
columns stay empty for a replica that does not respond within 3 seconds. METRICS is the lag of the replica's \
metric store behind the leader, or `closed` if the store cannot be opened. Reasons and other metric problems \
are listed below the table.")]
pub(super) struct Args {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Replica {
    #[serde(flatten)]
    summary: NimbusSummary,
    /// Newest term that the replica has seen.
    term: Option<Term>,
    /// Age of the replica's view; absent if the replica does not respond.
    view_age_ms: Option<u64>,
    /// Reason why the replica does not respond, or the tree that it has met instead of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct Replicas {
    nimbuses: Vec<Replica>,
    /// Term of the leader, if there is one, also if its own record cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
}

pub(super) fn run(global: &Global, _args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let (replicas, elsewhere) = client_runtime()?.block_on(async {
        let list = client.nimbuses().await?;
        let requests = list.nimbuses.into_iter().map(async |summary| {
            let response = tokio::time::timeout(REPLICA_TIMEOUT, client.nimbuses_seen_by(&summary.api)).await;
            let response = response.map_err(|_elapsed| format!("no response within {REPLICA_TIMEOUT:?}"));
            replica(summary, response.and_then(|response| response.map_err(|error| error.to_string())))
        });
        let nimbuses = join_all(requests).await;
        let asked = nimbuses.iter().map(|replica| replica.summary.api.clone()).collect();
        let elsewhere = if global.json {
            String::new()
        } else {
            other_trees::lines(&client, &asked, Named::OtherTreesAndSilent).await
        };
        Ok::<_, Failure>((Replicas { nimbuses, term: list.term }, elsewhere))
    })?;
    if global.json {
        return output::print_json(&replicas);
    }
    output::print(&(text(&replicas) + &elsewhere))
}

fn replica(mut summary: NimbusSummary, response: Result<NimbusList, String>) -> Replica {
    match response {
        Ok(NimbusList { nimbuses, term, tree_problem, view_age_ms }) => {
            // The replica's own report is more recent than the list.
            if let Some(own) = nimbuses.into_iter().find(|own| own.id == summary.id) {
                (summary.metric_store_error, summary.metrics_lag_entries) =
                    (own.metric_store_error, own.metrics_lag_entries);
                summary.metrics_problem = own.metrics_problem;
            }
            let age = Duration::from_millis(view_age_ms);
            let problem = tree_problem.or_else(|| (age >= BEHIND_MIN).then(|| no_zookeeper(age)));
            Replica { summary, term, view_age_ms: Some(view_age_ms), problem }
        }
        Err(reason) => Replica { summary, term: None, view_age_ms: None, problem: Some(reason) },
    }
}

fn no_zookeeper(age: Duration) -> String {
    format!(
        "ZooKeeper has not been reached for {}: everything is shown as it was then; check ZooKeeper and \
         storm.zookeeper.servers",
        format_duration(age)
    )
}

fn metrics(summary: &NimbusSummary) -> String {
    match (&summary.metric_store_error, summary.metrics_lag_entries) {
        (Some(_), _) => "closed".to_owned(),
        (None, Some(0)) => "current".to_owned(),
        (None, Some(n)) => format!("{n} behind"),
        (None, None) => "-".to_owned(),
    }
}

fn text(Replicas { nimbuses, term }: &Replicas) -> String {
    let mut table = Table::new(&[
        "ID",
        "API",
        "ROLE",
        "TERM",
        "BLOBS MISSING",
        "VIEW AGE",
        "METRICS",
        "UPTIME",
        "VERSION",
    ]);
    for Replica { summary, term, view_age_ms, .. } in nimbuses {
        let age = |millis: u64| match millis {
            0 => "current".to_owned(),
            millis => format!("{:.1}s", Duration::from_millis(millis).as_secs_f64()),
        };
        table.row([
            summary.id.to_string(),
            summary.api.clone(),
            summary.status.to_string(),
            term.map_or_else(|| "-".to_owned(), |term| term.to_string()),
            summary.blobs_missing.to_string(),
            view_age_ms.map_or_else(|| "-".to_owned(), age),
            metrics(summary),
            format_duration(Duration::from_secs(summary.uptime_seconds)),
            summary.version.clone(),
        ]);
    }
    let mut text = table.text(0);
    for Replica { summary, problem, .. } in nimbuses {
        if let Some(problem) = problem {
            text.push_str(&format!("! {}: {}\n", summary.id, output::one_line(problem)));
        }
        let (disk, clock) = (&summary.disk_problem, &summary.clock_problem);
        let problems = [disk, &summary.access_problem, clock, &summary.exposed];
        for problem in problems.into_iter().flatten() {
            text.push_str(&format!("! {}: {}\n", summary.id, output::one_line(problem)));
        }
        if let Some(reason) = &summary.metric_store_error {
            text.push_str(&format!(
                "! {}: nimbus runs without metrics and retries every minute: {reason}\n",
                summary.id
            ));
        } else if let Some(problem) = &summary.metrics_problem {
            text.push_str(&format!("! {}: {}\n", summary.id, output::one_line(problem)));
        }
    }
    if !nimbuses.iter().any(|replica| replica.summary.status == NimbusStatus::Leader) {
        match term {
            None => text.push_str("! no leader at the moment\n"),
            Some(term) => text.push_str(&format!(
                "! the leader of term {term} is not in this list: its record below /nimbuses is missing or cannot \
                 be read; `stormkeeper cluster` names the leader and the record\n"
            )),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(
        id: &str,
        metric_store_error: Option<&str>,
        metrics_lag_entries: Option<u64>,
    ) -> NimbusSummary {
        NimbusSummary {
            id: id.parse().expect("valid"),
            host: "h".to_owned(),
            api: format!("{id}:1"),
            status: NimbusStatus::Leader,
            uptime_seconds: 5,
            blobs_missing: 0,
            metric_store_error: metric_store_error.map(str::to_owned),
            disk_problem: (id == "a").then(|| "its disk is full".to_owned()),
            access_problem: (id == "c").then(|| "a token file is bad".to_owned()),
            clock_problem: (id == "b").then(|| "its clock is wrong".to_owned()),
            exposed: (id == "d").then(|| "everybody may use its API".to_owned()),
            metrics_lag_entries,
            metrics_problem: metrics_lag_entries.map(|n| format!("{n} entries are late")),
            version: "1".to_owned(),
        }
    }

    #[test]
    fn metric_state_of_a_replica_comes_from_the_replica_itself() {
        let list = |own| NimbusList {
            nimbuses: vec![own],
            term: Some(Term(3)),
            tree_problem: None,
            view_age_ms: 1500,
        };
        let nimbuses = vec![
            replica(summary("a", None, None), Ok(list(summary("a", None, Some(0))))),
            replica(
                summary("b", None, None),
                Ok(NimbusList { view_age_ms: 268_000, ..list(summary("b", None, Some(7))) }),
            ),
            replica(summary("c", Some("it is damaged: move it away"), None), Err("no response".to_owned())),
            replica(summary("d", None, Some(9)), Ok(list(summary("d", None, None)))),
        ];
        let text = text(&Replicas { nimbuses, term: Some(Term(3)) });
        let states: Vec<&str> = ["current", "7 behind", "closed"]
            .into_iter()
            .filter(|state| text.lines().filter(|line| line.contains(state)).count() == 1)
            .collect();
        assert_eq!(states, ["current", "7 behind", "closed"], "{text}");
        let closed = "! c: nimbus runs without metrics and retries every minute: it is damaged: move it away";
        assert!(text.lines().any(|line| line == closed), "{text}");
        let lost = "! b: ZooKeeper has not been reached for 4m 28s: everything is shown as it was then";
        assert!(text.lines().any(|line| line.starts_with(lost)), "{text}");
        assert!(!text.contains("! a: ZooKeeper"), "a loss of 1.5 s is nothing to report: {text}");
        assert!(text.lines().any(|line| line == "! b: 7 entries are late"), "{text}");
        assert!(text.lines().any(|line| line == "! a: its disk is full"), "{text}");
        assert!(text.lines().any(|line| line == "! b: its clock is wrong"), "{text}");
        assert!(text.lines().any(|line| line == "! c: a token file is bad"), "{text}");
        assert!(text.lines().any(|line| line == "! d: everybody may use its API"), "{text}");
        assert!(!text.contains("9 behind"), "the replica's own report wins: {text}");
        assert!(!text.contains("9 entries"), "{text}");
    }

    #[test]
    fn leader_without_a_readable_record_is_not_called_no_leader() {
        let text_of = |term| text(&Replicas { nimbuses: Vec::new(), term });
        assert!(text_of(None).contains("! no leader at the moment"));
        let text = text_of(Some(Term(3)));
        assert!(text.contains("! the leader of term 3 is not in this list"), "{text}");
        assert!(!text.contains("no leader"), "{text}");
    }
}
