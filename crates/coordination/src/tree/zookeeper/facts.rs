//! Access control lists and times in the answers of a server.

use zookeeper_client as zk;

use crate::tree::{AclFact, NodeFacts};

const RIGHTS: [(zk::Permission, &str); 5] = [
    (zk::Permission::READ, "read"),
    (zk::Permission::WRITE, "write"),
    (zk::Permission::CREATE, "create"),
    (zk::Permission::DELETE, "delete"),
    (zk::Permission::ADMIN, "admin"),
];

/// Returns the facts in the answer to a request for an access control list.
pub(super) fn of(acl: &[zk::Acl], stat: &zk::Stat) -> NodeFacts {
    let entry = |acl: &zk::Acl| {
        let rights = RIGHTS.iter().filter(|(right, _)| acl.permission().has(*right)).map(|(_, word)| *word);
        AclFact::new(acl.scheme(), acl.id(), rights.collect())
    };
    NodeFacts {
        created_ms: stat.ctime,
        modified_ms: stat.mtime,
        children_changed: stat.pzxid,
        acl_version: stat.aversion,
        acl: acl.iter().map(entry).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_words_in_the_order_of_zookeeper() {
        let stat = zk::Stat {
            czxid: 1,
            mzxid: 2,
            pzxid: 3,
            ctime: 4,
            mtime: 5,
            version: 6,
            cversion: 7,
            aversion: 8,
            ephemeral_owner: 0,
            data_length: 9,
            num_children: 10,
        };
        let acl = [
            zk::Acl::new(zk::Permission::ALL, zk::AuthId::new("digest", "nimbus:hash")),
            zk::Acl::new(zk::Permission::READ | zk::Permission::DELETE, zk::AuthId::anyone()),
        ];
        let facts = of(&acl, &stat);
        let shown: Vec<_> = facts.acl.iter().map(|one| (one.id.as_str(), one.rights.join(" "))).collect();
        assert_eq!(
            shown,
            [("nimbus", "read write create delete admin".to_owned()), ("anyone", "read delete".to_owned()),]
        );
        let times = (facts.created_ms, facts.modified_ms, facts.children_changed, facts.acl_version);
        assert_eq!(times, (4, 5, 3, 8));
    }
}
