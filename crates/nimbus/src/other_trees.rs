//! Nimbuses of `nimbus.seeds` that know another tree than this one.
//!
//! A nimbus with an empty data directory begins a new cluster in a tree that was lost, and sees nothing
//! wrong. The other nimbuses remember the lost tree, refuse the new one, and say so in each response.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use stormkeeper_api_types::leader_clock::NimbusTime;
use stormkeeper_coordination::cluster::tree_id::TreeMemory;
use stormkeeper_model::TreeId;
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Pause between two rounds of questions: an operator sees the answer within ten seconds.
const PERIOD: Duration = Duration::from_secs(5);

/// Maximum number of nimbuses that are asked.
const ASKED_MAX: usize = 16;

/// Follows the problems of the nimbuses at `seeds` until `tasks` end. Without a client there are none.
pub(super) fn follow(
    nimbuses: Option<Arc<dyn NimbusTime>>,
    seeds: &[String],
    memory: &TreeMemory,
    tasks: &Tasks,
) -> watch::Receiver<Vec<String>> {
    let (problems, followed) = watch::channel(Vec::new());
    let Some(nimbuses) = nimbuses.filter(|_| !seeds.is_empty()) else { return followed };
    let (seeds, memory): (Vec<String>, _) = (seeds.iter().take(ASKED_MAX).cloned().collect(), memory.clone());
    tasks.start("trees of other nimbuses", OnExit::Ignore, async move {
        loop {
            let known = join_all(seeds.iter().map(async |seed| {
                let report = nimbuses.ask(seed).await.ok()?;
                Some((seed.as_str(), report.tree?))
            }));
            let known: Vec<(&str, TreeId)> = known.await.into_iter().flatten().collect();
            let own = memory.mark().filter(|_| memory.foreign().borrow().is_none()).map(|mark| mark.id);
            problems.send_if_modified(|shown| {
                let now = own.map(|own| texts(&own, &known)).unwrap_or_default();
                let is_new = *shown != now;
                *shown = now;
                is_new
            });
            tokio::time::sleep(PERIOD).await;
        }
    });
    followed
}

/// Describes the nimbuses that know another tree than `own`. Pure.
fn texts(own: &TreeId, known: &[(&str, TreeId)]) -> Vec<String> {
    let others = known.iter().filter(|(_, tree)| tree != own);
    let text = |(seed, tree): &(&str, TreeId)| {
        format!(
            "the nimbus at {seed} (nimbus.seeds) knows another tree, {tree}, than the one here, {own}: if this nimbus began \
             the tree after data was lost, submit nothing and see `stormkeeper recover` (docs/operations/disaster.md); \
             if that nimbus is of another cluster, take it out of nimbus.seeds"
        )
    };
    others.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nimbus_with_another_tree_is_named() {
        let id = |text: &str| TreeId(text.to_owned());
        assert_eq!(texts(&id("own"), &[("a:1", id("own"))]), Vec::<String>::new());
        let shown = texts(&id("own"), &[("a:1", id("own")), ("b:1", id("other"))]);
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(
            shown[0].starts_with("the nimbus at b:1 (nimbus.seeds) knows another tree, other"),
            "{shown:?}"
        );
    }
}
