//! Description of one route.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::error::status;
use stormkeeper_api_types::message::Code;

/// Function that makes the schema of a body.
pub type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// Returns the schema of `T`.
pub fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Body of a request or a response.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// No body.
    Nothing,
    /// JSON.
    Json(MakeSchema),
    /// Bytes or text of one of these media types.
    Other(&'static [&'static str]),
    /// Parts of a form, of which each has a name.
    Parts(MakeSchema),
}

/// Properties that all operations of one API share.
#[derive(Debug)]
pub struct Dialect {
    /// Name of the API.
    pub name: &'static str,
    /// Description of the API, as Markdown.
    pub description: &'static str,
    /// Begin of its paths, which the ids of its operations leave out.
    pub prefix: &'static str,
    /// Begin of the ids of its operations.
    pub id: &'static str,
    /// Media type of its JSON.
    pub json: &'static str,
    /// Schema of its errors.
    pub error: MakeSchema,
}

/// Description of one route.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(super) dialect: &'static Dialect,
    method: Method,
    path: String,
    pub(super) summary: &'static str,
    pub(super) query: Option<MakeSchema>,
    pub(super) request: Content,
    pub(super) needs_request: bool,
    pub(super) success: StatusCode,
    pub(super) answer: Content,
    /// True if a request may ask for a range of the bytes of the answer.
    pub(super) has_ranges: bool,
    pub(super) errors: BTreeMap<u16, BTreeSet<&'static str>>,
    /// Role or sender that the operation needs; `None` if anyone may ask.
    pub(super) right: Option<String>,
}

/// Errors of every operation: of the checks before it, and of a nimbus that cannot answer now.
const ALWAYS: [Code; 7] = [
    Code::InvalidRequest,
    Code::Unauthenticated,
    Code::TooManyRequests,
    Code::Forbidden,
    Code::ForeignRequest,
    Code::NotReady,
    Code::Internal,
];

/// Errors of every operation that changes something.
const OF_WRITES: [Code; 8] = [
    Code::SwitchedOff,
    Code::WrongContentType,
    Code::TooLarge,
    Code::NoLeader,
    Code::TreeUnavailable,
    Code::AnotherTree,
    Code::OutcomeUnknown,
    Code::UnreadableRecord,
];

impl Operation {
    /// Describes a route.
    pub fn new(dialect: &'static Dialect, method: Method, path: &str, summary: &'static str) -> Self {
        let is_write = method != Method::GET;
        let operation = Self {
            dialect,
            method,
            path: path.to_owned(),
            summary,
            query: None,
            request: Content::Nothing,
            needs_request: false,
            success: StatusCode::OK,
            answer: Content::Nothing,
            has_ranges: false,
            errors: BTreeMap::new(),
            right: None,
        };
        let operation = operation.may_fail(&ALWAYS);
        if is_write { operation.may_fail(&OF_WRITES) } else { operation }
    }

    /// Sets the query: each field of `T` is a parameter.
    #[must_use]
    pub fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema_of::<T>), ..self }
    }

    /// Sets the body of the request to JSON.
    #[must_use]
    pub fn takes<T: JsonSchema>(self) -> Self {
        self.takes_content(Content::Json(schema_of::<T>))
    }

    /// Sets the body of the request to JSON that may be absent.
    #[must_use]
    pub fn may_take<T: JsonSchema>(self) -> Self {
        Self { needs_request: false, ..self.takes::<T>() }
    }

    /// Sets the body of the request.
    #[must_use]
    pub fn takes_content(self, request: Content) -> Self {
        Self { request, needs_request: true, ..self }
    }

    /// Sets the body of the response to JSON.
    #[must_use]
    pub fn answers<T: JsonSchema>(self) -> Self {
        self.answers_content(Content::Json(schema_of::<T>))
    }

    /// Sets the body of the response.
    #[must_use]
    pub fn answers_content(self, answer: Content) -> Self {
        Self { answer, ..self }
    }

    /// Allows requests for a range of the bytes of the answer.
    #[must_use]
    pub fn in_ranges(self) -> Self {
        let with_range = Self { has_ranges: true, ..self };
        with_range.may_fail_with(StatusCode::RANGE_NOT_SATISFIABLE, Code::InvalidRequest.as_str())
    }

    /// Sets the status of a success, which is 200 otherwise.
    #[must_use]
    pub fn succeeds_with(self, success: StatusCode) -> Self {
        Self { success, ..self }
    }

    /// Adds errors.
    #[must_use]
    pub fn may_fail(mut self, codes: &[Code]) -> Self {
        for code in codes {
            self.errors.entry(status(*code).as_u16()).or_default().insert(code.as_str());
        }
        self
    }

    /// Adds an error with its status and its code.
    #[must_use]
    pub fn may_fail_with(mut self, status: StatusCode, code: &'static str) -> Self {
        self.errors.entry(status.as_u16()).or_default().insert(code);
        self
    }

    /// Sets who may ask for the operation; `None` if anyone may.
    #[must_use]
    pub fn needs(self, right: Option<String>) -> Self {
        Self { right, ..self }
    }

    /// Returns the same route below `prefix`.
    #[must_use]
    pub fn below(self, prefix: &str) -> Self {
        let rest = if self.path == "/" { "" } else { &self.path };
        Self { path: format!("{prefix}{rest}"), ..self }
    }

    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path, with the names of its variable parts in braces.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the variable parts of the path.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Returns the id, from which generators of clients make the name of a function.
    pub(super) fn id(&self) -> String {
        let Dialect { prefix, id, .. } = self.dialect;
        let rest = self.path.strip_prefix(prefix).unwrap_or(&self.path);
        let method = self.method.as_str().to_ascii_lowercase();
        let mut text = if id.is_empty() { method } else { format!("{id}{}", capitalized(&method)) };
        for part in rest.split('/').filter(|part| !part.is_empty()) {
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) => text = format!("{text}By{}", capitalized(name)),
                None => text.extend(part.split(['-', '.', '_']).map(capitalized)),
            }
        }
        text
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}", first.to_ascii_uppercase(), chars.as_str()))
}
