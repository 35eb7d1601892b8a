//! Failures that are retried: one log line when they begin, and one when they are over.

use std::time::Duration;

use tokio::time::Instant;

/// State of something that is retried until it works again.
///
/// The caller logs the first failure of an outage ([`Outage::begins`]) and its end
/// ([`Outage::ends`]), so that a log which says that something was lost also says that it is back,
/// and an outage of hours does not fill the log.
#[derive(Debug, Default)]
pub struct Outage {
    began: Option<Instant>,
}

impl Outage {
    /// Notes a failure. Returns true if it is the first of an outage.
    pub fn begins(&mut self) -> bool {
        let is_first = self.began.is_none();
        self.began.get_or_insert_with(Instant::now);
        is_first
    }

    /// Notes a success. Returns the duration of the outage that it ends, if there was one.
    pub fn ends(&mut self) -> Option<Duration> {
        self.began.take().map(|began| began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_begins_and_ends_once() {
        let mut outage = Outage::default();
        assert_eq!(outage.ends(), None, "nothing has failed");
        assert!(outage.begins());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!outage.begins(), "the second failure of one outage");
        assert_eq!(outage.ends(), Some(Duration::from_secs(3)));
        assert_eq!(outage.ends(), None);
        assert!(outage.begins(), "another outage");
    }
}
