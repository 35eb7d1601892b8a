//! Closing of minutes: a minute is queued for export some time after its end.

use std::time::Duration;

use tracing::{debug, info};

use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::Minute;
use stormkeeper_model::{Term, Timestamp, clock::Clock};
use stormkeeper_runtime::outage::Outage;

/// Minimum wait: a wait that ends a moment too early, as clocks are not exact, must not become a
/// busy loop.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Closes each minute `delay` after its end. No wait is longer than `clock_check`, as the clock may
/// be set.
pub(crate) async fn close_minutes(
    (store, term): (MetricStore, Term),
    clock: Clock,
    delay: Duration,
    clock_check: Duration,
) {
    let (mut closed, mut outage) = (None, Outage::default());
    loop {
        let (due, next) = due(clock.now(), delay);
        let wait = match due {
            Some(through) if closed != Some(through) => match store.close_minutes(term, through).await {
                Ok(n) => {
                    match outage.ends() {
                        Some(lasted) => info!(%term, minute = %through, ?lasted, "closed minutes again"),
                        None => debug!(%term, minute = %through, n, "closed minutes"),
                    }
                    closed = Some(through);
                    next.since(clock.now())
                }
                Err(error) => {
                    if outage.begins() {
                        info!(%term, minute = %through, %error, "could not close a minute; retrying");
                    }
                    RETRY
                }
            },
            Some(_) | None => next.since(clock.now()),
        };
        tokio::time::sleep(wait.clamp(WAIT_MIN, clock_check)).await;
    }
}

/// Returns the last minute that is due for closing, and the time at which the next one is due.
fn due(now: Timestamp, delay: Duration) -> (Option<Minute>, Timestamp) {
    let delay_millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    let before = Timestamp::from_millis(now.as_millis().saturating_sub(delay_millis));
    let open = Minute::of(before);
    let through = (open.0 > 0).then(|| open.minus(1));
    (through, open.end().plus(delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minute_is_due_after_its_end_and_the_delay() {
        let at = |secs: u64| Timestamp::from_millis(secs * 1000);
        let delay = Duration::from_secs(20);
        assert_eq!(due(at(10), delay), (None, at(80)));
        assert_eq!(due(at(79), delay), (None, at(80)));
        assert_eq!(due(at(80), delay), (Some(Minute(0)), at(140)));
        assert_eq!(due(at(139), delay), (Some(Minute(0)), at(140)));
        assert_eq!(due(at(140), delay), (Some(Minute(1)), at(200)));
        assert_eq!(due(at(600), Duration::ZERO), (Some(Minute(9)), at(660)));
    }
}
