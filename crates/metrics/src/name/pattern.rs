//! Patterns for the last part of a metric's name.

/// Returns whether `pattern` matches the whole of `text`: `*` matches any characters, also none,
/// and `?` matches one. Takes at most the product of their lengths, for every pattern.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The last star, and the end of the text that it covers so far: on a mismatch, it covers one
    // character more.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            Some(_) | None => match &mut star {
                Some((at, end)) => {
                    *end += 1;
                    (p, t) = (*at + 1, *end);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: a star covers nothing, or one character more.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            (['*', rest @ ..], _) => {
                by_definition(rest, text) || (!text.is_empty() && by_definition(pattern, &text[1..]))
            }
            ([c, pattern @ ..], [t, text @ ..]) => (*c == '?' || c == t) && by_definition(pattern, text),
            (_, []) => false,
        }
    }

    proptest! {
        // Two letters, so that wrong partial matches are frequent.
        #[test]
        fn pattern_matches_what_its_definition_matches(pattern in "[aé*?]{0,8}", text in "[aé]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            let expected = by_definition(&chars(&pattern), &chars(&text));
            prop_assert_eq!(matches_pattern(&pattern, &text), expected);
        }
    }

    #[test]
    fn pattern_matches_the_whole_text() {
        fn check(pattern: &str, text: &str, expected: bool) {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
        check("Emitted", "Emitted", true);
        check("Emitted", "EmittedX", false);
        check("E*d", "Emitted", true);
        check("E*d*", "Emitted", true);
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("?", "", false);
        check("??", "µs", true);
        check("*a*b", "xaxxbxb", true);
        check("*a*b", "xaxxbx", false);
        check("R*v?ps", "RecvTps", true);
        check(&"*a".repeat(30), &"a".repeat(200), true);
        check(&format!("{}b", "*a".repeat(30)), &"a".repeat(200), false);
    }
}
