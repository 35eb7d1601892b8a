//! Forms of schemas that generators of clients understand, in place of shorter ones that mean the same.
//!
//! Tried with openapi-generator 7 and openapi-python-client: they refuse boolean schemas and arrays without
//! items, take each constant of a choice for a type of its own, and integers without a known format for
//! ones of 32 bits, and make equal names of properties that differ in their separators only.

use std::collections::BTreeMap;

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
            if is_of(fields, "array") && !fields.contains_key("items") && !fields.contains_key("prefixItems")
            {
                fields.insert("items".to_owned(), json!({}));
            }
            if is_of(fields, "integer") {
                fields.insert("format".to_owned(), json!("int64"));
            }
            merge_choice_of_objects(fields);
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                for property in properties.values_mut().filter(|property| property["type"] == "null") {
                    property["type"] = json!(["object", "null"]);
                }
                let aliases = aliases(properties);
                properties.retain(|name, _| !aliases.contains(name));
                if let Some(Value::Array(required)) = fields.get_mut("required") {
                    required.retain(|name| !aliases.iter().any(|alias| name == alias));
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

fn is_of(schema: &Map<String, Value>, wanted: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(of)) => of == wanted,
        Some(Value::Array(types)) => types.iter().any(|of| of == wanted),
        _ => false,
    }
}

/// Returns the names of properties that differ from another one in their separators only. The answers have
/// them all the same.
fn aliases(properties: &Map<String, Value>) -> Vec<String> {
    let mut of_letters: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for name in properties.keys() {
        let letters =
            name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        of_letters.entry(letters).or_default().push(name);
    }
    let aliases = of_letters.into_values().flat_map(|mut names| {
        names.sort_by_key(|name| (name.contains(['-', '_']), *name));
        names.into_iter().skip(1).cloned()
    });
    aliases.collect()
}

/// Makes one object of an object with a choice between further properties: it has those of every choice, and
/// needs those that all of them need.
fn merge_choice_of_objects(schema: &mut Map<String, Value>) {
    let is_object = |one: &Value| one["type"] == "object" && one["properties"].is_object();
    let has_properties = schema.contains_key("properties");
    let Some(choices) = schema.get("oneOf").and_then(Value::as_array) else { return };
    if !has_properties || !choices.iter().all(is_object) {
        return;
    }
    let choices = choices.clone();
    schema.remove("oneOf");
    let needed = |one: &Value, name: &Value| one["required"].as_array().is_some_and(|all| all.contains(name));
    let by_all = choices[0]["required"].as_array().cloned().unwrap_or_default();
    let by_all = by_all.into_iter().filter(|name| choices.iter().all(|one| needed(one, name)));
    let mut required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    required.extend(by_all);
    schema.insert("required".to_owned(), required.into());
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, property) in choices.iter().filter_map(|one| one["properties"].as_object()).flatten() {
        let known = properties.entry(name).or_insert_with(|| match property.get("const") {
            Some(_) => json!({ "type": "string", "enum": [] }),
            None => property.clone(),
        });
        if let (Some(word), Some(words)) =
            (property.get("const"), known.get_mut("enum").and_then(Value::as_array_mut))
        {
            words.push(word.clone());
        }
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
            "f": {
                "type": "object",
                "properties": { "left": { "type": ["integer", "null"], "format": "uint32" } },
                "required": ["left"],
                "oneOf": [
                    {
                        "type": "object",
                        "properties": { "change": { "const": "kill" }, "at": { "type": "integer" } },
                        "required": ["change", "at"],
                    },
                    {
                        "type": "object",
                        "properties": { "change": { "const": "move" }, "to": { "type": "string" } },
                        "required": ["change", "to"],
                    },
                ],
            },
            "g": {
                "properties": { "start-time": {}, "start_time": {}, "startTimes": {}, "stop": {} },
                "required": ["start-time", "start_time"],
            },
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
            "f": {
                "type": "object",
                "properties": {
                    "left": { "type": ["integer", "null"], "format": "int64" },
                    "change": { "type": "string", "enum": ["kill", "move"] },
                    "at": { "type": "integer", "format": "int64" },
                    "to": { "type": "string" },
                },
                "required": ["left", "change"],
            },
            "g": {
                "properties": { "start-time": {}, "startTimes": {}, "stop": {} },
                "required": ["start-time"],
            },
        });
        assert_eq!(document, expected);
    }
}
