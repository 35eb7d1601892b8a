//! Spelling of names in the letters that OpenTSDB accepts: one-to-one, so that two names never share
//! a series.
//!
//! ```text
//!  text    spelled       read from the left, a `/` begins the code point of one letter in
//!  a-b.c   a-b.c         hexadecimal digits, up to the next `/`; `//` is the empty text
//!  a b     a/20/b
//!  a/b     a/2f/b
//!          //
//! ```

use std::fmt::Write as _;

/// Begin and end of the code point of a letter.
const MARK: char = '/';

/// Letters beyond ASCII that every version of OpenTSDB accepts: it examines 16 bits at a time with
/// the letters of its Java version. Rust's `is_alphabetic` alone also accepts marks and numerals,
/// which Java does not.
const LETTERS: &[(char, char)] = &[
    ('\u{c0}', '\u{2af}'),
    ('\u{386}', '\u{4f9}'),
    ('\u{531}', '\u{556}'),
    ('\u{561}', '\u{587}'),
    ('\u{5d0}', '\u{5ea}'),
    ('\u{621}', '\u{64a}'),
    ('\u{1e00}', '\u{1ffc}'),
    ('\u{3041}', '\u{3096}'),
    ('\u{30a1}', '\u{30fa}'),
    ('\u{3400}', '\u{4db5}'),
    ('\u{4e00}', '\u{9fa5}'),
    ('\u{ac00}', '\u{d7a3}'),
];

/// Spells a tag, its key or a prefix.
pub(super) fn spell(text: &str) -> String {
    spell_except(text, |_, _| false)
}

/// Spells a group of metrics. Its dots are spelled too: a dot ends the group.
pub(super) fn spell_group(group: &str) -> String {
    spell_except(group, |_, c| c == '.')
}

/// Spells the last part of a name. If it ends like one of the `numbers` of a point, its last dot is
/// spelled: `took.p99` must differ from the number `p99` of `took`.
pub(super) fn spell_name(name: &str, numbers: &[&str]) -> String {
    let suffix = name.rsplit_once('.').filter(|(_, end)| numbers.contains(end));
    let last_dot = suffix.map(|(begin, _)| begin.len());
    spell_except(name, |at, _| Some(at) == last_dot)
}

fn spell_except(text: &str, is_spelled: impl Fn(usize, char) -> bool) -> String {
    if text.is_empty() {
        return "//".to_owned();
    }
    let mut spelled = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match accepts(c) && !is_spelled(at, c) {
            true => spelled.push(c),
            // Writing to a string cannot fail.
            false => drop(write!(spelled, "{MARK}{:x}{MARK}", u32::from(c))),
        }
    }
    spelled
}

/// Returns whether the letter stands for itself.
fn accepts(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'),
        false => {
            c.is_alphabetic()
                && !c.is_numeric()
                && LETTERS.iter().any(|(first, last)| (*first..=*last).contains(&c))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a spelled text; written from the documentation.
    pub(in super::super) fn read(spelled: &str) -> Option<String> {
        if spelled == "//" {
            return Some(String::new());
        }
        let mut text = String::new();
        for (n, part) in spelled.split('/').enumerate() {
            match n % 2 {
                0 => text.push_str(part),
                _ => text.push(char::from_u32(u32::from_str_radix(part, 16).ok()?)?),
            }
        }
        spelled.matches('/').count().is_multiple_of(2).then_some(text)
    }

    #[test]
    fn letters_that_the_store_lacks_are_spelled_one_by_one() {
        let check = |text, expected| assert_eq!(spell(text), expected, "{text}");
        check("a-b_c.d9", "a-b_c.d9");
        check("a/b", "a/2f/b");
        check("a b@c:d", "a/20/b/40/c/3a/d");
        check("größe 長", "größe/20/長");
        check("𝒳", "/1d4b3/");
        // Letters for Rust, and not for Java.
        check("Ⅷ", "/2167/");
        check("\u{5b0}", "/5b0/");
        check("ⓐ", "/24d0/");
        check("", "//");
    }

    #[test]
    fn name_that_ends_like_a_number_differs_from_the_number() {
        assert_eq!(spell_name("took.p99", &["p99"]), "took/2e/p99");
        assert_eq!(spell_name("a.took.p98", &["p99"]), "a.took.p98");
        assert_eq!(spell_group("a.b"), "a/2e/b");
    }

    proptest! {
        #[test]
        fn every_text_can_be_read_back(text in "\\PC{0,20}|[/a-f0-9 .]{0,12}", end in "(\\.p99|\\.max|)") {
            let name = format!("{text}{end}");
            prop_assert_eq!(read(&spell(&text)), Some(text.clone()));
            prop_assert_eq!(read(&spell_group(&text)), Some(text));
            prop_assert_eq!(read(&spell_name(&name, &["p99", "max"])), Some(name));
        }
    }
}
