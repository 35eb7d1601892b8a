//! Texts for data that is not JSON, or not the record, without words of Rust: the field, what it must
//! be, and what it is.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, error::Category};

/// Returns the text for an error of reading the format version from `bytes`.
pub(super) fn of_format(bytes: &[u8], error: &serde_json::Error) -> String {
    let fields = serde_json::from_slice::<Map<String, Value>>(bytes).ok().filter(|_| error.is_data());
    match fields.is_some_and(|fields| fields.contains_key("v")) {
        true => sentence("v", &error.to_string()),
        false => of_json(error),
    }
}

/// Returns the text for an error of reading JSON.
fn of_json(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => sentence("", &error.to_string()),
        Category::Io | Category::Syntax | Category::Eof => format!("it is not JSON ({error})"),
    }
}

/// Returns the text for an error of reading the record `T` from `bytes`. Reads the record once more,
/// since the error itself does not name the field.
pub(super) fn of_record<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> String {
    let fields = serde_json::from_slice::<Map<String, Value>>(bytes).ok().filter(|_| error.is_data());
    let Some(mut fields) = fields else { return of_json(error) };
    fields.remove("v");
    match serde_path_to_error::deserialize::<_, T>(Value::Object(fields)) {
        Err(error) => {
            let path = error.path().to_string();
            // A part of the path that has no name is `?`; a path without parts is a dot.
            let is_named = !path.contains('?') && path != ".";
            sentence(if is_named { &path } else { "" }, &error.inner().to_string())
        }
        // A field that is there twice is lost in a map.
        Ok(_) => of_json(error),
    }
}

/// Rewrites a message of `serde` about the field at `path`, or about the whole record if it is empty.
fn sentence(path: &str, message: &str) -> String {
    // The record is one line.
    let message = message.split_once(" at line ").map_or(message, |(message, _)| message);
    let subject = if path.is_empty() { "it" } else { path };
    let quoted = |text: &str| text.replace('`', "\"");
    let typed = ["invalid type: ", "invalid value: "];
    // The value may contain anything, the expectation is one of ours.
    if let Some(rest) = typed.iter().find_map(|begin| message.strip_prefix(begin))
        && let Some((found, expected)) = rest.rsplit_once(", expected ")
    {
        return format!("{subject} must be {}, and is {}", kind(expected), value(found));
    }
    if let Some(rest) = message.strip_prefix("unknown variant ")
        && let Some((found, expected)) = rest.rsplit_once(", expected ")
    {
        return format!("{subject} must be {}, and is {}", quoted(expected), quoted(found));
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        let of = if path.is_empty() { String::new() } else { format!(" of {path}") };
        return format!("the field {}{of} is missing", quoted(field));
    }
    if let Some(field) = message.strip_prefix("duplicate field ") {
        return format!("the field {} is there twice", quoted(field));
    }
    if path.is_empty() { quoted(message) } else { format!("{path}: {}", quoted(message)) }
}

/// Returns the words for a type of Rust that a value must have.
fn kind(expected: &str) -> String {
    let words = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "str" | "string" | "string or map" => "text",
        "a boolean" => "true or false",
        "a map" | "map" => "an object",
        "a sequence" | "sequence" => "a list",
        "unit" => "null",
        other
            if ["struct ", "internally tagged enum ", "adjacently tagged enum "]
                .iter()
                .any(|it| other.starts_with(it)) =>
        {
            "an object"
        }
        other => return other.replace('`', "\""),
    };
    words.to_owned()
}

/// Returns the words for a value that was found.
fn value(found: &str) -> String {
    let number = ["integer ", "floating point ", "boolean ", "Option value"];
    if let Some(text) = number.iter().find_map(|begin| found.strip_prefix(begin)) {
        return text.trim_matches('`').to_owned();
    }
    match found {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit" | "unit value" | "null" => "null".to_owned(),
        other => other.strip_prefix("string ").unwrap_or(other).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::cluster::record::{self, SupervisorRecord, TasksRecord, TopologyRecord};
    use crate::tree::TreePath;
    use serde::de::DeserializeOwned;

    fn reason<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        let path: TreePath = "/storms/x-1-1".parse().expect("valid");
        record::decode::<T>(&path, text.as_bytes()).expect_err("unreadable").defect.reason
    }

    #[test]
    fn error_of_a_record_names_the_field_and_what_it_must_be_and_is() {
        let good = String::from_utf8(record::encode(&TopologyRecord::sample("x"))).expect("text");
        for (from, to, expected) in [
            (
                r#""workers":1"#,
                r#""workers":"two""#,
                "workers must be a whole number from 0 to 4294967295, and is \"two\"",
            ),
            (
                r#""workers":1"#,
                r#""workers":1.5"#,
                "workers must be a whole number from 0 to 4294967295, and is 1.5",
            ),
            (
                r#""workers":1"#,
                r#""workers":-1"#,
                "workers must be a whole number from 0 to 4294967295, and is -1",
            ),
            (r#""workers":1,"#, "", "the field \"workers\" is missing"),
            (r#""workers":1,"#, r#""workers":1,"workers":2,"#, "the field \"workers\" is there twice"),
            (r#""owner":"ann""#, r#""owner":[1]"#, "owner must be text, and is a list"),
            (r#""v":1"#, r#""v":"one""#, "v must be a whole number from 0 to 4294967295, and is \"one\""),
        ] {
            assert!(good.contains(from), "{good}");
            assert_eq!(reason::<TopologyRecord>(&good.replace(from, to)), expected);
        }
        let status = reason::<TopologyRecord>(&good.replace(r#""status":"active""#, r#""status":"asleep""#));
        assert!(
            status.starts_with("status must be one of \"active\", ")
                && status.ends_with(", and is \"asleep\""),
            "{status}"
        );
        let supervisor = r#"{"v":1,"host":"h","ports":[70000],"resources":{"cpu_percent":1,"memory_mb":1},"version":"","start_ms":1}"#;
        assert_eq!(
            reason::<SupervisorRecord>(supervisor),
            "ports[0] must be a whole number from 0 to 65535, and is 70000"
        );
        assert_eq!(reason::<TasksRecord>(r#"{"v":1,"components":{}}"#), "components: there are no tasks");
        assert_eq!(
            reason::<TasksRecord>(r#"{"v":1,"components":7}"#),
            "components must be tasks by component, and is 7"
        );
        assert_eq!(reason::<TasksRecord>("null"), "it must be an object, and is null");
        assert!(reason::<TasksRecord>("hello").starts_with("it is not JSON ("));
    }
}
