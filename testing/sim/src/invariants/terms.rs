//! At most one leader has an effect in a term, and each term is later than all terms before it.

use super::Invariant;
use crate::{journal::Party, model::ClusterModel};
use stormkeeper_coordination::{
    cluster::layout,
    tree::{
        Op, Version,
        memory::listener::{Commit, What},
    },
};

#[derive(Debug)]
pub(super) struct Terms;

impl Invariant for Terms {
    fn name(&self) -> &'static str {
        "terms"
    }

    fn commit(&mut self, model: &ClusterModel, commit: &Commit<'_>, party: &Party) -> Result<(), String> {
        let What::Transaction { ops, .. } = commit.what else { return Ok(()) };
        let begins = ops.iter().any(|op| matches!(op, Op::Set { path, .. } if *path == layout::term()));
        let leads = ops.iter().any(|op| matches!(op, Op::Create { path, .. } if *path == layout::leader()));
        if begins != leads {
            return Err(format!("{party} wrote one of /term and /leader without the other"));
        }
        let begun = || commit.after.get(&layout::term()).map(|node| node.stat.version.0);
        if let Some(term) = begun().filter(|term| begins && *term <= model.term) {
            return Err(format!("{party} began term {term} after term {}", model.term));
        }
        // A read: a follower asks whether a later leader was elected.
        if ops.iter().all(|op| matches!(op, Op::Check { .. })) {
            return Ok(());
        }
        // A restarted nimbus removes the `/leader` of its former session, another connection.
        if matches!(ops, [Op::Check { .. }, Op::Delete { path, .. }] if *path == layout::leader()) {
            return Ok(());
        }
        for op in ops {
            let Op::Check { path, version: Some(Version(term)) } = op else { continue };
            if *path == layout::term() && model.winners.get(term) != Some(&commit.connection) {
                return Err(format!("{party} wrote in term {term}, which it did not win"));
            }
        }
        Ok(())
    }
}
