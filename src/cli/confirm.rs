//! Question at a terminal before something is removed.

use std::io::{self, BufRead, IsTerminal as _, Write};

use crate::cli::error::Failure;

/// Asks the person at the terminal, if there is one and `yes` is not given already. The question ends
/// with `?`.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    confirm_with(yes || !is_terminal(), question, &mut io::stdin().lock(), &mut io::stderr())
}

/// Whether a person can be asked.
pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

fn confirm_with(
    needs_no_answer: bool,
    question: &str,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> Result<(), Failure> {
    if needs_no_answer {
        return Ok(());
    }
    let asked = write!(output, "{question} [y/N] ").and_then(|()| output.flush());
    let mut answer = String::new();
    let is_confirmed =
        asked.is_ok() && input.read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes");
    match is_confirmed {
        true => Ok(()),
        false => Err(Failure::usage("not confirmed: nothing was changed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_confirms_and_no_question_is_asked_if_no_answer_is_needed() {
        let ask = |needs_no_answer, answer: &str| {
            let mut shown = Vec::new();
            let confirmed = confirm_with(needs_no_answer, "Remove it?", &mut answer.as_bytes(), &mut shown);
            (confirmed.is_ok(), String::from_utf8(shown).expect("text"))
        };
        for yes in ["y\n", "yes\n", " Y \n"] {
            assert_eq!(ask(false, yes), (true, "Remove it? [y/N] ".to_owned()), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yess\n", "no\ny\n"] {
            assert_eq!(ask(false, no), (false, "Remove it? [y/N] ".to_owned()), "{no:?}");
        }
        assert_eq!(ask(true, ""), (true, String::new()));
    }
}
