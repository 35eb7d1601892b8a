//! The OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().expect("paths").iter();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").iter();
        methods.map(move |(method, operation)| (path, method, operation))
    })
}

#[test]
fn generated_document_of_a_nimbus() {
    let text = serde_json::to_string_pretty(&openapi_document()).expect("JSON");
    stormkeeper_runtime::test_support::assert_generated_file("docs/openapi.json", &format!("{text}\n"));
}

#[test]
fn ids_of_operations_are_unique_and_every_operation_says_what_it_is_and_who_may() {
    let document = openapi_document();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{method} {path}: {id} is the id of another operation");
        assert!(!operation["summary"].as_str().expect("a summary").is_empty(), "{method} {path}");
        // Probes, and signing in, are for everybody.
        let is_open = matches!(path.as_str(), "/live" | "/ready" | "/api/stormkeeper/v1/session");
        assert_eq!(operation.get("security").is_some(), is_open, "{method} {path}");
    }
    assert!(ids.len() > 100, "{}", ids.len());
    assert_eq!(
        document["paths"]["/api/v1/topology/{topology}/metrics"].get("post"),
        None,
        "it is an old path"
    );
}

#[test]
fn no_two_types_have_one_name() {
    let document = openapi_document();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    // The second of two types with one name has a number behind it.
    let numbered: Vec<&String> = schemas.keys().filter(|name| name.ends_with('2')).collect();
    assert_eq!(numbered, Vec::<&String>::new());
}

#[test]
fn parameters_of_the_own_api_have_the_types_that_are_read() {
    let document = openapi_document();
    let parameters = |path: &str| {
        let path = format!("/api/stormkeeper/v1/{path}");
        let all = document["paths"][&path]["get"]["parameters"].as_array().expect("parameters");
        let of_query = all.iter().filter(|parameter| parameter["in"] == "query");
        let of_query = of_query.map(|of| (of["name"].as_str().expect("a name").to_owned(), of.clone()));
        of_query.collect::<BTreeMap<String, Value>>()
    };
    let latest = parameters("metrics/topology/{topology}/latest");
    let page = json!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 5000});
    assert_eq!(latest["limit"]["schema"], page);
    assert_eq!(latest["task"]["schema"], json!({"type": "integer", "format": "int64", "minimum": 0}));
    assert_eq!(latest["window"]["schema"]["enum"].as_array().map(Vec::len), Some(8));
    assert!(latest["level"]["schema"]["enum"].as_array().expect("words").contains(&json!("netty")));
    assert!(latest.values().all(|of| of["required"] == false && of["description"].is_string()));
    assert!(!parameters("metrics/topology/{topology}/metas").contains_key("window"));
    let points = parameters("metrics/sync/points");
    assert_eq!(points.keys().collect::<Vec<_>>(), ["from", "id", "limit", "to", "window"]);
    assert_eq!(points["window"]["schema"]["enum"], json!(["M1", "M10", "H2", "D1"]));
    assert!(points.values().all(|of| of["required"] == true), "{points:?}");
    let metas = parameters("metrics/sync/metas");
    assert_eq!(metas["meta"]["required"], false);
    assert_eq!(metas["meta"]["schema"]["enum"].as_array().map(Vec::len), Some(8), "{metas:?}");
    assert_eq!(parameters("metrics/sync/log").len(), 5);
    assert_eq!(parameters("metrics/sync/track").len() + parameters("metrics/sync/history").len(), 5);
}

#[test]
fn rights_are_those_of_the_layer_that_checks_them() {
    let document = openapi_document();
    let right = |path: &str, method: &str| {
        let operation = &document["paths"][path][method];
        let text = operation["description"].as_str().expect("a text").split(". ").next().map(str::to_owned);
        text.expect("a sentence")
    };
    assert_eq!(right("/live", "get"), "Anyone may ask");
    assert_eq!(right("/api/stormkeeper/v1/recovery", "post"), "Needs a token of the role admin");
    assert_eq!(right("/api/stormkeeper/v1/metrics/sync/log", "get"), "Needs the cluster secret");
    assert_eq!(right("/v1/jobs", "get"), "Needs a token of the role reader");
    let change = "Needs a token of the role operator, for the owner of the topology if it is limited to one";
    assert_eq!(right("/api/v1/topology/{topology}/kill/{wait}", "post"), change);
}

#[test]
fn every_reference_leads_to_a_part_of_the_document() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = openapi_document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 100, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn document_is_served_and_each_of_its_paths_is_a_route() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let router = routes(leader.handle().clone());
    let (status, served) = ask(&router, Method::GET, "/api/openapi.json", "").await;
    assert_eq!((status, &served), (StatusCode::OK, &openapi_document()));
    for (path, method, _) in operations(&served) {
        if method != "get" || path.contains("/sync/") {
            continue;
        }
        let path = path.replace(['{', '}'], "");
        let (_, answer) = ask(&router, Method::GET, &path, "").await;
        assert!(answer["code"] != "no_such_route" && answer["code"] != "wrong_method", "{path}: {answer}");
    }
}
