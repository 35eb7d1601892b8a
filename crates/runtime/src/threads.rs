//! Threads for work that blocks for as long as it likes. Threads are started here and nowhere else.

use std::{io, thread};

use tokio::sync::oneshot;

/// Longest name of a thread that Linux shows.
const NAME_BYTES_MAX: usize = 15;

/// Starts a thread that does `work`. Returns where its result arrives; nothing arrives if it panics.
///
/// The thread cannot be ended from outside: it ends with its work, or with the process.
///
/// # Errors
/// If the system has no more threads.
pub fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (result, arrives) = oneshot::channel();
    let shown: String = name.chars().filter(char::is_ascii).take(NAME_BYTES_MAX).collect();
    thread::Builder::new().name(shown).spawn(move || {
        // Nobody may wait for it any more.
        let _nobody_waits = result.send(work());
    })?;
    Ok(arrives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn result_arrives_and_a_panic_is_seen_as_its_absence() {
        assert_eq!(start("adds", || 1 + 1).expect("started").await, Ok(2));
        assert!(start("ends", || panic!("on purpose")).expect("started").await.map(|(): ()| ()).is_err());
    }
}
