//! Work that blocks: files, mostly.

/// Runs `work` where it holds up nobody else, and answers what it answers.
///
/// # Panics
/// When `work` does.
///
/// # Cancellation safety
/// When dropped, work that was begun goes on to its end.
pub async fn run<T, F>(work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    #[cfg(any(test, feature = "test-support"))]
    if inline::is_on() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        // The runtime ends: nobody is left who could be answered.
        Err(ended) if ended.is_cancelled() => std::future::pending().await,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(any(test, feature = "test-support"))]
pub use inline::run_inline;

/// The simulation's switch: threads of a pool would finish at moments of real time, and no
/// run would be like another.
#[cfg(any(test, feature = "test-support"))]
mod inline {
    use std::cell::Cell;

    thread_local! {
        static INLINE: Cell<bool> = const { Cell::new(false) };
    }

    /// From now on, whatever this thread is asked to [`super::run`] it does itself, at once.
    pub fn run_inline() {
        INLINE.set(true);
    }

    pub(super) fn is_on() -> bool {
        INLINE.get()
    }
}
