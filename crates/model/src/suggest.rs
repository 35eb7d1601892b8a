//! Suggestions for misspelt words.

/// Returns the word of `known` that is nearest to `word`, if it is near enough to be meant: at
/// most a third of its letters, and at most three, are missing, surplus, wrong, or swapped with
/// the next letter.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    let word = word.to_lowercase();
    let n_letters = word.chars().count();
    known
        .into_iter()
        .map(|candidate| (candidate.to_lowercase(), candidate))
        // The distance is at least the difference of the lengths. A word may be a whole file of
        // somebody else, and the cost of the distance is the product of both lengths.
        .filter(|(lower, _)| lower.chars().count().abs_diff(n_letters) <= limit)
        .map(|(lower, candidate)| (strsim::osa_distance(&word, &lower), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns a hint that names the nearest known word, or else lists all of them if they are few.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    /// A longer list is not useful in an error message.
    const MAX_LISTED: usize = 12;
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if known.is_empty() || known.len() > MAX_LISTED => None,
        None => Some(format!("one of: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_tolerates_typing_errors() {
        let known = ["parallelism", "command", "output", "config"];
        let check = |word, expected| assert_eq!(nearest(word, known), expected, "{word}");
        check("paralelism", Some("parallelism"));
        check("comand", Some("command"));
        check("cofnig", Some("config"));
        check("Output", Some("output"));
        check("colour", None);
        check("", None);
    }

    #[test]
    fn long_word_is_not_compared_letter_by_letter() {
        // With all letters compared, this takes minutes.
        let known: Vec<String> = (0..100).map(|n| format!("supervisor.worker.timeout.secs.{n}")).collect();
        assert_eq!(nearest(&"x".repeat(4 << 20), known.iter().map(String::as_str)), None);
    }

    #[test]
    fn hint_names_the_nearest_word_or_lists_all_known_words() {
        assert_eq!(hint("splti", ["split", "count"]).as_deref(), Some("did you mean `split`?"));
        assert_eq!(hint("zzz", ["split", "count"]).as_deref(), Some("one of: split, count"));
        assert_eq!(hint("zzz", []), None);
    }
}
