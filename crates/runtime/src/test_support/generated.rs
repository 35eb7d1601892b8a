//! Documents that are generated from the code.

use std::{env, fs, path::Path};

/// Compares the part of the file `name` (relative to the root of the checkout) between the markers
/// `<!-- generated: KEY -->` and `<!-- end -->` with `text`. With `UPDATE=1` it replaces the part
/// instead.
///
/// # Panics
/// If the file has no such part, or the part differs from `text`.
pub fn assert_generated(name: &str, key: &str, text: &str) {
    assert_generated_form(name, key, text, str::to_owned);
}

/// Compares as [`assert_generated`], but only the `form` of both texts: for text that is another
/// one in each run, such as the output of a command with its times and ids.
///
/// # Panics
/// If the file has no such part, or the form of the part differs from that of `text`.
#[expect(clippy::disallowed_methods, reason = "a test's switch, set by scripts/fix")]
pub fn assert_generated_form(name: &str, key: &str, text: &str, form: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    let whole = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {name}: {error}"));
    let begin = format!("<!-- generated: {key} -->\n");
    let start = whole.find(&begin).unwrap_or_else(|| panic!("{name} has no line {begin}")) + begin.len();
    let end =
        start + whole[start..].find("<!-- end -->").unwrap_or_else(|| panic!("{name}: {key} has no end"));
    let (documented, expected) = (form(&whole[start..end]), form(text));
    if documented == expected {
        return;
    }
    assert!(
        env::var("UPDATE").is_ok_and(|update| update == "1"),
        "{name} is stale: run this test with UPDATE=1 (scripts/fix does so for all unit tests).\nExpected after {begin}{expected}\nFound:\n{documented}"
    );
    let renewed = format!("{}{text}{}", &whole[..start], &whole[end..]);
    fs::write(&path, renewed).unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
}

/// Compares the file `name` (relative to the root of the checkout) with `text`. With `UPDATE=1` it writes the
/// file instead.
///
/// # Panics
/// If the file differs from `text`.
#[expect(clippy::disallowed_methods, reason = "a test's switch, set by scripts/fix")]
pub fn assert_generated_file(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    // A missing file differs.
    let found = fs::read_to_string(&path).unwrap_or_default();
    if found == text {
        return;
    }
    let first = found.lines().zip(text.lines()).position(|(is, expected)| is != expected);
    assert!(
        env::var("UPDATE").is_ok_and(|update| update == "1"),
        "{name} is stale from line {} on: run this test with UPDATE=1 (scripts/fix does so for all unit tests)",
        first.unwrap_or_else(|| found.lines().count().min(text.lines().count())) + 1,
    );
    fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
}
