//! An error with its causes in one line.

use std::error::Error;

/// Maximum number of causes in a chain.
const CAUSES_MAX: usize = 32;

/// Returns `error` and its causes, joined by colons. Log lines and messages to other processes
/// must name the cause: the `Display` of an error does not repeat its source. Of an error with more than
/// 32 causes the others are left out: one of a component may be its own cause.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    for _ in 0..CAUSES_MAX {
        let Some(cause) = source else { break };
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the file")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("round and round")]
    struct Endless;

    #[derive(Debug)]
    struct OwnCause;

    impl std::fmt::Display for OwnCause {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            Endless.fmt(f)
        }
    }

    impl Error for OwnCause {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&Self)
        }
    }

    #[test]
    fn error_that_is_its_own_cause_has_an_end() {
        assert_eq!(error_chain(&OwnCause).matches("round and round").count(), CAUSES_MAX + 1);
    }

    #[test]
    fn causes_follow_their_error() {
        let error = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(error_chain(&error), "cannot read the file: disk on fire");
    }
}
