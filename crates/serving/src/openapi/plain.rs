//! Forms of schemas that generators of clients understand, in place of shorter ones that mean the same.
//!
//! Tried with openapi-generator 7 and openapi-python-client: they refuse boolean schemas and arrays without
//! items, and take each constant of a choice for a type of its own.

use serde_json::{Map, Value, json};

/// Replaces such schemas in a whole document.
pub(super) fn simplify(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(simplify),
        Value::Object(fields) => {
            for name in ["schema", "items"] {
                if let Some(schema @ Value::Bool(_)) = fields.get_mut(name) {
                    *schema = if *schema == Value::Bool(true) { json!({}) } else { json!({ "not": {} }) };
                }
            }
            if is_array(fields) && !fields.contains_key("items") && !fields.contains_key("prefixItems") {
                fields.insert("items".to_owned(), json!({}));
            }
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                for property in properties.values_mut().filter(|property| property["type"] == "null") {
                    property["type"] = json!(["object", "null"]);
                }
            }
            if let Some(words) = fields.get("oneOf").and_then(words) {
                one_enumeration(fields, words);
            }
            fields.values_mut().for_each(simplify);
        }
        _ => {}
    }
}

fn is_array(schema: &Map<String, Value>) -> bool {
    match schema.get("type") {
        Some(Value::String(of)) => of == "array",
        Some(Value::Array(types)) => types.iter().any(|of| of == "array"),
        _ => false,
    }
}

/// Returns the words of a choice with their descriptions, if it is one between words.
fn words(choice: &Value) -> Option<Vec<(Value, Option<String>)>> {
    let mut words = Vec::new();
    for one in choice.as_array()? {
        if one["type"] != "string" {
            return None;
        }
        let description = one["description"].as_str().map(str::to_owned);
        match (&one["const"], &one["enum"]) {
            (word @ Value::String(_), Value::Null) => words.push((word.clone(), description)),
            (Value::Null, Value::Array(several)) => {
                words.extend(several.iter().map(|word| (word.clone(), description.clone())));
            }
            _ => return None,
        }
    }
    Some(words)
}

/// Makes an enumeration of a choice between words, with their descriptions in its own.
fn one_enumeration(schema: &mut Map<String, Value>, words: Vec<(Value, Option<String>)>) {
    let lines = words.iter().filter_map(|(word, text)| {
        let text = text.as_ref()?.replace('\n', " ");
        Some(format!("- `{}`: {text}", word.as_str().unwrap_or_default()))
    });
    let described: Vec<String> = schema
        .get("description")
        .and_then(Value::as_str)
        .map(str::to_owned)
        .into_iter()
        .chain(lines)
        .collect();
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), words.into_iter().map(|(word, _)| word).collect());
    if !described.is_empty() {
        schema.insert("description".to_owned(), described.join("\n").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_that_generators_refuse_are_replaced_by_equal_ones() {
        let mut document = json!({
            "schema": false,
            "a": { "type": "array" },
            "b": { "type": ["array", "null"], "items": true },
            "c": { "properties": { "none": { "type": "null" }, "some": { "type": "string" } } },
            "d": {
                "description": "Color.",
                "oneOf": [
                    { "type": "string", "const": "red", "description": "Like\nblood." },
                    { "type": "string", "enum": ["green", "blue"] },
                ],
            },
            "e": { "oneOf": [{ "type": "string", "const": "red" }, { "type": "object" }] },
        });
        simplify(&mut document);
        let expected = json!({
            "schema": { "not": {} },
            "a": { "type": "array", "items": {} },
            "b": { "type": ["array", "null"], "items": {} },
            "c": { "properties": { "none": { "type": ["object", "null"] }, "some": { "type": "string" } } },
            "d": {
                "description": "Color.\n- `red`: Like blood.",
                "type": "string",
                "enum": ["red", "green", "blue"],
            },
            "e": { "oneOf": [{ "type": "string", "const": "red" }, { "type": "object" }] },
        });
        assert_eq!(document, expected);
    }
}
