//! Spelling of users' names in the letters that Prometheus accepts in names: one-to-one, so that two
//! metrics never share a family.
//!
//! ```text
//!  name        spelled           read from the left, `_x` begins the code point of a character in
//!  read_lines  read_lines        hexadecimal digits, up to the next `_`; the `_` of a name that is
//!  read.lines  read_x2e_lines    followed by an x is spelled too
//!  a_x         a_x5f_x
//! ```

use std::fmt::Write as _;

/// Spells a name.
pub fn spell(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len() + 8);
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        let is_begin = c == '_' && rest.peek() == Some(&'x');
        match c.is_ascii_alphanumeric() || c == '_' && !is_begin {
            true => spelled.push(c),
            // Writing to a string cannot fail.
            false => _ = write!(spelled, "_x{:x}_", u32::from(c)),
        }
    }
    spelled
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a spelled name; written from the documentation.
    fn read(spelled: &str) -> Option<String> {
        let (mut name, mut rest) = (String::new(), spelled);
        while let Some(c) = rest.chars().next() {
            match rest.strip_prefix("_x") {
                Some(after) => {
                    let (digits, after) = after.split_once('_')?;
                    name.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                    rest = after;
                }
                None => {
                    name.push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        Some(name)
    }

    #[test]
    fn characters_that_names_lack_are_spelled_one_by_one() {
        let check = |name, expected| assert_eq!(spell(name), expected, "{name}");
        check("read_lines", "read_lines");
        check("read.lines", "read_x2e_lines");
        check("a_x", "a_x5f_x");
        check("__x2e_", "__x5f_x2e_");
        check("größe", "gr_xf6__xdf_e");
        check("9a:b", "9a_x3a_b");
    }

    proptest! {
        #[test]
        fn every_name_can_be_read_back(name in "\\PC{0,20}|[_x.a-f0-9]{0,12}") {
            let spelled = spell(&name);
            prop_assert!(spelled.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{spelled}");
            prop_assert_eq!(read(&spelled), Some(name));
        }
    }
}
