//! Credentials of a topology: what only its workers may read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use stormkeeper_model::{Timestamp, TopologyId};

/// `POST /api/stormkeeper/v1/topology/{id or name}/credentials`: set and remove credentials. Its `Debug`
/// form has no values.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsRequest {
    /// Values to set, by name; the others stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "super::unique::map")]
    pub set: BTreeMap<String, String>,
    /// Names to remove.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<String>,
    /// True to remove all credentials that are not set by this request.
    #[serde(default)]
    pub remove_others: bool,
}

impl fmt::Debug for CredentialsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsRequest")
            .field("set", &self.set.keys())
            .field("remove", &self.remove)
            .field("remove_others", &self.remove_others)
            .finish()
    }
}

/// `GET /api/stormkeeper/v1/topology/{id or name}/credentials`: the names of a topology's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialList {
    /// The topology.
    pub topology_id: TopologyId,
    /// The credentials, by name.
    pub credentials: Vec<CredentialSummary>,
}

/// A credential without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialSummary {
    /// Its name.
    pub name: String,
    /// Time of its last change, by the clock of the leader.
    #[serde(rename = "changedMs")]
    pub changed: Timestamp,
    /// Author of its last change, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_form_of_a_request_has_names_and_no_values() {
        let set = BTreeMap::from([("db.password".to_owned(), "s3cr3t".to_owned())]);
        let shown = format!("{:?}", CredentialsRequest { set, ..CredentialsRequest::default() });
        assert!(shown.contains("db.password") && !shown.contains("s3cr3t"), "{shown}");
    }
}
