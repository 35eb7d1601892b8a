//! Threads for work that blocks for as long as it likes. Threads are started here and nowhere else.

use std::{
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use tokio::{runtime::Handle, sync::oneshot, task::coop::unconstrained};

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

/// Wakes a thread that waits in [`block_on`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for `future` on the calling thread, with the timers of `runtime`. In contrast to tokio's function of
/// that name, the thread may be in another runtime: a component may emit within one of its own.
pub fn block_on<F: Future>(runtime: &Handle, future: F) -> F::Output {
    let _timers = runtime.enter();
    let mut future = pin!(unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // A wake-up since the poll makes it return at once.
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn future_is_waited_for_within_another_runtime() {
        let outer = Handle::current();
        let waits = move || {
            let own =
                tokio::runtime::Builder::new_current_thread().build().expect("a runtime without timers");
            own.block_on(async {
                block_on(&outer, async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    7
                })
            })
        };
        assert_eq!(start("waits", waits).expect("started").await, Ok(7));
    }

    #[tokio::test]
    async fn result_arrives_and_a_panic_is_seen_as_its_absence() {
        assert_eq!(start("adds", || 1 + 1).expect("started").await, Ok(2));
        assert!(start("ends", || panic!("on purpose")).expect("started").await.map(|(): ()| ()).is_err());
    }
}
