//! A topology's record is removed last.

use super::Invariant;
use crate::{journal::Party, model::ClusterModel};
use stormkeeper_coordination::{
    cluster::layout,
    tree::{
        Op,
        memory::listener::{Commit, What},
    },
};
use stormkeeper_model::TopologyId;

#[derive(Debug)]
pub(super) struct Removal;

impl Invariant for Removal {
    fn name(&self) -> &'static str {
        "removal"
    }

    fn commit(&mut self, _model: &ClusterModel, commit: &Commit<'_>, _party: &Party) -> Result<(), String> {
        let What::Transaction { ops, .. } = commit.what else { return Ok(()) };
        for op in ops.iter().filter(|op| matches!(op, Op::Delete { .. })) {
            if op.path().parent() != Some(layout::storms()) {
                continue;
            }
            let Ok(id) = op.path().name().parse::<TopologyId>() else { continue };
            let others = [
                layout::assignment(&id),
                layout::tasks(&id),
                layout::taskbeats(&id),
                layout::taskerrors(&id),
                layout::metrics(&id),
            ];
            if let Some(left) = others.iter().find(|path| commit.after.get(path).is_some()) {
                return Err(format!("the record of {id} was deleted while {left} existed"));
            }
        }
        Ok(())
    }
}
