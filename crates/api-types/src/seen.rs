//! Changes that a client has written or seen, which its reads contain: the header
//! `x-stormkeeper-zxid`.
//!
//! A transaction's number means something in one tree only. So it is sent with the id of the tree,
//! and a nimbus of another cluster, or of the tree that was recovered, ignores it.

use std::{fmt, str::FromStr};

use reqwest::header::HeaderMap;

use stormkeeper_model::{TreeId, Zxid};

/// Header with changes, each `TREE:ZXID`, separated by commas. In a response: the view from which the
/// nimbus answers contains every change up to this one; the response to a write contains the write.
/// In a read: the nimbus waits until its view contains the change in its own tree, at most two
/// seconds.
pub const ZXID: &str = "x-stormkeeper-zxid";

/// Maximum number of trees in a header. The change in the tree that was recorded first is forgotten.
pub const TREES_MAX: usize = 8;

/// A change of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The tree.
    pub tree: TreeId,
    /// Transaction of the change.
    pub zxid: Zxid,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tree, self.zxid)
    }
}

/// Error of a text that is not `TREE:ZXID`.
#[derive(Debug, thiserror::Error)]
#[error("expected TREE:ZXID")]
pub struct InvalidChange;

impl FromStr for Change {
    type Err = InvalidChange;

    fn from_str(text: &str) -> Result<Self, InvalidChange> {
        let (tree, zxid) = text.trim().rsplit_once(':').ok_or(InvalidChange)?;
        let zxid = zxid.parse().map(Zxid).map_err(|_| InvalidChange)?;
        Ok(Self { tree: TreeId(tree.to_owned()), zxid })
    }
}

/// The latest change of each tree that a client knows, at most [`TREES_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen(Vec<Change>);

impl Seen {
    /// Returns the changes that a request or response names; what cannot be read is ignored.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        let texts = headers.get_all(ZXID).iter().filter_map(|value| value.to_str().ok());
        let changes = texts.flat_map(|text| text.split(',')).filter_map(|text| text.parse().ok());
        // A longer list was not sent by a client of this project.
        changes.take(TREES_MAX).collect()
    }

    /// Returns the latest change of `tree`.
    pub fn of(&self, tree: &TreeId) -> Option<Zxid> {
        self.0.iter().find(|change| change.tree == *tree).map(|change| change.zxid)
    }

    /// Records a change, unless a later one of its tree is known.
    pub fn record(&mut self, change: Change) {
        if let Some(known) = self.0.iter_mut().find(|known| known.tree == change.tree) {
            known.zxid = known.zxid.max(change.zxid);
            return;
        }
        if self.0.len() == TREES_MAX {
            self.0.remove(0);
        }
        self.0.push(change);
    }

    /// Returns the value of the header; `None` if nothing is known.
    pub fn header(&self) -> Option<String> {
        let texts: Vec<String> = self.0.iter().map(Change::to_string).collect();
        (!texts.is_empty()).then(|| texts.join(","))
    }

    /// The changes, the tree that was recorded first at the front.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.0.iter()
    }
}

impl FromIterator<Change> for Seen {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        let mut seen = Self::default();
        changes.into_iter().for_each(|change| seen.record(change));
        seen
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn change(tree: &str, zxid: i64) -> Change {
        Change { tree: TreeId(tree.to_owned()), zxid: Zxid(zxid) }
    }

    #[test]
    fn the_latest_change_of_each_tree_is_kept() {
        let seen: Seen =
            [change("a", 5), change("b", 900), change("a", 7), change("a", 6)].into_iter().collect();
        assert_eq!(seen.of(&TreeId("a".to_owned())), Some(Zxid(7)));
        assert_eq!(seen.header().as_deref(), Some("a:7,b:900"));
        assert_eq!(seen.of(&TreeId("c".to_owned())), None);
        assert_eq!(Seen::default().header(), None);
    }

    #[test]
    fn the_number_of_trees_is_bounded() {
        let trees: Seen = (0..20).map(|n| change(&format!("t{n}"), n)).collect();
        assert_eq!(trees.iter().count(), TREES_MAX);
        assert_eq!(trees.of(&TreeId("t19".to_owned())), Some(Zxid(19)));
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_bad_parts_are_ignored() {
        let seen: Seen = [change("a", 5), change("b", i64::MAX)].into_iter().collect();
        let mut headers = HeaderMap::new();
        headers.append(ZXID, HeaderValue::from_str(&seen.header().expect("some")).expect("text"));
        assert_eq!(Seen::of_headers(&headers), seen);
        for bad in ["", "x", "a:", "a:x", "a:99999999999999999999", "17", ",,:,"] {
            let mut headers = HeaderMap::new();
            headers.append(ZXID, HeaderValue::from_str(bad).expect("text"));
            assert_eq!(Seen::of_headers(&headers), Seen::default(), "{bad:?}");
        }
    }
}
