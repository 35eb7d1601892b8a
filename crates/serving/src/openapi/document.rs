//! OpenAPI 3.1 document of an API.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use schemars::{
    Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use super::{
    operation::{Content, Dialect, MakeSchema, Operation},
    plain::simplify,
};

/// Parts of a document besides its operations.
#[derive(Debug, Clone, Copy)]
pub struct Api<'a> {
    /// Title.
    pub title: &'a str,
    /// Description, as Markdown.
    pub description: &'a str,
    /// Version of the program.
    pub version: &'a str,
    /// Descriptions of the variable parts of paths, by name.
    pub parts: &'a [(&'a str, &'a str)],
}

/// Returns the OpenAPI document.
///
/// # Panics
/// If two types have one name with different schemas, or a part of a path has no description. The
/// operations of a program are fixed, so a test finds that.
pub fn document(api: &Api<'_>, operations: &[Operation]) -> Value {
    let mut schemas = Schemas::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut dialects: Vec<&Dialect> = Vec::new();
    for operation in operations {
        let method = operation.method().as_str().to_ascii_lowercase();
        paths.entry(operation.path()).or_default().insert(method, described(api, operation, &mut schemas));
        if !dialects.iter().any(|known| known.name == operation.dialect.name) {
            dialects.push(operation.dialect);
        }
    }
    let responses = error_responses(operations, &mut schemas);
    let tags: Vec<Value> =
        dialects.iter().map(|of| json!({ "name": of.name, "description": of.description })).collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": api.title,
            "version": api.version,
            "description": api.description,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": schemas.into_components(),
            "responses": responses,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Token of a person or a program. A cluster without tokens needs none.",
                },
            },
        },
    });
    simplify(&mut document);
    document
}

/// Generators of schemas, of responses and of requests: a field that may be absent in a request may always be
/// there in a response.
struct Schemas {
    responses: SchemaGenerator,
    requests: SchemaGenerator,
    parameters: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let generator = |contract: Contract, inline: bool| {
            let settings = SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
                settings.inline_subschemas = inline;
                settings.contract = contract;
            });
            settings.into_generator()
        };
        Self {
            responses: generator(Contract::Serialize, false),
            requests: generator(Contract::Deserialize, false),
            parameters: generator(Contract::Deserialize, true),
        }
    }

    /// Returns the schemas with names, by name.
    fn into_components(mut self) -> BTreeMap<String, Value> {
        let mut all: BTreeMap<String, Value> = self.responses.take_definitions(true).into_iter().collect();
        for (name, schema) in self.requests.take_definitions(true) {
            let known = all.entry(name.clone()).or_insert_with(|| schema.clone());
            assert!(*known == schema, "two schemas have the name {name}: {known} and {schema}");
        }
        all
    }
}

fn described(api: &Api<'_>, operation: &Operation, schemas: &mut Schemas) -> Value {
    let right = match &operation.right {
        Some(right) => format!("Needs {right}."),
        None => "Anyone may ask.".to_owned(),
    };
    let codes: BTreeSet<&str> = operation.errors.values().flatten().copied().collect();
    let codes: Vec<String> = codes.into_iter().map(|code| format!("`{code}`")).collect();
    let mut described = json!({
        "operationId": operation.id(),
        "tags": [operation.dialect.name],
        "summary": operation.summary,
        "description": format!("{right} Codes of errors: {}.", codes.join(", ")),
        "parameters": parameters(api, operation, schemas),
        "responses": responses(operation, schemas),
    });
    if operation.right.is_none() {
        described["security"] = json!([]);
    }
    if let Some(body) = content(operation.dialect, operation.request, &mut schemas.requests) {
        described["requestBody"] = json!({ "required": operation.needs_request, "content": body });
    }
    described
}

fn parameters(api: &Api<'_>, operation: &Operation, schemas: &mut Schemas) -> Vec<Value> {
    let part = |name: &str| {
        let text = api.parts.iter().find(|(of, _)| *of == name).map(|(_, text)| *text);
        let text =
            text.unwrap_or_else(|| panic!("the part {name} of {} has no description", operation.path()));
        let schema = json!({ "type": "string", "minLength": 1 });
        json!({ "name": name, "in": "path", "required": true, "description": text, "schema": schema })
    };
    let mut all: Vec<Value> = operation.parts().map(part).collect();
    if let Some(make) = operation.query {
        all.extend(query(&make(&mut schemas.parameters)));
    }
    if operation.has_ranges {
        all.push(json!({
            "name": "Range",
            "in": "header",
            "required": false,
            "description": "One range of bytes, such as `bytes=0-1023` or `bytes=-1024`; several are ignored.",
            "schema": { "type": "string" },
        }));
    }
    all
}

