//! Texts of limited length.

use std::borrow::Cow;

/// Stands for what was cut out.
const MORE: &str = "…";

/// Returns at most `max` bytes of `text`, with `…` for what is cut out. Two thirds are of its
/// beginning and the rest of its end: an error ends with its cause and what to do.
pub fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return text.into();
    }
    let kept = max.saturating_sub(MORE.len());
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    let head = (0..=kept * 2 / 3).rev().find(is_boundary).unwrap_or(0);
    let tail = (text.len() - (kept - head)..=text.len()).find(is_boundary).unwrap_or(text.len());
    [&text[..head], MORE, &text[tail..]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept_within_the_limit() {
        assert_eq!(shortened("cannot start a; raise b", 23), "cannot start a; raise b");
        assert_eq!(shortened("cannot start a; raise b", 18), "cannot sta…ise b");
        let long = "é".repeat(500);
        for max in 3..100 {
            let short = shortened(&long, max);
            assert!(short.len() <= max && short.len() + 4 > max, "{max}: {short}");
            assert_eq!(short.matches(MORE).count(), 1);
        }
    }
}
