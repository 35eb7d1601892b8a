//! Placeholders of Flux: `${name}` and `${ENV-NAME}`.
//!
//! A value replaces its placeholder in the text of the file, before the text is read as YAML, so it
//! may be a number or a list. Positions in the new text are mapped back to the file. A placeholder
//! without a value stays in the text; [`unresolved`] finds it in the values, and not in comments.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use crate::{
    flux::{fault::Fault, properties::Properties, walk::At},
    yaml::{self, Node, SourcePosition, Value},
};

/// Values for the placeholders of a topology file.
#[derive(Debug, Clone, Default)]
pub struct Replacements {
    /// Values for `${name}`, if there is a properties file.
    pub properties: Option<Properties>,
    /// Values for `${ENV-NAME}`, if environment variables may be used.
    pub environment: Option<BTreeMap<String, String>>,
}

/// Maximum number of placeholders that are named if a file is not YAML. Finding the line of each
/// takes time.
const MAX_NAMED: usize = 100;

/// Prefix of the names of environment variables.
const ENV: &str = "ENV-";

impl Replacements {
    fn property(&self, name: &str) -> Option<&str> {
        self.properties.as_ref()?.values.get(name).map(String::as_str)
    }

    /// Value of the placeholder `${name}`.
    fn get(&self, name: &str) -> Option<&str> {
        let variable = || self.environment.as_ref()?.get(name.strip_prefix(ENV)?).map(String::as_str);
        let item = || {
            let (list, index) = list_item(name)?;
            items(self.property(list)?).nth(index)
        };
        variable().or_else(|| self.property(name)).or_else(item)
    }

    /// Advice for a placeholder that has no value.
    fn advice(&self, name: &str) -> String {
        if let Some(variable) = name.strip_prefix(ENV) {
            return match self.environment {
                None => format!("pass `--env-filter` to insert the environment variable {variable}"),
                Some(_) => format!("set the environment variable {variable}, which is not set"),
            };
        }
        let Some(properties) = &self.properties else {
            let line = property_line(name);
            return format!("pass `--filter FILE` with a properties file that contains `{line}`");
        };
        let file = properties.path.display();
        match list_item(name).and_then(|(list, _)| Some((list, self.property(list)?))) {
            Some((list, value)) => format!("`{list}` in {file} has {} items", items(value).count()),
            None => format!("add `{}` to {file}", property_line(name)),
        }
    }
}

/// Line of a properties file that gives the placeholder `${name}` a value.
fn property_line(name: &str) -> String {
    let (name, value) = match list_item(name) {
        Some((list, 0)) => (list, "[\"…\"]"),
        Some((list, _)) => (list, "[\"…\", …]"),
        None => (name, "…"),
    };
    let mut line = String::new();
    for letter in name.chars() {
        // These end the key in a properties file.
        if matches!(letter, ':' | '=' | ' ') {
            line.push('\\');
        }
        line.push(letter);
    }
    format!("{line}={value}")
}

/// Splits `list[3]` into the name of a list and an index.
fn list_item(name: &str) -> Option<(&str, usize)> {
    let (list, index) = name.strip_suffix(']')?.rsplit_once('[')?;
    Some((list, index.parse().ok()?))
}

/// Items of a property such as `["a", "b"]`.
fn items(value: &str) -> impl Iterator<Item = &str> {
    let value = value.trim();
    let inner = value.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(value);
    inner.split(',').map(|item| {
        let item = item.trim();
        let unquoted = |quote: char| item.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
        unquoted('"').or_else(|| unquoted('\'')).unwrap_or(item)
    })
}

/// True if a shell would take `${name}` for one of its variables.
fn is_shell_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Positions of placeholders in a text, with their names. A placeholder is on one line.
fn placeholders(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + text.get(from..)?.find("${")?;
            let name = start + 2;
            from = name;
            let length = text[name..].find(['}', '$', '\n', '\r'])?;
            let end = name + length;
            if length > 0 && text[end..].starts_with('}') {
                from = end + 1;
                return Some((start..end + 1, &text[name..end]));
            }
        }
    })
}

/// A text with values in the place of placeholders.
pub(super) struct Substituted<'a> {
    pub(super) text: Cow<'a, str>,
    /// Pieces of the text in their order. Empty if nothing was replaced.
    pieces: Vec<Piece<'a>>,
}

/// A piece of the text, which is either a piece of the file or the value of a placeholder.
struct Piece<'a> {
    /// Position in the text.
    at: SourcePosition,
    /// Position in the file: of the piece, or of the placeholder.
    in_file: SourcePosition,
    placeholder: Option<&'a str>,
}

/// Replaces every placeholder that has a value.
///
/// # Errors
/// The text would become larger than a file may be.
pub(super) fn substitute<'a>(text: &'a str, replacements: &Replacements) -> Result<Substituted<'a>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut new = Builder::default();
    let mut done = 0;
    for (range, name) in placeholders(text) {
        let Some(value) = replacements.get(name) else { continue };
        new.copy(&text[done..range.start]);
        new.insert(name, value, &text[range.clone()]);
        if new.text.len() > yaml::MAX_BYTES {
            let what = format!(
                "with its placeholders replaced, the file is larger than {} MiB",
                yaml::MAX_BYTES >> 20
            );
            let at = new.pieces.last().map_or(SourcePosition::START, |piece| piece.in_file);
            return Err(Fault { at, path: String::new(), what, hint: None });
        }
        done = range.end;
    }
    if done == 0 {
        return Ok(Substituted { text: Cow::Borrowed(text), pieces: Vec::new() });
    }
    new.copy(&text[done..]);
    Ok(Substituted { text: Cow::Owned(new.text), pieces: new.pieces })
}

