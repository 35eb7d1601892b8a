//! Descriptions that the routes of an agent share, and its OpenAPI document.

use std::sync::LazyLock;

use axum::http::Method;
use bytes::Bytes;
use serde_json::Value;

use stormkeeper_api_types::{
    message::{Code, ErrorBody},
    routes::PREFIX,
};
use stormkeeper_serving::openapi::{self, Content, Dialect, Operation, schema_of};

/// Path of the document.
pub(super) const PATH: &str = "/api/openapi.json";

static AGENT: Dialect = Dialect {
    name: "Agent",
    description: "Logs of the workers of a supervisor, and metrics of its host.",
    prefix: PREFIX,
    id: "agent",
    json: "application/json",
    error: schema_of::<ErrorBody>,
};

/// Variable parts of paths.
const PARTS: &[(&str, &str)] = &[
    ("file", "Name of a log file, such as `worker.log`."),
    ("port", "Port of a slot."),
    ("topology", "Id of a topology, also of one that was removed."),
];

pub(super) fn get(path: &str, summary: &'static str) -> Operation {
    let right = "a token of the role reader, or the cluster secret".to_owned();
    Operation::new(&AGENT, Method::GET, path, summary).needs((path != "/live").then_some(right))
}

/// Describes a route of logs.
pub(super) fn logs(path: &str, summary: &'static str) -> Operation {
    get(path, summary).may_fail(&[Code::UnknownTopology, Code::UnknownLog])
}

/// Describes the route of live numbers, which ends when the caller goes away.
pub(super) fn live_numbers(path: &str, summary: &'static str) -> Operation {
    get(path, summary).may_fail(&[Code::UnknownTopology, Code::NotReady])
}

/// Returns the document for `operations`.
pub(super) fn document(mut operations: Vec<Operation>) -> Value {
    let object = Content::Json(|_| schemars::json_schema!({ "type": "object" }));
    operations.push(get(PATH, "This document").answers_content(object));
    let description = "The API of the agent of a Stormkeeper supervisor. Versions and errors are as in the API of a \
                       nimbus.";
    let version = env!("CARGO_PKG_VERSION");
    let api = openapi::Api { title: "Stormkeeper agent", description, version, parts: PARTS };
    openapi::document(&api, &operations)
}

/// Returns the document of all routes as text, which is made once.
pub(super) fn document_text() -> Bytes {
    static TEXT: LazyLock<Bytes> =
        LazyLock::new(|| document(super::described().into_parts().1).to_string().into());
    TEXT.clone()
}
