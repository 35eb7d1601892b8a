//! Checks of a request before it is sent, shared by both backends.

use crate::tree::{CreateMode, Error, MAX_MULTI_BYTES, MAX_NODE_BYTES, Op, TreePath};

/// Rejects a payload that exceeds the limit of one znode.
pub(crate) fn check_payload(path: &TreePath, n_bytes: usize) -> Result<(), Error> {
    match n_bytes > MAX_NODE_BYTES {
        true => Err(Error::TooLarge { path: path.clone(), bytes: n_bytes, limit: MAX_NODE_BYTES }),
        false => Ok(()),
    }
}

/// Rejects the creation of the tree's root. The server would refer to its own root, which with a
/// chroot is a different znode.
pub(crate) fn check_root_creation(path: &TreePath, mode: CreateMode) -> Result<(), Error> {
    match (path.is_root(), mode.is_sequential()) {
        (false, _) => Ok(()),
        (true, false) => Err(Error::NodeExists { path: path.clone() }),
        (true, true) => Err(Error::Refused("a sequential znode needs a name before its digits".to_owned())),
    }
}

/// Rejects the deletion of the tree's root.
pub(crate) fn check_root_deletion(path: &TreePath) -> Result<(), Error> {
    match path.is_root() {
        true => Err(Error::Refused("the root of the tree cannot be deleted".to_owned())),
        false => Ok(()),
    }
}

/// Checks a multi: every payload, the sum of all sizes, and operations on the root.
pub(crate) fn check_multi(ops: &[Op]) -> Result<(), Error> {
    for op in ops {
        if let Op::Create { path, data, .. } | Op::Set { path, data, .. } = op {
            check_payload(path, data.len())?;
        }
    }
    let bytes = ops.iter().map(Op::n_bytes).sum();
    if let Some(first) = ops.first().filter(|_| bytes > MAX_MULTI_BYTES) {
        return Err(Error::TooLarge { path: first.path().clone(), bytes, limit: MAX_MULTI_BYTES });
    }
    for (index, op) in ops.iter().enumerate() {
        let checked = match op {
            Op::Create { path, mode, .. } => check_root_creation(path, *mode),
            Op::Delete { path, .. } => check_root_deletion(path),
            Op::Check { .. } | Op::Set { .. } => Ok(()),
        };
        checked.map_err(|source| Error::Multi { index, source: Box::new(source) })?;
    }
    Ok(())
}
