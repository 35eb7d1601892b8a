//! Quotas of owners: how many topologies and tasks an owner may have, and how many bytes of packages.
//!
//! The file has one line for each owner; `*` is every other owner, and stands for what a line does not
//! name:
//!
//! ```text
//! # owner  limits
//! *        topologies=10 tasks=1000 blob-bytes=1GiB
//! team     topologies=50 blob-bytes=unlimited
//! ```
//!
//! The check is pure. A request that makes nothing larger passes even if the quota was lowered below
//! what the owner has.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    file::{self, FileError, Protection},
    token::check_name,
};
use stormkeeper_model::id::quoted;

/// Maximum number of owners in a file.
const OWNERS_MAX: usize = 10_000;

/// Stands for every owner without a line.
const EVERYBODY: &str = "*";

/// Something of which a quota limits the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Topologies, until they are removed.
    Topologies,
    /// Tasks of the topologies.
    Tasks,
    /// Bytes of different packages.
    BlobBytes,
}

impl Counted {
    const ALL: [Self; 3] = [Self::Topologies, Self::Tasks, Self::BlobBytes];

    /// Name in the file.
    fn key(self) -> &'static str {
        match self {
            Self::Topologies => "topologies",
            Self::Tasks => "tasks",
            Self::BlobBytes => "blob-bytes",
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Topologies => "topologies",
            Self::Tasks => "tasks",
            Self::BlobBytes => "bytes of packages",
        })
    }
}

/// Limits of an owner; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Maximum number of topologies.
    pub topologies: Option<u64>,
    /// Maximum number of tasks.
    pub tasks: Option<u64>,
    /// Maximum bytes of packages.
    pub blob_bytes: Option<u64>,
}

impl Quota {
    fn limit(&self, counted: Counted) -> Option<u64> {
        match counted {
            Counted::Topologies => self.topologies,
            Counted::Tasks => self.tasks,
            Counted::BlobBytes => self.blob_bytes,
        }
    }

    /// Checks that an owner may go from `before` to `after`.
    ///
    /// # Errors
    /// [`Exceeded`] for the first number that grows beyond its limit.
    pub fn check(&self, before: &Usage, after: &Usage) -> Result<(), Exceeded> {
        for counted in Counted::ALL {
            let (before, after) = (before.number(counted), after.number(counted));
            if let Some(limit) = self.limit(counted).filter(|limit| after > *limit && after > before) {
                return Err(Exceeded { counted, limit, before, after });
            }
        }
        Ok(())
    }
}

/// Numbers that an owner has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Topologies.
    pub topologies: u64,
    /// Tasks.
    pub tasks: u64,
    /// Bytes of packages.
    pub blob_bytes: u64,
}

impl Usage {
    fn number(&self, counted: Counted) -> u64 {
        match counted {
            Counted::Topologies => self.topologies,
            Counted::Tasks => self.tasks,
            Counted::BlobBytes => self.blob_bytes,
        }
    }
}

/// A request would exceed a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota is {limit} {counted}: {before} are in use, and with this request there would be {after}")]
pub struct Exceeded {
    /// Limited thing.
    pub counted: Counted,
    /// Its limit.
    pub limit: u64,
    /// Number in use.
    pub before: u64,
    /// Number after the request.
    pub after: u64,
}

/// Limits in one line: absent is that of everybody, `Some(None)` is unlimited.
type Line = BTreeMap<Counted, Option<u64>>;

/// The quotas of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quotas {
    everybody: Line,
    owners: BTreeMap<String, Line>,
}

impl Quotas {
    /// Reads a file that nobody but its owner may change. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &file::read(path, Protection::Unchanged)?)
    }

    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// [`FileError::Line`] for the first invalid line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let (mut quotas, mut lines) = (Self::default(), BTreeMap::new());
        for (line, content) in file::lines(text) {
            let fail = |fault| FileError::Line { path: PathBuf::from(path), line, fault };
            let (owner, limits) = parse_line(content).map_err(fail)?;
            if let Some(first) = lines.insert(owner.clone(), line) {
                return Err(fail(format!("the owner {owner} is in line {first} already")));
            }
            if quotas.owners.len() == OWNERS_MAX {
                return Err(fail(format!("there are more than {OWNERS_MAX} owners")));
            }
            match owner == EVERYBODY {
                true => quotas.everybody = limits,
                false => _ = quotas.owners.insert(owner, limits),
            }
        }
        Ok(quotas)
    }

    /// Returns the quota of an owner.
    pub fn of(&self, owner: &str) -> Quota {
        let own = self.owners.get(owner);
        let limit = |counted: Counted| {
            let limit = own.and_then(|own| own.get(&counted)).or_else(|| self.everybody.get(&counted));
            limit.copied().flatten()
        };
        Quota {
            topologies: limit(Counted::Topologies),
            tasks: limit(Counted::Tasks),
            blob_bytes: limit(Counted::BlobBytes),
        }
    }

    /// Owners that have a line.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.owners.keys().map(String::as_str)
    }
}

