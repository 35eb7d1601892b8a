//! Paths of the tree, valid by construction.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

/// An absolute path below the tree's root: `/`, `/a`, `/a/b`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(Arc<str>);

/// Error of a text that is not a path of the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{text:?} is not a path of the tree: {reason}")]
pub struct InvalidPath {
    text: String,
    reason: Cow<'static, str>,
}

impl TreePath {
    /// Returns the path `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path of the child called `name`.
    ///
    /// # Errors
    /// [`InvalidPath`] if `name` is not exactly one valid part of a path.
    pub fn child(&self, name: &str) -> Result<Self, InvalidPath> {
        if name.contains('/') {
            return Err(InvalidPath {
                text: name.to_owned(),
                reason: Cow::Borrowed("a name must not contain a slash"),
            });
        }
        match self.is_root() {
            true => format!("/{name}").parse(),
            false => format!("{self}/{name}").parse(),
        }
    }

    /// Returns the path one level up; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some(Self::root()),
            Some(end) => Some(Self(self.0[..end].into())),
        }
    }

    /// Returns the last part; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the parts of the path, from the top.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// True if this is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// True if this path is `ancestor` or below it.
    pub fn is_at_or_below(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self.0.strip_prefix(&*ancestor.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Returns `/a`, `/a/b`, … down to this path; an empty list for the root.
    pub fn ancestors_and_self(&self) -> Vec<Self> {
        let mut path = String::new();
        self.parts()
            .map(|part| {
                path.push('/');
                path.push_str(part);
                Self(path.as_str().into())
            })
            .collect()
    }
}

impl TryFrom<String> for TreePath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> Self {
        path.as_str().to_owned()
    }
}

impl FromStr for TreePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let fail = |reason| Err(InvalidPath { text: text.to_owned(), reason: Cow::Borrowed(reason) });
        if !text.starts_with('/') {
            return fail("it does not begin with a slash");
        }
        if text == "/" {
            return Ok(Self::root());
        }
        for part in text[1..].split('/') {
            if part.is_empty() {
                return fail("a part is empty");
            }
            if part == "." || part == ".." {
                return fail("a part is relative");
            }
            if part.chars().any(|c| c.is_control()) {
                return fail("a part contains a control character");
            }
        }
        if text == "/zookeeper" || text.starts_with("/zookeeper/") {
            return fail("/zookeeper is reserved for the server");
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        text.parse().expect("valid path")
    }

    #[test]
    fn invalid_paths_are_rejected() {
        for bad in ["", "a", "/a/", "//", "/a//b", "/a/../b", "/.", "/a\n", "/zookeeper/quota"] {
            assert!(bad.parse::<TreePath>().is_err(), "{bad:?} was accepted");
        }
        assert!(path("/a").child("b/c").is_err());
    }

    #[test]
    fn parents_and_children() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert_eq!(TreePath::root().child("a"), Ok(path("/a")));
        assert_eq!(path("/a/b").name(), "b");
        assert_eq!(path("/a/b").ancestors_and_self(), [path("/a"), path("/a/b")]);
        assert!(path("/a/b").is_at_or_below(&path("/a")));
        assert!(!path("/ab").is_at_or_below(&path("/a")));
        assert!(path("/ab").is_at_or_below(&TreePath::root()));
    }
}
