//! Blocking work, mostly file access.

/// Runs `work` on the pool of blocking threads and returns its result.
///
/// # Panics
/// If `work` panics.
///
/// # Cancellation safety
/// Work that has started runs to its end even if this future is dropped.
pub async fn run<T, F>(work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if is_inline() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is shutting down, so no caller is left to receive a result.
        Err(ended) if ended.is_cancelled() => std::future::pending().await,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Returns whether blocking work of the calling thread is done on that thread, at once. Then no
/// other thread may be used either.
pub fn is_inline() -> bool {
    #[cfg(any(test, feature = "test-support"))]
    let is_on = inline::is_on();
    #[cfg(not(any(test, feature = "test-support")))]
    let is_on = false;
    is_on
}

#[cfg(any(test, feature = "test-support"))]
pub use inline::run_inline;

/// Switch for the simulation: threads of a pool finish at moments of real time, so no simulated
/// run would be reproducible.
#[cfg(any(test, feature = "test-support"))]
mod inline {
    use std::cell::Cell;

    thread_local! {
        static INLINE: Cell<bool> = const { Cell::new(false) };
    }

    /// Makes [`super::run`] do its work on the calling thread, at once, from now on.
    pub fn run_inline() {
        INLINE.set(true);
    }

    pub(super) fn is_on() -> bool {
        INLINE.get()
    }
}
