//! Names that people can read and tell from one another (Unicode Technical Standard 39).
//!
//! A name stands in tables, in paths and in commands. One with characters that nobody sees, or with letters
//! of two alphabets that look alike, could be taken for another one. Names in Latin letters alone are not
//! concerned, nor are those in the letters of one other script.

use unicode_security::{
    GeneralSecurityProfile as _, RestrictionLevel, RestrictionLevelDetection as _,
    general_security_profile::IdentifierType,
};

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
    let is_clear = letters.as_str().check_restriction_level(RestrictionLevel::ModeratelyRestrictive);
    (!is_clear).then(|| "it mixes letters of scripts that look alike, such as Latin and Cyrillic".to_owned())
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
        ] {
            let reason = misleading(name).unwrap_or_default();
            assert!(reason.contains(expected), "{name:?}: {reason}");
        }
    }
}
