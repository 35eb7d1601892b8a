//! Documents that are generated from the code.

use std::{env, fs, path::Path};

/// Compares the part of the file `name` (relative to the root of the checkout) between the markers
/// `<!-- generated: KEY -->` and `<!-- end -->` with `text`. With `UPDATE=1` it replaces the part
/// instead.
///
/// # Panics
/// If the file has no such part, or the part differs from `text`.
#[expect(clippy::disallowed_methods, reason = "a test's switch, set by scripts/fix")]
pub fn assert_generated(name: &str, key: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    let whole = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {name}: {error}"));
    let begin = format!("<!-- generated: {key} -->\n");
    let start = whole.find(&begin).unwrap_or_else(|| panic!("{name} has no line {begin}")) + begin.len();
    let end =
        start + whole[start..].find("<!-- end -->").unwrap_or_else(|| panic!("{name}: {key} has no end"));
    if whole[start..end] == *text {
        return;
    }
    assert!(
        env::var("UPDATE").is_ok_and(|update| update == "1"),
        "{name} is stale: run scripts/fix. Expected after {begin}{text}"
    );
    let renewed = format!("{}{text}{}", &whole[..start], &whole[end..]);
    fs::write(&path, renewed).unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
}
