//! Java properties files, as `--filter` of Flux takes them.
//!
//! Lines are `key=value`, `key: value` or `key value`; `#` and `!` begin comments; a backslash at
//! the end of a line continues it, and elsewhere escapes the next character (`\n`, `\u00e9`).

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    iter::Peekable,
    path::{Path, PathBuf},
    str::Chars,
};

/// Maximum size of a file. It bounds the memory that a wrong path can cost.
const MAX_BYTES: u64 = 1 << 20;

/// Properties of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Path of the file, for messages.
    pub path: PathBuf,
    /// Values by their keys.
    pub values: BTreeMap<String, String>,
}

/// Reason why there are no properties.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the properties file {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file is too large.
    #[error("the properties file {} is larger than {} MiB", path.display(), MAX_BYTES >> 20)]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
    },
    /// A line is not valid.
    #[error("{}:{line}: {what}", path.display())]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Description of the fault.
        what: String,
    },
}

/// Reads a properties file. Blocks.
///
/// The text is UTF-8, or ISO 8859-1 as in Java if it is not valid UTF-8.
///
/// # Errors
/// The file cannot be read, is too large, or contains an invalid escape.
pub fn load(path: &Path) -> Result<Properties, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(read)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect());
    let values = parse(&text).map_err(|(line, what)| Error::Invalid { path: path.to_owned(), line, what })?;
    Ok(Properties { path: path.to_owned(), values })
}

/// Reads the text of a properties file. Of a key that occurs twice the last value counts.
///
/// # Errors
/// The line of an invalid escape, and a description.
fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut lines = text.split(['\n', '\r']).enumerate();
    let mut values = BTreeMap::new();
    while let Some((n, line)) = lines.next() {
        let line = line.trim_start_matches(is_space);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while is_continued(&whole) {
            whole.pop();
            let Some((_, next)) = lines.next() else { break };
            whole.push_str(next.trim_start_matches(is_space));
        }
        let (key, value) = entry(&whole).map_err(|what| (n + 1, what))?;
        values.insert(key, value);
    }
    Ok(values)
}

/// True if a line ends with a backslash that no other backslash escapes.
fn is_continued(line: &str) -> bool {
    let n_backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
    n_backslashes % 2 == 1
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Splits a line into key and value, and resolves the escapes in both.
fn entry(line: &str) -> Result<(String, String), String> {
    let mut chars = line.chars().peekable();
    let key = unescape(&mut chars, |c| is_space(c) || matches!(c, '=' | ':'))?;
    while chars.next_if(|c| is_space(*c)).is_some() {}
    if chars.next_if(|c| matches!(c, '=' | ':')).is_some() {
        while chars.next_if(|c| is_space(*c)).is_some() {}
    }
    Ok((key, unescape(&mut chars, |_| false)?))
}

/// Takes characters until `ends`, with escapes resolved.
fn unescape(chars: &mut Peekable<Chars<'_>>, ends: impl Fn(char) -> bool) -> Result<String, String> {
    // UTF-16, because a character beyond it is written as two escapes.
    let mut units: Vec<u16> = Vec::new();
    let push = |units: &mut Vec<u16>, c: char| units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    while let Some(c) = chars.next_if(|c| !ends(*c)) {
        match c {
            '\\' => match chars.next() {
                Some('u') => units.push(unit(chars)?),
                Some('n') => push(&mut units, '\n'),
                Some('t') => push(&mut units, '\t'),
                Some('r') => push(&mut units, '\r'),
                Some('f') => push(&mut units, '\u{c}'),
                Some(other) => push(&mut units, other),
                None => {}
            },
            other => push(&mut units, other),
        }
    }
    Ok(String::from_utf16_lossy(&units))
}

/// Takes the four digits after `\u`.
fn unit(chars: &mut Peekable<Chars<'_>>) -> Result<u16, String> {
    let mut value: u32 = 0;
    for _ in 0..4 {
        let digit = chars.next().and_then(|c| c.to_digit(16));
        let digit = digit
            .ok_or_else(|| "`\\u` needs four hexadecimal digits; write `\\\\u` for the text".to_owned())?;
        value = value * 16 + digit;
    }
    Ok(u16::try_from(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).expect("valid").into_iter().collect()
    }

    fn check(text: &str, key: &str, value: &str) {
        assert_eq!(read(text), [(key.to_owned(), value.to_owned())], "{text:?}");
    }

    #[test]
    fn every_separator_of_key_and_value_is_known() {
        for text in ["a=b c", "a = b c", "a:b c", "a : b c", "a b c", "  a\tb c\r\n", "a=b c\n\n"] {
            check(text, "a", "b c");
        }
        check("a", "a", "");
        check("a=", "a", "");
        check("a==b", "a", "=b");
        check("a=b ", "a", "b ");
        check(r"a\ b\=c\:=d", "a b=c:", "d");
    }

    #[test]
    fn comments_and_empty_lines_are_skipped() {
        check("# x=1\n ! y=2\n\n \t\na=b # c\n", "a", "b # c");
    }

    #[test]
    fn backslash_at_the_end_continues_a_line() {
        check("a=b, \\\n   c, \\\r\n#d\n", "a", "b, c, #d");
        check("a=b\\\\\n", "a", "b\\");
        check("a=b\\", "a", "b");
    }

    #[test]
    fn escapes_are_resolved() {
        check(r"a=\t\n\r\f\\\q\u00e9\ud83d\ude00", "a", "\t\n\r\u{c}\\q\u{e9}\u{1f600}");
        assert_eq!(
            parse("a=1\nb=\\u00x9\n"),
            Err((2, "`\\u` needs four hexadecimal digits; write `\\\\u` for the text".to_owned()))
        );
    }

    #[test]
    fn last_value_of_a_key_counts() {
        check("a=1\na=2\n", "a", "2");
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("dev.properties");
        let error = load(&path).expect_err("missing").to_string();
        assert_eq!(error, format!("cannot read the properties file {}", path.display()));
        fs::write(&path, "a=1\nb=\\u1\n").expect("written");
        let error = load(&path).expect_err("invalid").to_string();
        assert!(error.starts_with(&format!("{}:2: `\\u` needs", path.display())), "{error}");
        fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
        let error = load(&path).expect_err("too large").to_string();
        assert_eq!(error, format!("the properties file {} is larger than 1 MiB", path.display()));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_latin1() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("dev.properties");
        for (bytes, expected) in [(&b"a=\xc3\xa9"[..], "\u{e9}"), (b"a=\xe9", "\u{e9}")] {
            fs::write(&path, bytes).expect("written");
            assert_eq!(load(&path).expect("valid").values["a"], expected);
        }
    }
}
