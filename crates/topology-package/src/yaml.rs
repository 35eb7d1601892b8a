//! YAML with the position of every node, for error messages.

mod extent;
mod merge;

use std::{fmt, sync::Arc};

use saphyr::{LoadableYamlNode as _, MarkedYaml, Marker, Scalar, YamlData};

/// Position in a text, counted from 1 as in editors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SourcePosition {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl SourcePosition {
    /// Start of a text.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<Marker> for SourcePosition {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// Invalid YAML, or YAML with a feature that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Error {
    /// Position of the error.
    pub at: SourcePosition,
    /// Description of the error.
    pub what: String,
}

/// A value and its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Position of its first character.
    pub at: SourcePosition,
    /// The value.
    pub value: Value,
}

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `~`, `null`, or nothing at all.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A finite number with a fraction or an exponent.
    Number(f64),
    /// Anything else that is not a list or a map.
    Text(Arc<str>),
    /// `[a, b]`
    List(Vec<Node>),
    /// `{a: 1}`, in the order of the file, without duplicate keys; merged entries are last.
    Map(Vec<(MapKey, Node)>),
}

/// The key of an entry of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapKey {
    /// Position of the key.
    pub at: SourcePosition,
    /// Text of the key; numbers and booleans count as their text.
    pub text: String,
}

/// Maximum size of a file. It bounds the cost of parsing.
pub(crate) const MAX_BYTES: usize = 4 << 20;

/// Maximum indentation of a line. It bounds the cost of parsing a line.
const MAX_INDENT: usize = 400;

/// Reads a file with one document. An empty file is [`Value::Null`].
///
/// # Errors
/// The first fault, with its position.
pub fn parse(text: &str) -> Result<Node, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        let what = format!("the file is larger than {} MiB", MAX_BYTES >> 20);
        return Err(Error { at: SourcePosition::START, what });
    }
    for (n, line) in text.lines().enumerate() {
        let indent = line.chars().take_while(|c| matches!(c, ' ' | '-' | '?' | '\t')).count();
        if indent > MAX_INDENT {
            let at = SourcePosition { line: n + 1, column: MAX_INDENT };
            return Err(Error {
                at,
                what: format!("the line is indented by more than {MAX_INDENT} columns"),
            });
        }
    }
    extent::check(text)?;
    let documents = MarkedYaml::load_from_str(text).map_err(|error| {
        let what = format!("this is not YAML: {}", error.info());
        Error { at: (*error.marker()).into(), what }
    })?;
    let mut documents = documents.into_iter();
    let first = documents.next();
    if let Some(second) = documents.next() {
        let what = "a second document begins here; a file may contain only one".to_owned();
        return Err(Error { at: second.span.start.into(), what });
    }
    match first {
        Some(node) => convert(node),
        None => Ok(Node { at: SourcePosition::START, value: Value::Null }),
    }
}

fn convert(node: MarkedYaml<'_>) -> Result<Node, Error> {
    let at = SourcePosition::from(node.span.start);
    let value = match node.data {
        YamlData::Value(scalar) => convert_scalar(scalar, at)?,
        YamlData::Sequence(items) => Value::List(items.into_iter().map(convert).collect::<Result<_, _>>()?),
        YamlData::Mapping(entries) => {
            let entry = |(key, value)| Ok((convert_key(key)?, convert(value)?));
            let entries: Vec<(MapKey, Node)> = entries.into_iter().map(entry).collect::<Result<_, _>>()?;
            reject_duplicate_keys(&entries)?;
            Value::Map(merge::merge(entries)?)
        }
        YamlData::Tagged(tag, _) => {
            return Err(Error { at, what: format!("the tag {tag} is not supported") });
        }
        YamlData::Alias(_) => {
            return Err(Error { at, what: "this alias has no anchor before it".to_owned() });
        }
        YamlData::Representation(..) | YamlData::BadValue => {
            return Err(Error { at, what: "this value does not fit its tag".to_owned() });
        }
    };
    Ok(Node { at, value })
}

fn convert_scalar(scalar: Scalar<'_>, at: SourcePosition) -> Result<Value, Error> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(flag) => Value::Flag(flag),
        Scalar::Integer(n) => Value::Whole(n),
        Scalar::FloatingPoint(n) if n.is_finite() => Value::Number(*n),
        Scalar::FloatingPoint(_) => return Err(Error { at, what: "this is not a finite number".to_owned() }),
        Scalar::String(text) => Value::Text(text.into()),
    })
}

