//! Nimbuses that are configured and not in the list of the one that answered: they see another tree, or do
//! not run.
//!
//! A nimbus with an empty directory begins a new cluster in a tree that was lost, and answers as a healthy
//! nimbus without topologies. The other nimbuses know the lost tree.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;

use crate::cli::list;
use stormkeeper_api_types::{client::Client, message::NimbusList};

/// Time within which a nimbus must answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Nimbuses that get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// Those that serve another tree.
    OtherTrees,
    /// Those that serve another tree or do not answer.
    OtherTreesAndSilent,
}

/// Returns a line for each configured nimbus that is not one of `asked` and is to be named.
pub(super) async fn lines(client: &Client, asked: &BTreeSet<String>, named: Named) -> String {
    let others = client.seeds().iter().filter(|seed| !asked.contains(*seed));
    let requests = others.map(async |seed| {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.nimbuses_seen_by(seed)).await;
        match answer.map_err(|_elapsed| format!("no response within {ANSWER_TIMEOUT:?}")) {
            Ok(Ok(answer)) => line(seed, answer),
            Ok(Err(error)) => silent_line(seed, &error.to_string(), named),
            Err(reason) => silent_line(seed, &reason, named),
        }
    });
    join_all(requests).await.into_iter().flatten().collect()
}

fn silent_line(seed: &str, reason: &str, named: Named) -> Option<String> {
    let text = format!(
        "the nimbus at {seed}, of nimbus.seeds, is not registered and does not answer: {reason}; start it, or take it \
         out of nimbus.seeds"
    );
    (named == Named::OtherTreesAndSilent).then(|| list::problem_line(&text))
}

fn line(seed: &str, answer: NimbusList) -> Option<String> {
    let problem = answer.tree_problem?;
    Some(list::problem_line(&format!(
        "the nimbus at {seed} knows another tree than the one shown here: {problem}. Submit nothing before that is clear"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nimbus_that_does_not_answer_is_named_where_nimbuses_are_listed() {
        assert_eq!(silent_line("a:1", "refused", Named::OtherTrees), None);
        let line = silent_line("a:1", "refused", Named::OtherTreesAndSilent).expect("a line");
        assert!(line.starts_with("! the nimbus at a:1, of nimbus.seeds, is not registered"), "{line}");
    }

    #[test]
    fn nimbus_that_knows_another_tree_is_named_with_its_reason() {
        let answer = |tree_problem: Option<&str>| NimbusList {
            nimbuses: Vec::new(),
            term: None,
            tree_problem: tree_problem.map(str::to_owned),
            view_age_ms: 0,
        };
        assert_eq!(line("a:1", answer(None)), None);
        let line = line("a:1", answer(Some("ZooKeeper has another tree"))).expect("a line");
        assert!(
            line.starts_with("! the nimbus at a:1 knows another tree than the one shown here: ZooKeeper has")
        );
    }
}
