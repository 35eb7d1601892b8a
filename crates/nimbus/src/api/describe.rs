//! Descriptions that all routes of a nimbus share, and its OpenAPI document.

use std::sync::LazyLock;

use axum::http::Method;
use bytes::Bytes;
use serde_json::Value;

use super::access;
use stormkeeper_api_types::{
    message::{Code, ErrorBody},
    routes::PREFIX,
};
use stormkeeper_serving::openapi::{self, Content, Dialect, Operation, schema_of};

/// Path of the document.
pub(super) const PATH: &str = "/api/openapi.json";

/// The own API.
static OWN: Dialect = Dialect {
    name: "Stormkeeper",
    description: "The project's own API, of its commands and daemons, with probes and the page for \
                  Prometheus.",
    prefix: PREFIX,
    id: "",
    json: "application/json",
    error: schema_of::<ErrorBody>,
};

/// Variable parts of paths.
const PARTS: &[(&str, &str)] = &[
    ("attempt", "Number of an attempt: 0."),
    ("checkpoint", "Number of a checkpoint; there is none."),
    ("component", "Id of a component."),
    ("file", "Name of a log file, such as `worker.log`."),
    ("host", "Name or address of a host."),
    ("job", "Id of a topology in Flink's form: 32 hexadecimal digits."),
    ("key", "Key of a blob: the SHA-256 of its bytes in 64 lower-case hexadecimal digits."),
    ("owner", "User who submitted topologies."),
    ("port", "Port of a slot."),
    ("subtask", "Number of a task among those of its component, from 0."),
    ("supervisor", "Id of a supervisor."),
    ("topology", "Id or name of a topology."),
    ("vertex", "Id of a component in Flink's form: 32 hexadecimal digits."),
    ("wait", "Seconds for which the spouts are stopped before."),
    ("worker", "`host:port` of a worker."),
];

const DESCRIPTION: &str = "The APIs of a Stormkeeper nimbus. Every nimbus of a cluster answers all of them: \
     reads from its own view, and writes by way of the leader.\n\n\
     Within a version, which is a part of each path, fields, parameters, codes and paths are added and none \
     is removed or changes its meaning: clients ignore what they do not know. Every error has `code`, \
     `message` and often `hint`, beside the fields that an API of another project has for errors; programs \
     go by `code`.";

pub(super) fn get(path: &str, summary: &'static str) -> Operation {
    Operation::new(&OWN, Method::GET, path, summary)
}

pub(super) fn post(path: &str, summary: &'static str) -> Operation {
    Operation::new(&OWN, Method::POST, path, summary)
}

pub(super) fn put(path: &str, summary: &'static str) -> Operation {
    Operation::new(&OWN, Method::PUT, path, summary)
}

pub(super) fn delete(path: &str, summary: &'static str) -> Operation {
    Operation::new(&OWN, Method::DELETE, path, summary)
}

/// Errors of a change of a topology.
pub(super) const OF_CHANGE: [Code; 5] = [
    Code::UnknownTopology,
    Code::IllegalTransition,
    Code::Conflict,
    Code::InvalidTopology,
    Code::QuotaExceeded,
];

/// Errors of an update.
pub(super) const OF_UPDATE: [Code; 8] = [
    Code::UnknownTopology,
    Code::IllegalTransition,
    Code::InvalidTopology,
    Code::BlobMissing,
    Code::NotReplicated,
    Code::QuotaExceeded,
    Code::Conflict,
    Code::InsufficientStorage,
];

/// Errors of a submit.
pub(super) const OF_SUBMIT: [Code; 7] = [
    Code::InvalidTopology,
    Code::NameInUse,
    Code::BlobMissing,
    Code::NotReplicated,
    Code::QuotaExceeded,
    Code::Conflict,
    Code::InsufficientStorage,
];

/// Errors of a read of the metric store.
pub(super) const OF_METRICS: [Code; 2] = [Code::UnknownTopology, Code::NoMetricStore];

/// Description of the document itself.
pub(super) fn document_operation() -> Operation {
    get(PATH, "This document")
        .answers_content(Content::Json(|_| schemars::json_schema!({ "type": "object" })))
}

/// Returns the document for `operations`, with the rights that the layer of access requires for them.
pub(super) fn document(operations: Vec<Operation>) -> Value {
    let with_right = |operation: Operation| {
        let right = access::right_of(operation.method(), operation.path());
        operation.needs(right)
    };
    let operations: Vec<Operation> = operations.into_iter().map(with_right).collect();
    let version = env!("CARGO_PKG_VERSION");
    let api = openapi::Api { title: "Stormkeeper", description: DESCRIPTION, version, parts: PARTS };
    openapi::document(&api, &operations)
}

/// Returns the document of all routes as text, which is made once.
pub(super) fn document_text() -> Bytes {
    static TEXT: LazyLock<Bytes> =
        LazyLock::new(|| document(super::described().into_parts().1).to_string().into());
    TEXT.clone()
}