/// Returns one parameter for each property of a query.
fn query(schema: &Schema) -> Vec<Value> {
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let required = schema.get("required").and_then(Value::as_array);
    let parameter = |(name, schema): (&String, &Value)| {
        let mut fields = schema.as_object().cloned().unwrap_or_default();
        let description = fields.remove("description");
        // A default is in the description.
        fields.remove("default");
        let schema = without_null(fields);
        let is_required = required.is_some_and(|names| names.iter().any(|of| of == name));
        let mut parameter = json!({ "name": name, "in": "query", "required": is_required, "schema": schema });
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    };
    properties.iter().map(parameter).collect()
}

/// Returns a schema without null: an absent parameter is not null.
fn without_null(mut schema: Map<String, Value>) -> Map<String, Value> {
    for name in ["type", "enum"] {
        if let Some(Value::Array(values)) = schema.get_mut(name) {
            values.retain(|value| *value != Value::Null && value != "null");
        }
    }
    if let Some(Value::Array(types)) = schema.get("type")
        && let [one] = &types[..]
    {
        let one = one.clone();
        schema.insert("type".to_owned(), one);
    }
    let Some(Value::Array(choices)) = schema.remove("anyOf") else { return schema };
    let mut choices: Vec<Value> = choices.into_iter().filter(|one| one["type"] != "null").collect();
    match (choices.len(), choices.pop()) {
        (1, Some(Value::Object(only))) => schema.extend(only),
        (_, last) => {
            choices.extend(last);
            schema.insert("anyOf".to_owned(), choices.into());
        }
    }
    schema
}

fn responses(operation: &Operation, schemas: &mut Schemas) -> BTreeMap<String, Value> {
    let success = operation.success;
    let mut response = json!({ "description": success.canonical_reason().unwrap_or_default() });
    if let Some(body) = content(operation.dialect, operation.answer, &mut schemas.responses) {
        response["content"] = body;
    }
    let mut range = response.clone();
    range["description"] = StatusCode::PARTIAL_CONTENT.canonical_reason().into();
    let error = |status: &u16| {
        let name = error_name(operation.dialect, *status);
        (status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }))
    };
    let mut all: BTreeMap<String, Value> = operation.errors.keys().map(error).collect();
    all.insert(success.as_u16().to_string(), response);
    if operation.has_ranges {
        all.insert(StatusCode::PARTIAL_CONTENT.as_u16().to_string(), range);
    }
    all
}

fn content(dialect: &Dialect, content: Content, generator: &mut SchemaGenerator) -> Option<Value> {
    let (media, schema) = match content {
        Content::Nothing => return None,
        Content::Json(make) => (dialect.json, make(generator).to_value()),
        Content::Parts(make) => ("multipart/form-data", make(generator).to_value()),
        Content::Other(types) => {
            let binary = json!({ "schema": { "type": "string", "format": "binary" } });
            let types = types.iter().map(|media| ((*media).to_owned(), binary.clone()));
            return Some(types.collect::<Map<_, _>>().into());
        }
    };
    Some(json!({ media: { "schema": schema } }))
}

fn error_name(dialect: &Dialect, status: u16) -> String {
    format!("{}Error{status}", dialect.name.replace(|c: char| !c.is_ascii_alphanumeric(), ""))
}

/// Returns the responses with errors: one for each dialect and status.
fn error_responses(operations: &[Operation], schemas: &mut Schemas) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for operation in operations {
        let Dialect { json, error, .. } = operation.dialect;
        for status in operation.errors.keys() {
            let reason = StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
            let body = json_of(json, *error, &mut schemas.responses);
            let response = json!({ "description": reason.unwrap_or_default(), "content": body });
            all.insert(error_name(operation.dialect, *status), response);
        }
    }
    all
}

fn json_of(media: &str, make: MakeSchema, generator: &mut SchemaGenerator) -> Value {
    json!({ media: { "schema": make(generator).to_value() } })
}
