//! Texts for people: of limited length, with numbers.

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

/// Returns at most `max` bytes of a text that its process has logged, and says where the rest is.
pub fn shortened_from_log(text: &str, max: usize) -> Cow<'_, str> {
    shortened_from(text, max, "the log of this process")
}

/// Returns at most `max` bytes of a text, and says that `place` has all of it.
pub fn shortened_from<'a>(text: &'a str, max: usize, place: &str) -> Cow<'a, str> {
    if text.len() <= max {
        return text.into();
    }
    let note = format!(" (cut; {place} has all of it)");
    (shortened(text, max.saturating_sub(note.len())).into_owned() + &note).into()
}

/// Returns a number with its noun: `1 task`, `2 tasks`. The plural of `noun` ends in `s`, or in `ies`
/// for a `y`.
pub fn counted(n: usize, noun: &str) -> String {
    match (n, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        (_, None) => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_form_of_the_noun_that_fits() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "task")), ["0 tasks", "1 task", "2 tasks"]);
        assert_eq!([1, 2].map(|n| counted(n, "topology")), ["1 topology", "2 topologies"]);
    }

    #[test]
    fn text_that_is_cut_says_where_the_rest_is_within_the_limit() {
        assert_eq!(shortened_from_log("cannot start a", 14), "cannot start a");
        let long = format!("cannot read x: {}; run chmod", "é".repeat(300));
        let short = shortened_from_log(&long, 200);
        assert!(short.len() <= 200 && short.starts_with("cannot read x: é"), "{short}");
        assert!(short.ends_with("; run chmod (cut; the log of this process has all of it)"), "{short}");
    }

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
