//! Nimbuses that are configured and see another tree than the one that answered.
//!
//! A nimbus with an empty directory begins a new cluster in a tree that was lost, and answers as a healthy
//! nimbus without topologies. The other nimbuses know the lost tree.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;

use crate::cli::list;
use stormkeeper_api_types::{client::Client, message::NimbusList};

/// Time within which a nimbus must answer; one that does not is not named.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns a line for each configured nimbus that serves another tree.
pub(super) async fn lines(client: &Client, asked: &BTreeSet<String>) -> String {
    let others = client.seeds().iter().filter(|seed| !asked.contains(*seed));
    let requests = others.map(async |seed| {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.nimbuses_seen_by(seed)).await.ok()?.ok()?;
        line(seed, answer)
    });
    join_all(requests).await.into_iter().flatten().collect()
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
