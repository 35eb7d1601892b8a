use axum::http::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{Api, Content, Dialect, Operation, Routes, document, schema_of};
use stormkeeper_api_types::message::{Code, ErrorBody, KillRequest};

static OWN: Dialect = Dialect {
    name: "Own",
    description: "The own API.",
    prefix: "/api",
    id: "own",
    json: "application/json",
    error: schema_of::<ErrorBody>,
};

const API: Api<'static> =
    Api { title: "Test", description: "A test.", version: "1", parts: &[("topology", "Id of a topology.")] };

/// Parameters.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only described")]
struct Query {
    /// Maximum number.
    limit: Option<u32>,
    name: String,
    side: Option<Side>,
    #[serde(default)]
    turned: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Side {
    /// Where the heart is.
    Left,
    /// The other one.
    Right,
}

fn described(operation: Operation) -> serde_json::Value {
    document(&API, &[operation])
}

#[test]
fn operation_has_the_parameters_bodies_and_errors_of_its_description() {
    let operation = Operation::new(&OWN, Method::POST, "/api/topology/{topology}/kill", "Kills it")
        .query::<Query>()
        .may_take::<KillRequest>()
        .answers::<ErrorBody>()
        .may_fail(&[Code::UnknownTopology])
        .needs(Some("a token".to_owned()));
    let document = described(operation);
    let post = &document["paths"]["/api/topology/{topology}/kill"]["post"];
    assert_eq!(post["operationId"], "ownPostTopologyByTopologyKill");
    let expected = json!([
        {"name": "topology", "in": "path", "required": true, "description": "Id of a topology.",
         "schema": {"type": "string", "minLength": 1}},
        {"name": "limit", "in": "query", "required": false, "description": "Maximum number.",
         "schema": {"type": "integer", "format": "int64", "minimum": 0}},
        {"name": "name", "in": "query", "required": true, "schema": {"type": "string"}},
        {"name": "side", "in": "query", "required": false,
         "schema": {"type": "string", "enum": ["left", "right"], "description": "- `left`: Where the heart is.\n- `right`: The other one."}},
        {"name": "turned", "in": "query", "required": false, "schema": {"type": "boolean"}},
    ]);
    assert_eq!(post["parameters"], expected);
    assert_eq!(post["requestBody"]["required"], false);
    let schema = &post["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(*schema, json!({"$ref": "#/components/schemas/KillRequest"}));
    let kill = &document["components"]["schemas"]["KillRequest"];
    assert_eq!(kill["additionalProperties"], false, "an unknown field is rejected: {kill}");
    assert_eq!(post["responses"]["404"], json!({"$ref": "#/components/responses/OwnError404"}));
    let error = &document["components"]["responses"]["OwnError404"]["content"]["application/json"]["schema"];
    assert_eq!(*error, json!({"$ref": "#/components/schemas/ErrorBody"}));
    assert_eq!(document["components"]["schemas"]["ErrorBody"]["required"], json!(["code", "message"]));
    let text = post["description"].as_str().expect("a text");
    assert!(text.starts_with("Needs a token.") && text.contains("`unknown_topology`"), "{text}");
}

#[test]
fn operation_without_a_right_is_open() {
    let document = described(Operation::new(&OWN, Method::GET, "/live", "Probe"));
    assert_eq!(document["paths"]["/live"]["get"]["security"], json!([]));
    assert_eq!(document["security"], json!([{"token": []}, {}]));
    assert_eq!(document["paths"]["/live"]["get"]["responses"]["200"], json!({"description": "OK"}));
}

#[test]
#[should_panic(expected = "the part worker of /{worker} has no description")]
fn part_of_a_path_without_a_description_is_found() {
    described(Operation::new(&OWN, Method::GET, "/{worker}", "A worker"));
}

#[test]
fn nested_routes_are_described_with_their_prefix_and_aliases_are_not() {
    let routes = || {
        let page =
            Operation::new(&OWN, Method::GET, "/", "Page").answers_content(Content::Other(&["text/plain"]));
        Routes::<()>::new().serve(page, async || "page")
    };
    let (_router, operations) =
        Routes::new().nest("/api", routes()).nest_again("/old", routes()).into_parts();
    let paths: Vec<&str> = operations.iter().map(Operation::path).collect();
    assert_eq!(paths, ["/api"]);
}
