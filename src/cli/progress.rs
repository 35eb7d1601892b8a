//! Line at a terminal that says what a command waits for. In a script nothing is said.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use crate::cli::output;
use stormkeeper_model::{
    clock::{Clock, Monotonic},
    time::format_duration,
};

/// Time between two changes of the line.
const PERIOD: Duration = Duration::from_millis(200);

/// Time before the line appears: a fast command shows none.
const DELAY: Duration = Duration::from_millis(300);

/// Columns of the narrowest terminal on which the line is not wrapped.
const COLUMNS: usize = 79;

/// The line. It is cleared when this is dropped.
pub(super) struct Progress {
    is_terminal: bool,
    clock: Clock,
    began: Monotonic,
    drawn: Option<Monotonic>,
}

impl Progress {
    /// A line on standard error, if that is a terminal.
    pub(super) fn new() -> Self {
        let clock = Clock::new();
        let began = clock.monotonic();
        Self { is_terminal: io::stderr().is_terminal(), clock, began, drawn: None }
    }

    /// Shows what is waited for, if it is time for that.
    pub(super) fn say(&mut self, text: &str) {
        let now = self.clock.monotonic();
        let waited = now.since(self.began);
        let is_due = self.drawn.is_none_or(|drawn| now.since(drawn) >= PERIOD);
        if self.is_terminal && waited >= DELAY && is_due {
            self.drawn = Some(now);
            // Nobody is left to read if standard error is closed.
            let _closed = write!(io::stderr(), "\r\x1b[K{}", line(text, waited));
        }
    }

    /// Waits for `work` and says so.
    pub(super) async fn during<T>(&mut self, text: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(PERIOD, &mut work).await {
                Ok(done) => return done,
                Err(_elapsed) => self.say(text),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _closed = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(text: &str, waited: Duration) -> String {
    let time = format!(" ({})", format_duration(waited));
    let room = COLUMNS - time.len();
    let text = output::one_line(text);
    let shown: String = match text.chars().count() > room {
        true => text.chars().take(room - 1).chain(['…']).collect(),
        false => text.into_owned(),
    };
    shown + &time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_fits_a_terminal_and_has_the_time() {
        assert_eq!(line("3 of 7 tasks run", Duration::from_secs(5)), "3 of 7 tasks run (5s)");
        let long = line(&"x".repeat(200), Duration::from_secs(65));
        assert!(long.chars().count() == COLUMNS && long.ends_with("… (1m 5s)"), "{long}");
        assert!(!line("a\u{1b}[2J\n", Duration::ZERO).contains(['\u{1b}', '\n']));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_drawn_without_a_terminal_and_the_result_is_returned() {
        let mut progress = Progress::new();
        progress.is_terminal = false;
        let work = async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            7
        };
        assert_eq!(progress.during("waiting", work).await, 7);
        assert!(progress.drawn.is_none());
    }
}
