//! No write of an old term is committed, and only the leader writes the leader's paths.

use super::Invariant;
use crate::{journal::Party, model::ClusterModel};
use stormkeeper_coordination::{
    cluster::layout,
    tree::{
        CreateMode, Op, TreePath, Version,
        memory::listener::{Commit, What},
    },
};

#[derive(Debug)]
pub(super) struct Fencing;

impl Invariant for Fencing {
    fn name(&self) -> &'static str {
        "fencing"
    }

    fn commit(&mut self, model: &ClusterModel, commit: &Commit<'_>, party: &Party) -> Result<(), String> {
        let What::Transaction { ops, .. } = commit.what else { return Ok(()) };
        let is_fenced = matches!(
            ops.first(),
            Some(Op::Check { path, version: Some(Version(term)) })
                if *path == layout::term() && *term == model.term && model.term > 0
        );
        // An election records its event and the identity of the tree in the transaction that begins
        // the term.
        let elects = ops.iter().any(|op| matches!(op, Op::Set { path, .. } if *path == layout::term()));
        let is_elections = |op: &Op| {
            elects && (op.path().parent() == Some(layout::events()) || *op.path() == layout::tree_id())
        };
        match ops.iter().find(|op| !is_fenced && !is_elections(op) && !is_anyones(op, party)) {
            Some(op) => Err(format!("{party} wrote {} without the check of term {}", op.path(), model.term)),
            None => Ok(()),
        }
    }
}

/// True if an operation needs no leadership.
fn is_anyones(op: &Op, party: &Party) -> bool {
    let parts: Vec<&str> = op.path().parts().collect();
    match (&parts[..], party) {
        _ if matches!(op, Op::Check { .. }) => true,
        // The fixed parents, which the first process creates.
        ([_], _) if is_parent(op.path()) => matches!(op, Op::Create { mode: CreateMode::Persistent, .. }),
        // The first nimbus creates it in an empty tree, and nobody changes it.
        (["layout"], Party::Nimbus(_)) => matches!(op, Op::Create { mode: CreateMode::Persistent, .. }),
        (["term" | "leader"], Party::Nimbus(_) | Party::Operator) => true,
        (["nimbuses", _], Party::Nimbus(_)) => true,
        (["supervisors" | "stopped-supervisors", id], Party::Supervisor(name)) => is_id_of(id, name),
        (["blobs", ..], Party::Nimbus(_)) => true,
        (["taskbeats", _, _], Party::Worker(_)) => true,
        (["taskerrors", _, _], Party::Worker(_) | Party::Supervisor(_)) => true,
        (["taskerrors", _, _, _], Party::Worker(_) | Party::Supervisor(_)) => true,
        _ => false,
    }
}

/// True if `id` is the id of the supervisor on the host `name`: the name, and mostly random digits.
fn is_id_of(id: &str, name: &str) -> bool {
    let digits = id.strip_prefix(name);
    digits.is_some_and(|digits| digits.is_empty() || (digits.starts_with('-') && !digits[1..].contains('-')))
}

fn is_parent(path: &TreePath) -> bool {
    layout::top_level().contains(path)
}
