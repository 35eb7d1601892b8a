//! Walks through YAML and collects the faults.

use crate::{
    flux::fault::Fault,
    yaml::{MapKey, Node, SourcePosition, Value},
};
use stormkeeper_model::suggest::hint;

/// Faults and warnings collected on the way.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
}

/// A value and its path in the file.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
}

/// A map and its path in the file.
pub(super) struct Entries<'a> {
    pub(super) at: SourcePosition,
    pub(super) path: String,
    entries: &'a [(MapKey, Node)],
}

/// Path of `key` in the map at `path`.
fn join(path: &str, key: &str) -> String {
    match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    }
}

impl<'a> At<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }

    /// Text of the node, if it is a string.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        let Value::Text(text) = &self.node.value else { return None };
        Some(text)
    }

    /// Items of the node, if it is a list.
    pub(super) fn as_list(&self) -> Option<Vec<Self>> {
        let Value::List(items) = &self.node.value else { return None };
        let item = |(n, node)| At { node, path: format!("{}[{n}]", self.path) };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Entries of the node, if it is a map.
    pub(super) fn as_map(&self) -> Option<Entries<'a>> {
        let Value::Map(entries) = &self.node.value else { return None };
        Some(Entries { at: self.node.at, path: self.path.clone(), entries })
    }
}

impl<'a> Entries<'a> {
    /// Returns the value of `key`; a key without a value counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<At<'a>> {
        self.iter().find(|(k, _)| k.text == key).map(|(_, at)| at)
    }

    /// Returns whether `key` is there without a value.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, node)| known.text == key && node.value == Value::Null)
    }

    /// All keys that have a value, in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a MapKey, At<'a>)> {
        self.entries
            .iter()
            .filter(|(_, node)| node.value != Value::Null)
            .map(|(key, node)| (key, At { node, path: join(&self.path, &key.text) }))
    }

    /// Path of `key`, for messages about its absence.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

impl Walk {
    /// Records a fault at a value.
    pub(super) fn fault(&mut self, at: &At<'_>, what: impl Into<String>, hint: impl Into<Option<String>>) {
        self.fault_at(at.node.at, at.path.clone(), what, hint);
    }

    /// Records that a value is not what is `expected`.
    pub(super) fn mismatch(&mut self, at: &At<'_>, expected: &str, hint: impl Into<Option<String>>) {
        self.fault(at, at.node.mismatch(expected), hint);
    }

    pub(super) fn fault_at(
        &mut self,
        at: SourcePosition,
        path: String,
        what: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        self.faults.push(Fault { at, path, what: what.into(), hint: hint.into() });
    }

    pub(super) fn warn(&mut self, at: SourcePosition, path: String, what: impl Into<String>) {
        self.warnings.push(Fault { at, path, what: what.into(), hint: None });
    }

    /// Reads a map with `known` keys. Other keys are faults, with the advice in `unsupported` if it
    /// has some.
    pub(super) fn map<'a>(
        &mut self,
        at: &At<'a>,
        known: &[&str],
        unsupported: &[(&str, &str)],
    ) -> Option<Entries<'a>> {
        let Some(map) = at.as_map() else {
            self.mismatch(at, &format!("a map with {}", known.join(", ")), None);
            return None;
        };
        for (key, _) in map.entries {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let (what, advice) = match unsupported.iter().find(|(name, _)| *name == key.text) {
                Some((name, reason)) => (format!("`{name}` is not supported"), Some((*reason).to_owned())),
                None => (format!("unknown key `{}`", key.text), hint(&key.text, known.iter().copied())),
            };
            self.fault_at(key.at, join(&map.path, &key.text), what, advice);
        }
        Some(map)
    }

    /// Returns the value of a required key; its absence is a fault.
    pub(super) fn required<'a>(&mut self, map: &Entries<'a>, key: &str, example: &str) -> Option<At<'a>> {
        let found = map.get(key);
        if found.is_none() {
            let advice = format!("add it, for example `{key}: {example}`");
            self.fault_at(map.at, map.path_of(key), "it is missing", advice);
        }
        found
    }

    pub(super) fn text<'a>(&mut self, at: &At<'a>) -> Option<&'a str> {
        let text = at.as_text();
        if text.is_none() {
            let advice = matches!(at.node.value, Value::Whole(_) | Value::Number(_) | Value::Flag(_))
                .then(|| "put it in quotes".to_owned());
            self.mismatch(at, "a string", advice);
        }
        text
    }

    pub(super) fn list<'a>(&mut self, at: &At<'a>) -> Option<Vec<At<'a>>> {
        let list = at.as_list();
        if list.is_none() {
            self.mismatch(at, "a list", None);
        }
        list
    }

    pub(super) fn flag(&mut self, at: &At<'_>) -> Option<bool> {
        if let Value::Flag(flag) = at.node.value {
            return Some(flag);
        }
        self.mismatch(at, "true or false", None);
        None
    }

    /// Reads names of fields: a list of strings.
    pub(super) fn texts(&mut self, at: &At<'_>) -> Option<Vec<String>> {
        let items = self.list(at)?;
        let texts: Vec<Option<String>> =
            items.iter().map(|item| self.text(item).map(str::to_owned)).collect();
        texts.into_iter().collect()
    }

    /// An id or a name, in the type that checks it.
    pub(super) fn id<T: std::str::FromStr<Err = stormkeeper_model::InvalidId>>(
        &mut self,
        at: &At<'_>,
    ) -> Option<T> {
        let text = self.text(at)?;
        text.parse()
            .map_err(|error: stormkeeper_model::InvalidId| self.fault(at, error.to_string(), None))
            .ok()
    }
}
