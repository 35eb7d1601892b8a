//! Facts of a znode that only people look at.

/// Times and access control list of a znode, as a server of ZooKeeper knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Time of the creation by the server's clock, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time of the last write of the data, in milliseconds since 1970.
    pub modified_ms: i64,
    /// Transaction that last created or deleted a child.
    pub children_changed: i64,
    /// Number of changes of the access control list.
    pub acl_version: i32,
    /// Access control list.
    pub acl: Vec<AclFact>,
}

/// Entry of an access control list, as it is shown: without the digest of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclFact {
    /// Scheme, such as `world`, `digest`, `sasl` or `x509`.
    pub scheme: String,
    /// Whom the entry is about.
    pub id: String,
    /// Rights, in words.
    pub rights: Vec<&'static str>,
}

impl AclFact {
    /// Returns an entry. Of `user:digest` only the user is kept: the digest is that of a password, which
    /// it helps to guess.
    pub fn new(scheme: &str, id: &str, rights: Vec<&'static str>) -> Self {
        let id = match scheme {
            "digest" | "super" => id.split(':').next().unwrap_or_default(),
            _ => id,
        };
        Self { scheme: scheme.to_owned(), id: id.to_owned(), rights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_password_is_not_kept_and_other_ids_are() {
        let id = |scheme, id| AclFact::new(scheme, id, Vec::new()).id;
        assert_eq!(id("digest", "nimbus:ytlf5BcSLgbyVIrEHJo4SJBay0c="), "nimbus");
        assert_eq!(id("super", "root:x"), "root");
        assert_eq!(id("world", "anyone"), "anyone");
        assert_eq!(id("ip", "::1"), "::1");
        assert_eq!(id("x509", "CN=a:b"), "CN=a:b");
    }
}
