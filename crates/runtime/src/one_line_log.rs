//! Writer of a log in which each event is one line, whatever the texts in it: a line break or an escape
//! sequence in a name or an error must neither look like an event of its own nor reach a terminal.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use tracing_subscriber::fmt::MakeWriter;

/// Makes writers that keep an event on one line.
#[derive(Debug)]
pub struct OneLineLog<W> {
    inner: W,
    has_colours: bool,
}

impl<W> OneLineLog<W> {
    /// Writes to the writers of `inner`; `has_colours` if the events are formatted with colours, which stay.
    pub fn new(inner: W, has_colours: bool) -> Self {
        Self { inner, has_colours }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLineLog<W> {
    type Writer = OneLineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter { inner: self.inner.make_writer(), has_colours: self.has_colours }
    }
}

/// Writer of one event.
#[derive(Debug)]
pub struct OneLineWriter<W> {
    inner: W,
    has_colours: bool,
}

impl<W: Write> Write for OneLineWriter<W> {
    /// Writes one event, which ends with a line break.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.inner.write_all(on_one_line(&text, self.has_colours).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Returns `event` with its control characters escaped, but for the line break at its end.
fn on_one_line(event: &str, has_colours: bool) -> Cow<'_, str> {
    let (line, end) = match event.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (event, ""),
    };
    if !line.contains(is_odd) {
        return Cow::Borrowed(event);
    }
    let mut out = String::with_capacity(event.len() + 16);
    for (at, c) in line.char_indices() {
        if !is_odd(c) || has_colours && c == '\u{1b}' && is_colour(&line[at..]) {
            out.push(c);
        } else {
            // Writing to a text cannot fail.
            let _never = write!(out, "{}", c.escape_default());
        }
    }
    Cow::Owned(out + end)
}

/// Tells characters that end a line or control a terminal.
fn is_odd(c: char) -> bool {
    c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Tells whether a text begins with a sequence that sets the style of what follows.
fn is_colour(text: &str) -> bool {
    let digits = text
        .strip_prefix("\u{1b}[")
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
    digits.is_some_and(|rest| rest.starts_with('m'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_line_breaks_and_escape_sequences_stays_in_its_line() {
        for (event, line) in [
            ("INFO a: submitted\n", "INFO a: submitted\n"),
            ("WARN b: x\n2026 INFO a: forged\n", "WARN b: x\\n2026 INFO a: forged\n"),
            ("a\r\n\n", "a\\r\\n\n"),
            (
                "\u{1b}]0;title\u{7}\u{9b}31m é\ttab\u{2028}\n",
                "\\u{1b}]0;title\\u{7}\\u{9b}31m é\ttab\\u{2028}\n",
            ),
            ("no end", "no end"),
        ] {
            assert_eq!(on_one_line(event, false), line);
        }
    }

    #[test]
    fn colours_of_a_terminal_stay_and_other_sequences_do_not() {
        assert_eq!(
            on_one_line("\u{1b}[2;31mred\u{1b}[0m\u{1b}[2J\n", true),
            "\u{1b}[2;31mred\u{1b}[0m\\u{1b}[2J\n"
        );
        assert_eq!(on_one_line("\u{1b}[31mred\n", false), "\\u{1b}[31mred\n");
    }

    #[test]
    fn logged_texts_cannot_forge_an_event() {
        let file = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let written = std::sync::Arc::clone(&file);
        let subscriber = tracing_subscriber::fmt()
            .with_writer(OneLineLog::new(move || Shared(std::sync::Arc::clone(&file)), false))
            .with_ansi(false)
            .finish();
        let name = "linux\n2026-01-01T00:00:00Z  INFO stormkeeper: all is well\u{1b}[2J";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(%name, problem = name, "rejected {name}");
        });
        let text = String::from_utf8(written.lock().expect("not poisoned").clone()).expect("UTF-8");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
