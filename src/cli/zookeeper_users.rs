//! The users of the tree that a daemon, a worker or a command reads from its file.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;

use crate::{
    cli::error::{ErrorKind, Failure},
    config::Config,
};
use stormkeeper_access::file::{self, Protection};
use stormkeeper_coordination::{
    cluster::users::Users,
    tree::access::{Access, AccessRules},
};

/// Reads the users of a daemon, if it has a file of users.
pub(super) fn of_daemon(config: &Config) -> Result<Option<Users>, Failure> {
    config.zookeeper_users_file().map(|path| read(&path)).transpose()
}

/// Reads a file of users, which nobody but its owner may read.
pub(super) fn read(path: &Path) -> Result<Users, Failure> {
    let wrong = |error: anyhow::Error| Failure::new(ErrorKind::Config, error);
    let text = file::read(path, Protection::Secret).map_err(|error| wrong(error.into()))?;
    Users::parse(&text).with_context(|| path.display().to_string()).map_err(wrong)
}

/// Returns how a process with these users connects to the tree.
pub(super) fn access(config: &Config, users: Option<Users>) -> Option<Access> {
    let users = users?;
    let credentials = users.own().to_vec();
    let rules = config.protects_tree().then(|| Arc::new(users) as Arc<dyn AccessRules>);
    Some(Access { credentials, rules })
}
