//! Slowest pace at which a peer may send or receive.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::Limits;

/// Time that a peer may still keep this daemon waiting. Waiting uses it up, and bytes restore it, so
/// that neither a peer that stops nor one that sends a byte now and then holds anything for long.
#[derive(Debug)]
pub(crate) struct Pace {
    stall: Duration,
    bytes_per_sec: u32,
    left: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(crate) fn new(limits: Limits) -> Self {
        let Limits { stall, bytes_per_sec, .. } = limits;
        Self { stall, bytes_per_sec, left: stall, waiting_since: None, timer: None }
    }

    /// Records that `n` bytes were received or sent.
    pub(crate) fn record(&mut self, n: usize) {
        let waited = self.waiting_since.take().map(|since| since.elapsed()).unwrap_or_default();
        let restored = Duration::from_secs_f64(n as f64 / f64::from(self.bytes_per_sec));
        self.left = self.left.saturating_sub(waited).saturating_add(restored).min(self.stall);
    }

    /// Waits on the peer. Ready when the peer has kept this daemon waiting for too long.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        poll_at(&mut self.timer, since + self.left, cx)
    }
}

/// Polls a timer that is set to `deadline`.
pub(crate) fn poll_at(
    timer: &mut Option<Pin<Box<Sleep>>>,
    deadline: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.as_mut().poll(cx)
}
