//! Suggestions for misspelt words.

/// Maximum suggestions for one document; an author corrects some, and then checks again.
pub const MAX_SUGGESTED: usize = 32;

/// Maximum pairs of letters that are compared for the suggestions for one document: some tens of
/// milliseconds of work, whatever the document contains.
const MAX_LETTER_PAIRS: usize = 10_000_000;

/// A longer list of known words is not useful in an error message.
const MAX_LISTED: usize = 12;

/// Suggestions for one document, bounded in number and in work. At a bound there are none any more:
/// a suggestion is a courtesy.
#[derive(Debug)]
pub struct Suggestions {
    words_left: usize,
    letter_pairs_left: usize,
}

impl Default for Suggestions {
    fn default() -> Self {
        Self { words_left: MAX_SUGGESTED, letter_pairs_left: MAX_LETTER_PAIRS }
    }
}

impl Suggestions {
    /// As [`nearest`]. Returns nothing once the bounds are reached.
    pub fn nearest<'a>(&mut self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        self.words_left = self.words_left.checked_sub(1)?;
        let n_letters = word.chars().count();
        let limit = (n_letters / 3).clamp(1, 3);
        let word = word.to_lowercase();
        let mut best = None;
        for candidate in known {
            // The distance is at least the difference of the lengths. A word may be a whole file of
            // somebody else, and the cost of the distance is the product of both lengths.
            let n_candidate = candidate.chars().count();
            if n_candidate.abs_diff(n_letters) > limit {
                continue;
            }
            let n_pairs = n_letters.max(1).saturating_mul(n_candidate.max(1));
            let Some(left) = self.letter_pairs_left.checked_sub(n_pairs) else {
                self.words_left = 0;
                return None;
            };
            self.letter_pairs_left = left;
            let distance = strsim::osa_distance(&word, &candidate.to_lowercase());
            let is_nearer = best.is_none_or(|best| (distance, candidate) < best);
            if distance <= limit && is_nearer {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }

    /// As [`hint`]. Returns nothing once the bounds are reached.
    pub fn hint<'a>(&mut self, word: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
        if self.words_left == 0 {
            return None;
        }
        if let Some(near) = self.nearest(word, known.clone()) {
            return Some(format!("did you mean `{near}`?"));
        }
        let listed: Vec<&str> = known.take(MAX_LISTED + 1).collect();
        match listed.len() {
            0 => None,
            n if n > MAX_LISTED => None,
            _ => Some(format!("one of: {}", listed.join(", "))),
        }
    }
}

/// Returns the word of `known` that is nearest to `word`, if it is near enough to be meant: at
/// most a third of its letters, and at most three, are missing, surplus, wrong, or swapped with
/// the next letter.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    Suggestions::default().nearest(word, known)
}

/// Returns a hint that names the nearest known word, or else lists all of them if they are few.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    Suggestions::default().hint(word, known.iter().copied())
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
    fn suggestions_of_a_document_end_at_their_bounds() {
        let mut suggestions = Suggestions::default();
        for n in 0..MAX_SUGGESTED {
            assert_eq!(suggestions.nearest("comand", ["command"]), Some("command"), "{n}");
        }
        assert_eq!(suggestions.nearest("comand", ["command"]), None);
        assert_eq!(suggestions.hint("comand", ["command"].into_iter()), None);

        let mut suggestions = Suggestions::default();
        let long = "x".repeat(4000);
        assert_eq!(suggestions.nearest(&long, [long.as_str()]), None, "16 million pairs of letters");
        assert_eq!(suggestions.hint("comand", ["command"].into_iter()), None);
    }

    #[test]
    fn hint_names_the_nearest_word_or_lists_all_known_words() {
        assert_eq!(hint("splti", ["split", "count"]).as_deref(), Some("did you mean `split`?"));
        assert_eq!(hint("zzz", ["split", "count"]).as_deref(), Some("one of: split, count"));
        assert_eq!(hint("zzz", []), None);
    }
}
