//! Znodes, for people who look into the tree.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use stormkeeper_model::Timestamp;

/// `GET /api/stormkeeper/v1/tree?path=…`: a znode, explained, with the names of its children.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TreeNode {
    /// Path below the root of the cluster's tree.
    pub path: String,
    /// Path of the root of the cluster's tree at ZooKeeper (`storm.zookeeper.root`).
    pub root: String,
    /// Meaning of the znode; absent for the root of the tree, and for a znode that is not of the layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<TreeExplanation>,
    /// Bytes of the data.
    pub bytes: usize,
    /// Data, without secrets; absent if the znode has none, if it is not JSON, and if it is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Begin of the data as text, if it is not JSON or too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Reason why data is not shown, or not as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// Number of writes of the data.
    pub version: i32,
    /// Transaction that created the znode, in hexadecimal digits.
    pub created_zxid: String,
    /// Transaction that last wrote the data, in hexadecimal digits.
    pub modified_zxid: String,
    /// Session that owns the znode, in hexadecimal digits; absent if it is not ephemeral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Number of children.
    pub children_total: usize,
    /// Names of children, in ascending order: a page of them.
    pub children: Vec<String>,
    /// Name after which the next page begins, as `after=`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Times and access control list; absent if the tree is not at ZooKeeper, as in local mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<TreeFacts>,
}

/// Row of the layout about a znode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TreeExplanation {
    /// Path with its variable parts in braces.
    pub layout: String,
    /// True if the znode is a parent of those that the row is about.
    pub is_parent: bool,
    /// Create mode: P persistent, E ephemeral, S sequential.
    pub kind: String,
    /// Content.
    pub holds: String,
    /// Writer.
    pub written_by: String,
    /// Watchers.
    pub watched_by: String,
}

/// Times and access control list of a znode, as a server knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TreeFacts {
    /// Time of the creation, by the server's clock.
    #[serde(rename = "createdMs")]
    pub created: Timestamp,
    /// Time of the last write, by the server's clock.
    #[serde(rename = "modifiedMs")]
    pub modified: Timestamp,
    /// Transaction that last created or deleted a child, in hexadecimal digits.
    pub children_zxid: String,
    /// Number of changes of the access control list.
    pub acl_version: i32,
    /// Access control list.
    pub acl: Vec<TreeAcl>,
}

/// Entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TreeAcl {
    /// Scheme, such as `world`, `digest` or `sasl`.
    pub scheme: String,
    /// Whom it is about; without the digest of a password.
    pub id: String,
    /// Rights: `read`, `write`, `create`, `delete`, `admin`.
    pub rights: Vec<String>,
}
