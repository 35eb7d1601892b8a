//! The intake of a worker: what other workers may still send to it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

/// Switch of the intake, open at first. Clones are the same switch.
#[derive(Debug, Clone)]
pub(crate) struct Intake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    closed: watch::Sender<bool>,
    // Connections that bring tuples.
    n_open: AtomicUsize,
}

impl Default for Intake {
    fn default() -> Self {
        Self(Arc::new(Shared { closed: watch::Sender::new(false), n_open: AtomicUsize::new(0) }))
    }
}

impl Intake {
    /// Closes it for good.
    pub(crate) fn close(&self) {
        self.0.closed.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }

    /// Returns whether it is closed and its senders have closed their connections: nothing arrives any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_closed() && self.0.n_open.load(Ordering::Relaxed) == 0
    }

    /// Resolves when it is closed.
    ///
    /// # Cancellation safety
    /// It only waits.
    pub(super) async fn closed(&self) {
        let mut closed = self.0.closed.subscribe();
        // This switch keeps the sender alive.
        let _closed = closed.wait_for(|closed| *closed).await;
    }

    /// Counts a connection that brings tuples, until the guard is dropped.
    pub(super) fn enter(&self) -> OpenIntake {
        self.0.n_open.fetch_add(1, Ordering::Relaxed);
        OpenIntake(self.clone())
    }
}

/// Guard of a connection that brings tuples.
#[derive(Debug)]
pub(super) struct OpenIntake(Intake);

impl Drop for OpenIntake {
    fn drop(&mut self) {
        self.0.0.n_open.fetch_sub(1, Ordering::Relaxed);
    }
}
