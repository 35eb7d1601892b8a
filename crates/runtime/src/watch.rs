//! Latest value of something, for any number of readers.
//!
//! Same as tokio's channel of that name, except that readers are woken in the order in which they
//! began to wait. tokio wakes readers in a random order, from a generator that cannot be seeded,
//! so that no simulated run would be reproducible.

use std::{pin::pin, sync::Arc};

pub use tokio::sync::watch::{Ref, error::RecvError};

use tokio::sync::{Notify, watch};

/// Creates a channel whose first value is `value`.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

/// Sender of the value. The channel closes when the last clone is dropped.
#[derive(Debug)]
pub struct Sender<T> {
    value: watch::Sender<T>,
    // Dropped after `value`, so that readers woken by the drop find the channel closed.
    wake: WakeOnDrop,
}

/// Reader of the value, which can wait for a change. A clone has seen the same value.
#[derive(Debug, Clone)]
pub struct Receiver<T> {
    value: watch::Receiver<T>,
    wake: Arc<Notify>,
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
        Self { value: self.value.clone(), wake: WakeOnDrop(Arc::clone(&self.wake.0)) }
    }
}

impl<T> Sender<T> {
    /// Creates a channel that has no reader yet.
    pub fn new(value: T) -> Self {
        Self { value: watch::Sender::new(value), wake: WakeOnDrop(Arc::default()) }
    }

    /// Returns a reader that has seen the current value.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { value: self.value.subscribe(), wake: Arc::clone(&self.wake.0) }
    }

    /// Replaces the value, whether or not there are readers, and returns the previous value.
    pub fn send_replace(&self, value: T) -> T {
        let before = self.value.send_replace(value);
        self.wake.0.notify_waiters();
        before
    }

    /// Changes the value in place and notifies the readers.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.value.send_modify(modify);
        self.wake.0.notify_waiters();
    }

    /// Changes the value in place. Notifies the readers if `modify` returns true for "modified",
    /// and returns that result.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let is_modified = self.value.send_if_modified(modify);
        if is_modified {
            self.wake.0.notify_waiters();
        }
        is_modified
    }

    /// Returns the value. Hold the reference only briefly: it locks the channel.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.value.borrow()
    }
}

impl<T> Receiver<T> {
    /// Returns the value. Hold the reference only briefly: it locks the channel.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.value.borrow()
    }

    /// Returns the value and marks it as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.value.borrow_and_update()
    }

    /// Waits for an unseen value and marks it as seen.
    ///
    /// # Errors
    /// If the channel is closed and its last value has been seen.
    ///
    /// # Cancellation safety
    /// Safe: a value is marked as seen only when this returns.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let mut wake = pin!(self.wake.notified());
            // Registered before the check, so that no change between the two is missed.
            wake.as_mut().enable();
            match self.value.has_changed() {
                Ok(false) => wake.await,
                // Returns at once, and distinguishes an unseen last value from a closed channel.
                Ok(true) | Err(_) => return self.value.changed().await,
            }
        }
    }

    /// Waits until `is_wanted` returns true for the value.
    ///
    /// # Errors
    /// If the channel closes first.
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
    use crate::tasks::{OnExit, Tasks};

    #[tokio::test]
    async fn readers_are_woken_in_the_order_in_which_they_began_to_wait() {
        // Enough readers and rounds for tokio's own channel to fail this test every time.
        for _ in 0..20 {
            let (sender, receiver) = channel(0);
            let (woken, tasks) = (Arc::new(Mutex::new(Vec::new())), Tasks::default());
            for n in 0..16 {
                let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
                tasks.start("reader", OnExit::Ignore, async move {
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
    async fn each_value_is_received_once_and_the_last_value_also_after_close() {
        let (sender, mut receiver) = channel(0);
        sender.send_replace(1);
        receiver.changed().await.expect("another value");
        let again = tokio::time::timeout(Duration::from_millis(10), receiver.changed()).await;
        assert!(again.is_err(), "the same value was received twice");
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
    async fn waiting_reader_is_woken_when_the_channel_closes() {
        let (sender, mut receiver) = channel(0);
        let tasks = Tasks::default();
        tasks.start("sender", OnExit::Ignore, async move {
            tokio::task::yield_now().await;
            drop(sender);
        });
        receiver.wait_for(|value| *value == 1).await.expect_err("closed");
    }
}
