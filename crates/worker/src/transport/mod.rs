//! Tuples on their way: between the tasks of one worker by queue, between workers by TCP.
//!
//! ```text
//!  emitting task ─ Outbox ─┬─ inbox of a task in this worker
//!                          └─ queue of a component at a peer ─ sender ══ TCP ══ Listener ─ inbox there
//! ```
//!
//! - [`Inboxes`] are the queues of this worker's tasks, [`Peers`] the connections to the
//!   other workers of the assignment, [`Outbox`] an emitting task's way to both, and
//!   [`Listener`] receives what other workers send.
//! - Every queue is bounded ([`INBOX_TUPLES`], [`PEER_QUEUE_TUPLES`], one frame and the
//!   kernel's buffers per connection). When one is full, whoever fills it waits, so that a
//!   slow bolt slows its spouts. A receiver that waits for one full inbox reads nothing else
//!   of that connection, so each component has a queue and a connection of its own in every
//!   other worker that runs tasks of it.
//! - Waits therefore follow the topology: whoever waits, waits for tasks of a component
//!   that it emits to, directly or behind tuples for the same component. Without a cycle this
//!   ends at components that emit nothing and wait for nobody, so everything drains, as long
//!   as every worker lives and is reached.
//! - A cycle of bolts can stop for good: when every queue around it is full, each bolt waits
//!   for the next. A cycle must bring fewer tuples back than its queues hold; nothing here
//!   grows to save one that does not.
//! - Between two tasks tuples keep their order, also over TCP, as long as the connection
//!   lives. After a reconnect, what the receiver had still buffered of the old connection
//!   may come after what the new one brings.
//! - Delivery is at most once. Lost are: frames handed to the kernel that the receiver had
//!   not read when the connection broke; tuples queued for a peer that leaves the
//!   assignment; tuples for tasks that are not where they were sent. A frame that was not
//!   handed to the kernel to its last byte is sent again on the next connection: the
//!   receiver uses no part of an incomplete frame, so no tuple arrives twice. All losses
//!   but those in the kernel are counted in [`Counters`].

mod counters;
mod listener;
mod measures;
mod outbox;
mod peer;
pub(crate) mod wire;

pub use counters::{Counters, Counts};
pub use listener::Listener;
pub(crate) use measures::{Measures, Wanted};
pub use outbox::{Inboxes, Outbox, Peers, Sent};

use stormkeeper_model::{Slot, TopologyId};

/// How many tuples wait for one task. It covers about 0.1 s of a bolt that works off 10,000
/// tuples a second, so a busy bolt never runs dry while its sender is scheduled.
pub const INBOX_TUPLES: usize = 1024;

/// How many tuples wait for one component at one peer, not counting those taken for the frame
/// under way (at most half as many more): two full frames' worth keeps the connection busy. A
/// worker holds at most so many for each component of each other worker that its tasks emit to.
pub const PEER_QUEUE_TUPLES: usize = 2 * wire::MAX_BATCH_TUPLES;

/// Who a worker is to its peers. A connection names the worker that it is meant for, and is
/// refused by every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The topology it works for.
    pub topology: TopologyId,
    /// The slot it fills.
    pub slot: Slot,
}

#[cfg(test)]
mod tests;
