//! Errors as Storm's clients read them.

use schemars::JsonSchema;
use serde::Serialize;

/// Body of every error: Storm's two fields, and those of the own API beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "StormError")]
pub struct Failure<Code> {
    error: String,
    #[serde(rename = "errorMessage")]
    error_message: String,
    code: Code,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl<Code> Failure<Code> {
    /// Returns the body of an error with the HTTP status `status`, as `404 Not Found`.
    pub fn new(status: String, code: Code, message: String, hint: Option<String>) -> Self {
        let error_message = match &hint {
            Some(hint) => format!("{message} ({hint})"),
            None => message.clone(),
        };
        Self { error: status, error_message, code, message, hint }
    }
}
