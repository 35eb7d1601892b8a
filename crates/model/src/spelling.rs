//! Names that people can read and tell from one another (Unicode Technical Standard 39).
//!
//! A name stands in tables, in paths and in commands. One with characters that nobody sees, with letters of
//! two alphabets that look alike, or wholly in letters that look like Latin ones could be taken for another
//! one, and so could one whose accents are written as characters of their own. Names in ASCII alone are not
//! concerned, nor are those in the letters of one other script that is not Latin's double.

use unicode_normalization::is_nfc;
use unicode_script::{Script, UnicodeScript as _};
use unicode_security::{
    GeneralSecurityProfile as _, RestrictionLevel, RestrictionLevelDetection as _,
    confusable_detection::skeleton, general_security_profile::IdentifierType,
};

/// Blocks of the accents that are characters of their own.
const ACCENTS: [std::ops::RangeInclusive<char>; 5] = [
    '\u{300}'..='\u{36f}',
    '\u{1ab0}'..='\u{1aff}',
    '\u{1dc0}'..='\u{1dff}',
    '\u{20d0}'..='\u{20ff}',
    '\u{fe20}'..='\u{fe2f}',
];

/// Returns why a name could be taken for another one, if it could.
pub fn misleading(name: &str) -> Option<String> {
    // Punctuation of ASCII is no part of the standard's identifiers, and looks like nothing else.
    let letters: String = name.chars().filter(|c| !c.is_ascii() || c.is_ascii_alphanumeric()).collect();
    if letters.is_ascii() {
        return None;
    }
    // The standard also allows some punctuation, such as a hyphen that is not the one of ASCII.
    let is_letter =
        |c: &char| c.identifier_allowed() && c.identifier_type() != Some(IdentifierType::Inclusion);
    if let Some(c) = letters.chars().find(|c| !is_letter(c)) {
        return Some(format!(
            "it contains U+{:04X}, which is invisible, or no letter that is in use",
            u32::from(c)
        ));
    }
    if !is_nfc(name) {
        return Some(
            "some of its letters are not written as one character, where there is one (Unicode's form NFC)"
                .to_owned(),
        );
    }
    if let Some(c) = letters.chars().find(|c| ACCENTS.iter().any(|block| block.contains(c))) {
        return Some(format!(
            "it contains U+{:04X}, an accent that is a character of its own and may not be seen",
            u32::from(c)
        ));
    }
    if !letters.as_str().check_restriction_level(RestrictionLevel::ModeratelyRestrictive) {
        return Some("it mixes letters of scripts that look alike, such as Latin and Cyrillic".to_owned());
    }
    looks_latin(&letters)
}

/// Returns what looks Latin in a name, and is not: a letter beside Latin ones, or all of them.
fn looks_latin(letters: &str) -> Option<String> {
    let is_double = |c: char| skeleton(c.encode_utf8(&mut [0; 4])).all(|c| c.is_ascii());
    let foreign = || letters.chars().filter(|c| !c.is_ascii() && c.script() != Script::Latin);
    let has_latin = letters.chars().any(|c| c.script() == Script::Latin);
    match has_latin {
        true => foreign().find(|c| is_double(*c)).map(|c| {
            format!("it contains U+{:04X}, which looks like a Latin letter, beside Latin ones", u32::from(c))
        }),
        false => (foreign().next().is_some() && foreign().all(is_double)).then(|| {
            let double: String = skeleton(letters).collect();
            format!("all of its letters look like Latin ones, as in {double:?}")
        }),
    }
}

/// Returns whether two different names look the same to a reader. Names in ASCII alone do not: whoever uses
/// `l1` and `ll` does so on purpose.
pub fn look_alike(one: &str, other: &str) -> bool {
    (!one.is_ascii() || !other.is_ascii()) && one != other && appearance(one) == appearance(other)
}

/// Returns a form that is the same for names that look the same. Nobody else may see it: it is no name.
pub fn appearance(name: &str) -> String {
    skeleton(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_script_and_of_latin_with_another_that_looks_different_are_clear() {
        for name in [
            "word-count",
            "a.b_c+d",
            "größe",
            "tâche-2",
            "счёт",
            "λόγος",
            "订单",
            "订单-orders",
            "テスト",
            "주문",
        ] {
            assert_eq!(misleading(name), None, "{name}");
        }
    }

    #[test]
    fn invisible_characters_and_scripts_that_look_alike_are_named() {
        for (name, expected) in [
            ("word\u{200b}count", "U+200B"),
            ("word\u{ad}count", "U+00AD"),
            ("\u{202e}tnuoc", "U+202E"),
            ("a\u{2066}b", "U+2066"),
            ("a\u{fe0f}", "U+FE0F"),
            ("a\u{feff}", "U+FEFF"),
            ("Ａｄｓ", "U+FF21"),
            ("word‐count", "U+2010"),
            ("\u{430}pple", "look alike"),
            ("ord\u{3b5}rs", "look alike"),
            // é as e with an accent, and an accent for which there is no such letter.
            ("cafe\u{301}", "NFC"),
            ("wor\u{301}d\u{301}", "NFC"),
            ("word\u{301}", "U+0301"),
            ("no\u{e9}\u{301}", "U+0301"),
            ("счёт\u{20dd}", "U+20DD"),
            // Cyrillic, Armenian and Greek letters only.
            ("раура", "as in \"paypa\""),
            ("рау-1", "as in"),
            ("\u{585}\u{585}", "as in \"oo\""),
            ("ορο", "as in \"opo\""),
            // Armenian between Latin letters.
            ("\u{585}rders", "U+0585"),
        ] {
            let reason = misleading(name).unwrap_or_default();
            assert!(reason.contains(expected), "{name:?}: {reason}");
        }
    }

    #[test]
    fn names_that_look_the_same_are_found_and_others_in_one_alphabet_are_not() {
        for (one, other) in [("größe", "grö\u{3b2}e"), ("ооо-э", "οοο-э"), ("sæson", "saeson")] {
            assert!(look_alike(one, other), "{one} {other}");
            assert!(!look_alike(one, one), "{one}");
        }
        for (one, other) in [("l1", "ll"), ("größe", "grosse"), ("счёт", "счет"), ("订单", "订单2")]
        {
            assert!(!look_alike(one, other), "{one} {other}");
        }
    }
}
