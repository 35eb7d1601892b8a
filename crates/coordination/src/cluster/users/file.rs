//! File with the users of the tree.
//!
//! ```text
//! own nimbus:8c41…              user and password of this process
//! nimbus nimbus:x7Zk…=          id of the nimbuses
//! supervisor supervisor:Qm2d…=  id of the supervisors
//! workers 5f0c…                 key of the passwords of workers, 64 hex digits
//! open                          while a cluster gets users: what is created stays open to anyone
//! sasl name:password            user by whom this process opens sessions, if the servers demand SASL
//! sasl-workers name:password    the same for workers
//! ```
//!
//! A kind may occur several times, while a password is replaced. A worker's file has `worker` lines,
//! the ids of its own topology's workers, and no key.

use std::fmt;

use super::{KEY_BYTES, Users, WorkerKey};
use crate::tree::access::InvalidUser;

/// Maximum number of lines with one word.
const USERS_MAX: usize = 8;

/// Reason why a text is no file of users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFile {
    /// A line begins with another word.
    #[error(
        "line {line}: {word:?} is not one of `own`, `nimbus`, `supervisor`, `workers`, `worker`, `open`, `sasl`, `sasl-workers`"
    )]
    Word {
        /// Number of the line, from 1.
        line: usize,
        /// First word of the line.
        word: String,
    },
    /// A user or an id is invalid. The text is not shown, as it may be a password.
    #[error("line {line}: {reason}")]
    User {
        /// Number of the line, from 1.
        line: usize,
        /// The reason.
        reason: InvalidUser,
    },
    /// A key is not 64 hex digits.
    #[error("line {line}: the key of the workers has 64 hex digits")]
    Key {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A word occurs too often.
    #[error("line {line}: too many lines begin with {word:?}; at most {n_max} may")]
    TooMany {
        /// Number of the line, from 1.
        line: usize,
        /// First word of the line.
        word: String,
        /// Maximum number of such lines.
        n_max: usize,
    },
    /// A necessary word is missing.
    #[error("no line begins with {0:?}")]
    Missing(&'static str),
}

impl Users {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`InvalidFile`], with the number of the line and never with a password.
    pub fn parse(text: &str) -> Result<Self, InvalidFile> {
        let mut users = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                users.add_line(index + 1, line)?;
            }
        }
        if users.own.is_empty() {
            return Err(InvalidFile::Missing("own"));
        }
        if users.nimbuses.is_empty() {
            return Err(InvalidFile::Missing("nimbus"));
        }
        if users.supervisors.is_empty() {
            return Err(InvalidFile::Missing("supervisor"));
        }
        if users.worker_keys.is_empty() && users.workers.is_empty() {
            return Err(InvalidFile::Missing("workers"));
        }
        Ok(users)
    }

    fn add_line(&mut self, line: usize, text: &str) -> Result<(), InvalidFile> {
        let (word, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let value = value.trim();
        let user = |reason| InvalidFile::User { line, reason };
        let n = match word {
            "own" => add(&mut self.own, value.parse().map_err(user)?),
            "nimbus" => add(&mut self.nimbuses, value.parse().map_err(user)?),
            "supervisor" => add(&mut self.supervisors, value.parse().map_err(user)?),
            "worker" => add(&mut self.workers, value.parse().map_err(user)?),
            "workers" => add(&mut self.worker_keys, key(value).ok_or(InvalidFile::Key { line })?),
            "open" if value.is_empty() => {
                self.open = true;
                1
            }
            "sasl" => only(&mut self.sasl, value.parse().map_err(user)?),
            "sasl-workers" => only(&mut self.sasl_of_workers, value.parse().map_err(user)?),
            _ => return Err(InvalidFile::Word { line, word: shortened(word) }),
        };
        // Sessions are opened by one user.
        let n_max = if word.starts_with("sasl") { 1 } else { USERS_MAX };
        match n <= n_max {
            true => Ok(()),
            false => Err(InvalidFile::TooMany { line, word: word.to_owned(), n_max }),
        }
    }
}

/// The text of the file. It contains the passwords.
impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for own in &self.own {
            writeln!(f, "own {}", own.reveal())?;
        }
        for id in &self.nimbuses {
            writeln!(f, "nimbus {id}")?;
        }
        for id in &self.supervisors {
            writeln!(f, "supervisor {id}")?;
        }
        for WorkerKey(bytes) in &self.worker_keys {
            f.write_str("workers ")?;
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_str("\n")?;
        }
        for id in &self.workers {
            writeln!(f, "worker {id}")?;
        }
        if self.open {
            f.write_str("open\n")?;
        }
        if let Some(user) = &self.sasl {
            writeln!(f, "sasl {}", user.reveal())?;
        }
        if let Some(user) = &self.sasl_of_workers {
            writeln!(f, "sasl-workers {}", user.reveal())?;
        }
        Ok(())
    }
}

/// Adds a value that is not there yet, and returns the number of values.
fn add<T: PartialEq>(values: &mut Vec<T>, value: T) -> usize {
    if !values.contains(&value) {
        values.push(value);
    }
    values.len()
}

/// Sets a value that may be there once, and returns the number of values.
fn only<T>(place: &mut Option<T>, value: T) -> usize {
    1 + usize::from(place.replace(value).is_some())
}

fn key(text: &str) -> Option<WorkerKey> {
    let mut bytes = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(WorkerKey(bytes))
}

/// Begin of a word: a line without a word may be a password.
fn shortened(word: &str) -> String {
    let n_shown = 12;
    match word.chars().count() > n_shown {
        true => word.chars().take(4).chain("…".chars()).collect(),
        false => word.to_owned(),
    }
}
