//! The latest value of something, for any number of readers.
//!
//! tokio's channel of the same name, but that readers are woken in the order in which they
//! began to wait. tokio wakes them in a random order, from a generator that cannot be seeded,
//! so a simulated run would be another one each time.

use std::{pin::pin, sync::Arc};

pub use tokio::sync::watch::{Ref, error::RecvError};

use tokio::sync::{Notify, watch};

/// A channel that holds `value` at first.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

/// Gives the value. The channel is closed when the last clone is dropped.
#[derive(Debug)]
pub struct Sender<T> {
    value: watch::Sender<T>,
    // Dropped after `value`, so that who is woken by it finds the channel closed.
    news: WakeOnDrop,
}

/// Reads the value and waits for another one. Clones have seen what it has seen.
#[derive(Debug, Clone)]
pub struct Receiver<T> {
    value: watch::Receiver<T>,
    news: Arc<Notify>,
}

#[derive(Debug)]
struct WakeOnDrop(Arc<Notify>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), news: WakeOnDrop(Arc::clone(&self.news.0)) }
    }
}

impl<T> Sender<T> {
    /// A channel without a reader yet.
    pub fn new(value: T) -> Self {
        Self { value: watch::Sender::new(value), news: WakeOnDrop(Arc::default()) }
    }

    /// A reader that has seen the value of now.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { value: self.value.subscribe(), news: Arc::clone(&self.news.0) }
    }

    /// Gives another value, whether anyone reads it or not; answers the one before.
    pub fn send_replace(&self, value: T) -> T {
        let before = self.value.send_replace(value);
        self.news.0.notify_waiters();
        before
    }

    /// Changes the value in place, and readers hear of it.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.value.send_modify(modify);
        self.news.0.notify_waiters();
    }

    /// Changes the value in place; readers hear of it if `modify` says that it is another
    /// one, which is also the answer.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let is_modified = self.value.send_if_modified(modify);
        if is_modified {
            self.news.0.notify_waiters();
        }
        is_modified
    }

    /// The value. Held for as short as a lock: the channel stands still meanwhile.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.value.borrow()
    }
}

impl<T> Receiver<T> {
    /// The value. Held for as short as a lock: the channel stands still meanwhile.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.value.borrow()
    }

    /// The value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.value.borrow_and_update()
    }

    /// Waits for a value that was not seen, and takes it as seen.
    ///
    /// # Errors
    /// When the channel is closed and its last value was seen.
    ///
    /// # Cancellation safety
    /// Safe: a value counts as seen only when this returns.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let mut news = pin!(self.news.notified());
            // In the queue before the look, so that nothing falls between the two.
            news.as_mut().enable();
            match self.value.has_changed() {
                Ok(false) => news.await,
                // Does not wait; it knows an unseen last value from a closed channel.
                Ok(true) | Err(_) => return self.value.changed().await,
            }
        }
    }

    /// Waits until the value is as `is_wanted` says.
    ///
    /// # Errors
    /// When the channel is closed before.
    ///
    /// # Cancellation safety
    /// Safe: it only waits.
    pub async fn wait_for(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Result<(), RecvError> {
        while !is_wanted(&self.value.borrow_and_update()) {
            self.changed().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::*;
    use crate::daemon::tasks::{Ending, Tasks};

    #[tokio::test]
    async fn readers_are_woken_in_the_order_of_their_waiting() {
        // Enough readers and rounds that tokio's own channel fails this every time.
        for _ in 0..20 {
            let (sender, receiver) = channel(0);
            let (woken, tasks) = (Arc::new(Mutex::new(Vec::new())), Tasks::default());
            for n in 0..16 {
                let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
                tasks.start("reader", Ending::Normal, async move {
                    receiver.changed().await.expect("open");
                    woken.lock().expect("no panic").push(n);
                });
            }
            tokio::task::yield_now().await;
            sender.send_replace(1);
            tokio::task::yield_now().await;
            assert_eq!(*woken.lock().expect("no panic"), (0..16).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_value_is_heard_once_and_the_last_one_also_after_the_end() {
        let (sender, mut receiver) = channel(0);
        sender.send_replace(1);
        receiver.changed().await.expect("another value");
        let again = tokio::time::timeout(Duration::from_millis(10), receiver.changed()).await;
        assert!(again.is_err(), "heard twice");
        assert!(!sender.send_if_modified(|_| false));
        assert!(sender.send_if_modified(|value| std::mem::replace(value, 2) == 1));
        let clone = sender.clone();
        drop(sender);
        receiver.wait_for(|value| *value == 2).await.expect("reached");
        clone.send_replace(3);
        drop(clone);
        receiver.changed().await.expect("the last value was not seen");
        assert_eq!(*receiver.borrow(), 3);
        receiver.changed().await.expect_err("closed");
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_end() {
        let (sender, mut receiver) = channel(0);
        let tasks = Tasks::default();
        tasks.start("sender", Ending::Normal, async move {
            tokio::task::yield_now().await;
            drop(sender);
        });
        receiver.wait_for(|value| *value == 1).await.expect_err("closed");
    }
}