fn convert_key(node: MarkedYaml<'_>) -> Result<MapKey, Error> {
    let Node { at, value } = convert(node)?;
    let text = match value {
        Value::Text(text) => text.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Whole(n) => n.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Null => return Err(Error { at, what: "this key is empty".to_owned() }),
        Value::List(_) | Value::Map(_) => {
            return Err(Error { at, what: "a key must be a string, a number or a boolean".to_owned() });
        }
    };
    Ok(MapKey { at, text })
}

/// Rejects duplicates that YAML allows: `1: a` and `"1": b` have different keys in YAML only.
fn reject_duplicate_keys(entries: &[(MapKey, Node)]) -> Result<(), Error> {
    let mut seen = std::collections::BTreeSet::new();
    match entries.iter().find(|(key, _)| !seen.insert(&key.text)) {
        Some((key, _)) => Err(Error { at: key.at, what: format!("the key `{}` occurs twice", key.text) }),
        None => Ok(()),
    }
}

impl Value {
    /// Name of the value's kind, for messages: "a list".
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "a boolean",
            Self::Whole(_) | Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    /// Converts the node to JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Flag(flag) => Json::Bool(*flag),
            Value::Whole(n) => Json::from(*n),
            Value::Number(n) => Json::from(*n),
            Value::Text(text) => Json::from(&**text),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|(key, node)| (key.text.clone(), node.to_json())).collect())
            }
        }
    }

    /// Returns the value under `key`, if the node is a map with this key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    /// Returns the message that the node is not what is `expected`.
    pub fn mismatch(&self, expected: &str) -> String {
        format!("expected {expected}, found {}", self.value.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_position() {
        let node = parse("a: 1\nb:\n  - x\n  - {c: 2.5}\nd: ~\n").expect("YAML");
        assert_eq!(node.at.to_string(), "1:1");
        let b = node.get("b").expect("is there");
        let Value::List(items) = &b.value else { panic!("a list") };
        assert_eq!(items[0].at.to_string(), "3:5");
        assert_eq!(items[1].get("c").expect("is there").at.to_string(), "4:9");
        let Value::Map(entries) = &node.value else { panic!("a map") };
        assert_eq!(entries[1].0.at.to_string(), "2:1");
        assert_eq!(node.to_json().to_string(), r#"{"a":1,"b":["x",{"c":2.5}],"d":null}"#);
    }

    #[test]
    fn aliases_are_resolved() {
        let node = parse("a: &x [1, 2]\nb: *x\n").expect("YAML");
        assert_eq!(node.to_json().to_string(), r#"{"a":[1,2],"b":[1,2]}"#);
    }

    #[test]
    fn errors_have_the_position_of_the_fault() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        };
        check("a: [1, 2\nb: 3\n", "2:2: this is not YAML");
        check("a: b: c\n", "1:5: this is not YAML");
        check("a: 1\na: 2\n", "2:1: this is not YAML");
        check("1: a\n\"1\": b\n", "2:1: the key `1` occurs twice");
        check("a: 1\n---\nb: 2\n", "3:1: a second document");
        check("a: !java/object x\n", "1:4: the tag");
        check("a: *x\n", "1:4: this is not YAML");
        check("a: .inf\n", "1:4: this is not a finite");
        check("[a, b]: 1\n", "1:1: a key must be");
        check(&"- ".repeat(100_000), "1:400: the line is indented");
        check(&"[".repeat(100_000), "1:256: this is not YAML");
    }

    #[test]
    fn empty_files_are_null() {
        for text in ["", "# only a comment\n", "\u{feff}", "---\n"] {
            assert_eq!(parse(text).expect("YAML").value, Value::Null, "{text:?}");
        }
    }

    #[test]
    fn exponential_aliases_are_rejected() {
        let mut text = String::from("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
        for n in 1..12 {
            let items = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{items}]\n"));
        }
        assert!(parse(&text).expect_err("rejected").what.contains("larger than 64 MiB"));
        // Fewer nodes are copied until the limit of the parser.
        let text = format!("a: &a [{}]\nb: [{}]\n", vec!["1"; 1000].join(", "), vec!["*a"; 200].join(", "));
        assert!(parse(&text).expect_err("rejected").what.contains("alias expansion"));
    }
}