struct Builder<'a> {
    text: String,
    at: SourcePosition,
    in_file: SourcePosition,
    pieces: Vec<Piece<'a>>,
}

impl Default for Builder<'_> {
    fn default() -> Self {
        let start = SourcePosition::START;
        Self { text: String::new(), at: start, in_file: start, pieces: Vec::new() }
    }
}

impl<'a> Builder<'a> {
    /// Copies a piece of the file.
    fn copy(&mut self, piece: &str) {
        self.pieces.push(Piece { at: self.at, in_file: self.in_file, placeholder: None });
        self.text.push_str(piece);
        self.at = after(self.at, piece);
        self.in_file = after(self.in_file, piece);
    }

    /// Inserts the value of a placeholder.
    fn insert(&mut self, name: &'a str, value: &str, placeholder: &str) {
        self.pieces.push(Piece { at: self.at, in_file: self.in_file, placeholder: Some(name) });
        self.text.push_str(value);
        self.at = after(self.at, value);
        self.in_file = after(self.in_file, placeholder);
    }
}

/// Position after `text`, which begins at `at`.
fn after(at: SourcePosition, text: &str) -> SourcePosition {
    let SourcePosition { mut line, mut column } = at;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' | '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
    }
    SourcePosition { line, column }
}

impl Substituted<'_> {
    /// Position in the file of a position in the text. In a value it is that of the placeholder.
    pub(super) fn in_file(&self, at: SourcePosition) -> SourcePosition {
        let n = self.pieces.partition_point(|piece| piece.at <= at);
        let Some(piece) = n.checked_sub(1).and_then(|n| self.pieces.get(n)) else { return at };
        if piece.placeholder.is_some() {
            return piece.in_file;
        }
        let n_lines = at.line - piece.at.line;
        match n_lines {
            0 => SourcePosition {
                line: piece.in_file.line,
                column: piece.in_file.column + at.column - piece.at.column,
            },
            _ => SourcePosition { line: piece.in_file.line + n_lines, column: at.column },
        }
    }

    /// Name of a placeholder that was replaced in this line of the file.
    fn replaced_in(&self, line: usize) -> Option<&str> {
        self.pieces.iter().filter(|piece| piece.in_file.line == line).find_map(|piece| piece.placeholder)
    }

    /// Faults of a text that is not YAML. A placeholder may be the cause.
    pub(super) fn syntax_faults(&self, error: yaml::Error, replacements: &Replacements) -> Vec<Fault> {
        let at = self.in_file(error.at);
        let hint = self.replaced_in(at.line).map(|name| {
            format!(
                "the value of `${{{name}}}` became a part of this line; put quotes around it if it is a text"
            )
        });
        let mut faults = vec![Fault { at, path: String::new(), what: error.what, hint }];
        let mut position = SourcePosition::START;
        let mut done = 0;
        for (range, name) in placeholders(&self.text).take(MAX_NAMED) {
            position = after(position, &self.text[done..range.start]);
            done = range.start;
            let line_start = self.text[..range.start].rfind(['\n', '\r']).map_or(0, |n| n + 1);
            if !self.text[line_start..range.start].contains('#') {
                faults.push(no_value(self.in_file(position), String::new(), name, replacements));
            }
        }
        faults.sort();
        faults.dedup();
        faults
    }
}

fn no_value(at: SourcePosition, path: String, name: &str, replacements: &Replacements) -> Fault {
    let mut advice = replacements.advice(name);
    let is_in_command = path.contains(".command") || path.contains(".constructorArgs");
    if is_in_command && is_shell_name(name) {
        advice = format!("{advice}; for a variable of a shell write `${name}`");
    }
    Fault { at, path, what: format!("`${{{name}}}` has no value"), hint: Some(advice) }
}

/// Finds the placeholders that are left in the keys and values of a file.
pub(super) fn unresolved(root: &Node, replacements: &Replacements) -> Vec<Fault> {
    let mut faults = Vec::new();
    visit(&At::root(root), replacements, &mut faults);
    // Aliases repeat the values of their anchor.
    faults.sort_by(|one, other| (one.at, &one.what).cmp(&(other.at, &other.what)));
    faults.dedup_by(|one, other| (one.at, &one.what) == (other.at, &other.what));
    faults
}

fn visit(at: &At<'_>, replacements: &Replacements, faults: &mut Vec<Fault>) {
    let mut check = |position, path: &str, text: &str| {
        for (_, name) in placeholders(text) {
            faults.push(no_value(position, path.to_owned(), name, replacements));
        }
    };
    match &at.node.value {
        Value::Text(text) => check(at.node.at, &at.path, text),
        Value::Map(entries) => {
            entries.iter().for_each(|(key, _)| check(key.at, &at.path, &key.text));
            for (_, entry) in at.as_map().iter().flat_map(|map| map.iter()) {
                visit(&entry, replacements, faults);
            }
        }
        Value::List(_) => at.as_list().iter().flatten().for_each(|item| visit(item, replacements, faults)),
        Value::Null | Value::Flag(_) | Value::Whole(_) | Value::Number(_) => {}
    }
}