fn parse_line(line: &str) -> Result<(String, Line), String> {
    const SHAPE: &str = "expected `OWNER LIMIT…`, with the limits topologies=N, tasks=N and blob-bytes=N";
    let mut words = line.split_whitespace();
    let owner = words.next().ok_or(SHAPE)?;
    if owner != EVERYBODY {
        check_name("owner", owner)?;
    }
    let mut limits = Line::new();
    for word in words {
        let (key, number) = word.split_once('=').ok_or_else(|| format!("{}: {SHAPE}", quoted(word)))?;
        let counted = Counted::ALL.into_iter().find(|counted| counted.key() == key);
        let counted = counted.ok_or_else(|| format!("{} is no limit: {SHAPE}", quoted(key)))?;
        let limit = parse_number(counted, number)?;
        if limits.insert(counted, limit).is_some() {
            return Err(format!("it has {key} twice"));
        }
    }
    match limits.is_empty() {
        true => Err(format!("it has no limit: {SHAPE}")),
        false => Ok((owner.to_owned(), limits)),
    }
}

fn parse_number(counted: Counted, text: &str) -> Result<Option<u64>, String> {
    if text == "unlimited" {
        return Ok(None);
    }
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    let unit = units.into_iter().filter(|_| counted == Counted::BlobBytes);
    let unit = unit.filter_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor))).next();
    let (digits, factor): (&str, u64) = unit.unwrap_or((text, 1));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number =
        digits.parse::<u64>().ok().filter(|_| is_number).and_then(|number| number.checked_mul(factor));
    let expected = match counted {
        Counted::BlobBytes => {
            "a whole number of bytes, which may end in KiB, MiB, GiB or TiB, or `unlimited`"
        }
        Counted::Topologies | Counted::Tasks => "a whole number, or `unlimited`",
    };
    number.map(Some).ok_or_else(|| format!("{}={}: expected {expected}", counted.key(), quoted(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Quotas, FileError> {
        Quotas::parse(Path::new("quotas"), text)
    }

    fn quota(topologies: Option<u64>, tasks: Option<u64>, blob_bytes: Option<u64>) -> Quota {
        Quota { topologies, tasks, blob_bytes }
    }

    #[test]
    fn line_of_everybody_stands_for_what_the_line_of_an_owner_does_not_name() {
        let quotas = parse(
            "# quotas\n* topologies=10 tasks=1000 blob-bytes=1GiB\nteam topologies=50 blob-bytes=unlimited\n\
             ann tasks=0",
        )
        .expect("valid");
        assert_eq!(quotas.of("team"), quota(Some(50), Some(1000), None));
        assert_eq!(quotas.of("ann"), quota(Some(10), Some(0), Some(1 << 30)));
        assert_eq!(quotas.of("bob"), quota(Some(10), Some(1000), Some(1 << 30)));
        assert_eq!(parse("").expect("an empty file limits nobody").of("bob"), Quota::default());
        assert_eq!(parse("ann tasks=1").expect("valid").of("bob"), Quota::default());
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_what_is_expected() {
        for (text, expected) in [
            ("ann", "quotas:1: it has no limit"),
            ("an/n tasks=1", "\"an/n\" is no owner"),
            ("* tasks=1\nann workers=1", "quotas:2: \"workers\" is no limit"),
            ("ann tasks", "\"tasks\": expected"),
            ("ann tasks=1 tasks=2", "tasks twice"),
            ("ann tasks=-1", "expected a whole number"),
            ("ann tasks=", "expected a whole number"),
            ("ann tasks=1KiB", "expected a whole number"),
            ("ann blob-bytes=1GB", "KiB, MiB"),
            ("ann blob-bytes=99999999999TiB", "KiB, MiB"),
            ("ann tasks=1\n\nann topologies=1", "quotas:3: the owner ann is in line 1"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn only_what_grows_beyond_its_limit_is_refused() {
        let usage = |topologies, tasks, blob_bytes| Usage { topologies, tasks, blob_bytes };
        let limits = quota(Some(2), Some(10), None);
        let check = |before, after| limits.check(&before, &after).map_err(|exceeded| exceeded.counted);
        assert_eq!(check(usage(1, 5, 7), usage(2, 10, 1 << 50)), Ok(()), "exactly the limit");
        assert_eq!(check(usage(2, 5, 7), usage(3, 6, 7)), Err(Counted::Topologies));
        assert_eq!(check(usage(1, 5, 7), usage(1, 11, 7)), Err(Counted::Tasks));
        assert_eq!(
            check(usage(1, 20, 7), usage(1, 15, 7)),
            Ok(()),
            "a lowered quota does not keep it from shrinking"
        );
        assert_eq!(check(usage(1, 20, 7), usage(1, 20, 7)), Ok(()));
        let said = limits.check(&usage(2, 0, 0), &usage(3, 0, 0)).expect_err("too many").to_string();
        assert_eq!(said, "the quota is 2 topologies: 2 are in use, and with this request there would be 3");
    }
}
