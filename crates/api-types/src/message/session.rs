//! Signing in with a browser.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Treatment of requests without a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// They are accepted, and proofs are not looked at.
    Open,
    /// They are accepted, and proofs are checked.
    Optional,
    /// They are refused.
    Required,
}

/// Role of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// It reads.
    Reader,
    /// It submits and changes topologies, and drains hosts.
    Operator,
    /// It also recovers a tree, and reads packages.
    Admin,
}

/// `GET /api/stormkeeper/v1/session`: who the sender is, and what this nimbus demands and offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebSession {
    /// What happens to requests without a proof.
    pub access: AccessMode,
    /// False if changes by people are switched off on this nimbus.
    pub actions: bool,
    /// Name of the sender's token; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Role of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// Owner to whose topologies the token is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// `POST /api/stormkeeper/v1/session`: sign in. Its `Debug` form does not have the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignInRequest {
    /// The token.
    pub token: String,
}

impl fmt::Debug for SignInRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignInRequest { .. }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_form_of_a_sign_in_does_not_have_the_token() {
        let shown = format!("{:?}", SignInRequest { token: "skt_secret".to_owned() });
        assert!(!shown.contains("secret"), "{shown}");
    }
}
