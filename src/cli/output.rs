//! Output: tables and JSON to standard output, messages to standard error.

use std::{
    borrow::Cow,
    io::{self, Write as _},
};

use serde::Serialize;

use crate::cli::error::Failure;

/// Prints data, with control characters escaped that a terminal would interpret. A closed pipe
/// (`| head`) is not an error.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_while_read(text).map(drop)
}

/// Prints data as [`print`] does. Returns whether the output is still read: a command that goes on
/// printing ends with its reader.
pub(super) fn print_while_read(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(escaped(text, &['\n', '\t']).as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::internal(anyhow::Error::new(error).context("writing to standard output"))),
    }
}

/// Prints a value as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&json(value)?)
}

/// Formats a value as JSON that ends with a newline.
pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::internal(anyhow::Error::new(error).context("writing JSON")))?;
    Ok(json_escaped(&json) + "\n")
}

/// Formats a value as one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(value)
        .map_err(|error| Failure::internal(anyhow::Error::new(error).context("writing JSON")))?;
    Ok(json_escaped(&json) + "\n")
}

/// Escapes the characters that [`print`] would escape, in the notation of JSON: they can only be in strings.
fn json_escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        match controls_terminal(c) && c != '\n' {
            // All of them have four digits at most.
            true => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    escaped
}

/// True for control characters, and for those that change the direction of text.
fn controls_terminal(c: char) -> bool {
    let changes_direction =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || changes_direction
}

/// Prints a message to the person at the terminal.
pub(super) fn note(text: &str) {
    // No reader is left if standard error is closed.
    let _closed = writeln!(io::stderr(), "{}", escaped(text, &['\n', '\t']));
}

/// Text of a component or of another user as one line: it can neither forge lines nor control the
/// terminal.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, &[])
}

/// Escapes characters that control a terminal, except for those of `kept`.
fn escaped<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let is_escaped = |c: char| controls_terminal(c) && !kept.contains(&c);
    if !text.contains(is_escaped) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_escaped(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown.into()
}

/// Rows below a heading, in columns as wide as their widest cell.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell).into_owned()).collect());
    }

    /// Adds a column, whose cells come from the first ones.
    pub(super) fn append(&mut self, heading: &str, cell: impl Fn(&str) -> String) {
        for (i, row) in self.rows.iter_mut().enumerate() {
            let first = row.first().cloned().unwrap_or_default();
            let text = if i == 0 { heading.to_owned() } else { cell(&first) };
            row.push(one_line(&text).into_owned());
        }
    }

    /// Formats the table, each line indented by `indent` spaces.
    pub(super) fn text(&self, indent: usize) -> String {
        let n_columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..n_columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max())
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Formats a number with thousands separators, for tables with exact numbers.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(["a-long-name".to_owned(), "1".to_owned()]);
        assert_eq!(table.text(2), "  NAME         N\n  a-long-name  1\n");
        table.append("M", |name| name.chars().rev().collect());
        assert_eq!(table.text(0), "NAME         N  M\na-long-name  1  eman-gnol-a\n");
    }

    #[test]
    fn text_of_strangers_can_neither_forge_rows_nor_control_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["\u{1b}]0;title\u{7}\n! forged\u{202e}".to_owned()]);
        assert_eq!(table.text(0), "NAME\n\\u{1b}]0;title\\u{7}\\n! forged\\u{202e}\n");
        assert_eq!(escaped("a\n\tb\u{9b}2J", &['\n', '\t']), "a\n\tb\\u{9b}2J");
        assert!(matches!(one_line("plain: äöü 漢字"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_with_text_of_strangers_is_json_and_does_not_control_the_terminal() {
        let text = "\u{7f}\u{9b}2J \u{200f}שלום\u{2028}\u{202e}\u{2069}\u{1b}\n\"漢字\"";
        for json in [json(&[text]), json_line(&[text])] {
            let json = json.expect("JSON");
            assert!(matches!(escaped(&json, &['\n']), Cow::Borrowed(_)), "{json:?}");
            assert_eq!(serde_json::from_str::<Vec<String>>(&json).expect("JSON"), [text]);
        }
    }

    #[test]
    fn thousands_are_separated_by_commas() {
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}
